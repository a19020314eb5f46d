"""A public data set brought into the layout that its reader knows, as its file in `data/sets/` says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from segkd.data import catalogue
from segkd.data.definition import Source
from segkd.data.prepare.download import Retries
from segkd.data.prepare.staging import Staging
from segkd.data.verify import verify
from segkd.foundation.errors import DataError, UsageError
from segkd.foundation.files import RunLock


def prepare(
    name: str, root: Path, source: str | None = None, *, say: Callable[[str], None] = print,
    progress: Callable[[str, int, int | None], None] | None = None, retries: Retries | None = None,
    public: Mapping[str, Source] | None = None, counts: Mapping[str, int] | None = None,
) -> bool:  # fmt: skip
    """Bring a public data set into the layout that its reader knows; running it again goes on where it ended.

    Args:
        name: which set.
        root: the folder for it, made if it is missing.
        source: instead of the public address: a folder, zip or tar with the public files, the large .mat file of
            NYUv2, or the address of one of these; what it lacks of NYUv2's small files is downloaded.
        say: is told, a line each, what is used and made.
        progress: is called with what is being done, how much of it is, and how much there is (None: unknown).
        retries: of the downloads.
        public: the addresses of the public files, in place of the published ones.
        counts: images that the splits must have, in place of the published numbers.

    Returns:
        False where it was prepared already and there was nothing to do.

    Raises:
        UsageError: a set that cannot be prepared (and where it is to be had), a source that is none, or a root that holds
            other files of these names.
        DataError: a source that is damaged, incomplete or not the data set.
        StorageError: a download failed (its part stays), a source changed, or the disk is full.
    """
    kind = catalogue.reader(name)
    if not kind.public:
        raise UsageError(f"{name} {kind.obtained or 'is rendered: there are no files to prepare'}")
    place = Staging(root, say, progress or (lambda what, done, total: None), retries or Retries())
    place.make()
    with RunLock(root, "--root"):
        place.sweep()
        if not place.unfinished(kind.made):
            return False
        kind.stage(place, source, kind.public if public is None else public)
        found = verify(
            name, place.staging, counts=counts, progress=lambda done, total: place.progress("check", done, total)
        )
        if found.problems:
            more = f" and {len(found.problems) - 1} more problems" if len(found.problems) > 1 else ""
            raise DataError(f"the source is not the whole {name}: {found.problems[0]}{more}")
        place.publish(kind.made)
        for line in found.splits:
            say(line)
    return True
