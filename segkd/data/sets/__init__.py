"""One file a data set, known by the file's name: its classes, its reader, the counts that verify it, how it is prepared."""
