"""The methods, one file each, found by file name: what the papers say, and nothing else."""
