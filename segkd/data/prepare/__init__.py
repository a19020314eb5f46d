"""Public data sets from their sources into the layout that the readers know: what `segkd data prepare` does."""

from segkd.data.prepare.download import Patience
from segkd.data.prepare.sets import PUBLIC, prepare
from segkd.data.prepare.workplace import Source

__all__ = ["PUBLIC", "Patience", "Source", "prepare"]
