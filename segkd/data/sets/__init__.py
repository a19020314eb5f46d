"""One file a data set: its classes, its reader, and the counts that verify it."""
