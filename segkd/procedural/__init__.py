"""Pictures with exact labels from a seed, for demonstration teachers."""
