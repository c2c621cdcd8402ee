"""A finished model in the form that other programs read."""
