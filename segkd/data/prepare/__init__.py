"""Public data sets from their sources into the layout that the readers know: what `segkd data prepare` does."""

from segkd.data.definition import Source
from segkd.data.prepare.download import Retries
from segkd.data.prepare.sets import prepare

__all__ = ["Retries", "Source", "prepare"]
