"""Files and folders that may not be read end as one line, whoever asks: run without the rights of an administrator."""

import codecs
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import segkd.data.prepare
import segkd.data.verify  # noqa: F401
from segkd.cli.main import main
from tests.data.folders import filled

NOBODY = 65534
Image.init()
codecs.lookup("utf-8-sig")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="segkd-"))
    folder.chmod(0o777)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def run(place: Path, *arguments: str) -> tuple[int, list[str]]:
    """The exit code and the lines of a command in a child that has no special rights."""
    pid = os.fork()
    if not pid:
        code = 99
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            out = os.open(place / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(out, 1), os.dup2(out, 2)
            import sys

            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
            code = main(arguments)
            sys.stdout.flush(), sys.stderr.flush()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, (place / "said").read_text().splitlines()


@pytest.mark.parametrize(
    ("forbidden", "told"),
    [
        ("images/test/a.png", "images/test/a.png: cannot be read: Permission denied"),
        ("masks/test/a.png", "masks/test/a.png: cannot be read: Permission denied"),
        ("images/test", "images/test: cannot be read: Permission denied"),
        ("masks", "masks/test: Permission denied"),
        ("dataset.yaml", "dataset.yaml: cannot be read: Permission denied"),
        ("", "is not readable"),
    ],
)
def test_a_set_of_which_something_may_not_be_read(place: Path, forbidden: str, told: str):
    root = filled(place / "set", "images/test/a.png", "masks/test/a.png")
    (root / forbidden).chmod(0)
    code, lines = run(place, "data", "verify", "folder", "--root", str(root), "--split", "test")
    assert code in (2, 3, 5), lines  # click looks at the root before anybody else
    assert any(told in line for line in lines) and not any("bug" in line or "Traceback" in line for line in lines), (
        lines
    )


def test_a_list_that_may_not_be_read(place: Path):
    root = filled(place / "set", "images/a.png", "masks/a.png")
    (root / "test.txt").write_text("a\n")
    (root / "test.txt").chmod(0)
    code, lines = run(place, "data", "verify", "folder", "--root", str(root), "--split", "test")
    assert code == 3 and "test.txt: cannot be read: Permission denied" in lines[0]


@pytest.mark.parametrize("kind", ["zip", "a folder's file", "a folder in a folder", "above"])
def test_a_source_that_may_not_be_read(place: Path, kind: str):
    source = place / "given" / ("source.zip" if kind == "zip" else "source")
    filled(place / "given" / "source", "CamVid/train/a.png", "CamVid/trainannot/a.png")
    if kind == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("CamVid/trainannot/a.png", b"?")
    targets = {
        "a folder's file": source / "CamVid/train/a.png",
        "a folder in a folder": source / "CamVid/train",
        "above": source.parent,
    }
    targets.get(kind, source).chmod(0)
    (place / "root").mkdir()
    (place / "root").chmod(0o777)
    code, lines = run(
        place, "data", "prepare", "camvid", "--root", str(place / "root"), "--from", str(source), "--quiet"
    )
    assert code in (3, 5) and len(lines) == 1 and "Permission denied" in lines[0] and "bug" not in lines[0], lines


def test_a_root_that_may_not_be_written(place: Path):
    source = filled(place / "source", "CamVid/train/a.png", "CamVid/trainannot/a.png")
    (place / "root").mkdir(mode=0o555)
    code, lines = run(
        place, "data", "prepare", "camvid", "--root", str(place / "root"), "--from", str(source), "--quiet"
    )
    assert code == 5 and len(lines) == 1 and "Permission denied" in lines[0], lines
