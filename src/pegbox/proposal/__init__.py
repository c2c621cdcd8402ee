"""What could be trained on some rows: columns -> task, roles and settings -> a recipe with comments."""
