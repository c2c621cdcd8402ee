"""Batching, the plan of memory and time, optimizers and schedules, the one loop."""
