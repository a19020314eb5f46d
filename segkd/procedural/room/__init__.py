"""The parts of a procedural room: the camera, the blocks that all is built of, the bare room, its pieces, the plan."""
