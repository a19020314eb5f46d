"""The maths of the players' losses: per-pixel means in fp32, natural logarithms, nothing that knows a method."""
