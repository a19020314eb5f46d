"""Errors, seeds, files, the terminal and the audit: free of torch; imports nothing else of segkd."""
