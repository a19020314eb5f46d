"""What people read when runs are done: tables, pages and curves."""
