"""Layer 0: errors, seeds, files and the audit. Imports nothing else of segkd."""
