"""The parts of a procedural street: the camera and brush, the figures, and the plan that places them."""
