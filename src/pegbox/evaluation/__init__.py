"""Baselines, the paired comparison, the verdict."""
