"""Public data sets from their sources into the layout that the readers know: what `segkd data prepare` does."""
