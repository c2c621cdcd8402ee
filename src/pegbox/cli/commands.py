"""All commands, in the order in which a person meets them."""

from pegbox.cli import recipes, runs
from pegbox.cli.app import app

__all__ = ["app", "recipes", "runs"]
