"""Where images come from: generators, image banks and procedural street scenes."""
