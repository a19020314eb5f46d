"""The game: the loop, its players, and everything that keeps a run from being lost."""
