"""The demonstration: real rows that a small model can learn in minutes."""
