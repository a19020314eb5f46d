"""Further student terms, one file each, found by file name: any method may be played with them."""
