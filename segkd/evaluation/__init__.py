"""How good a network is, measured with labels, and what its masks look like. Nothing here trains or selects."""
