"""The run folder: recipe, receipt, metrics log, checkpoints."""
