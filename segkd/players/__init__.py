"""Whoever learns: a list of parameters with its optimiser, schedule and average, and the moves that are refused."""
