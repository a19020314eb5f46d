"""`segkd data prepare|verify`: what is printed, and the exit code."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkd.cli.main import main
from segkd.data.sets.camvid import SPLITS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many images as CamVid has, each of 4x3 pixels."""
    folder = tmp_path_factory.mktemp("tutorial")
    encoded = {}
    for kind, mode in (("", "RGB"), ("annot", "L")):
        buffer = io.BytesIO()
        Image.new(mode, (4, 3), 7 if mode == "L" else (1, 2, 3)).save(buffer, "png")
        encoded[kind] = buffer.getvalue()
    for split, count in SPLITS.items():
        for kind, data in encoded.items():
            (folder / "CamVid" / f"{split}{kind}").mkdir(parents=True)
            for i in range(count):
                (folder / "CamVid" / f"{split}{kind}" / f"{i:04d}.png").write_bytes(data)
        lines = (f"/SegNet/CamVid/{split}/{i:04d}.png /SegNet/CamVid/{split}annot/{i:04d}.png\n" for i in range(count))
        (folder / "CamVid" / f"{split}.txt").write_text("".join(lines))
    return folder


@pytest.fixture
def address(tutorial: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a server that has the tutorial as an archive."""
    shutil.make_archive(str(tmp_path / "served" / "camvid"), "zip", tutorial)

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "served"))

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_prepare_and_verify_camvid(here: Path, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data", "prepare", "camvid", "--root", "sets/camvid", "--from", f"{address}/camvid.zip"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    record = json.loads(Path("sets/camvid/sources.json").read_text())["camvid.zip"]
    assert out.splitlines() == [
        f"camvid.zip: from {address}/camvid.zip",
        f"camvid.zip: {record['bytes']} bytes, sha256 {record['sha256']} (recorded)",
        *(f"{split}: {count} images of 4x3 pixels" for split, count in SPLITS.items()),
        "sets/camvid: prepared; downloads/ may be deleted",
    ]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("sets/camvid: prepared already; segkd data verify camvid --root")
    assert main(["data", "verify", "camvid", "--root", "sets/camvid"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "train: 367 images of 4x3 pixels"

    Image.fromarray(np.full((3, 4), 12, np.uint8)).save("sets/camvid/valannot/0003.png")
    Path("sets/camvid/test/0009.png").write_bytes(b"")
    assert main(["data", "verify", "camvid", "--root", "sets/camvid"]) == 3
    out, err = capsys.readouterr()
    assert "sets/camvid/valannot/0003.png: label 12 at pixel" in out and "sets/camvid/test/0009.png: empty file" in out
    assert err == "segkd: sets/camvid: 2 problems, named above\n"
    assert main(["data", "verify", "camvid", "--root", "sets/camvid", "--split", "train"]) == 0


def test_prepare_from_a_folder_quietly(here: Path, tutorial: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", "camvid", "--root", "camvid", "--from", str(tutorial), "--quiet"]) == 0
    assert capsys.readouterr() == ("camvid: prepared; downloads/ may be deleted\n", "")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["prepare", "camvid"], 2, "--root"),
        (["prepare", "folder", "--root", "x"], 2, "folder is your own: docs/data.md says how it may lie"),
        (["prepare", "scenes", "--root", "x"], 2, "scenes is rendered: there are no files to prepare"),
        (
            ["prepare", "voc", "--root", "x"],
            2,
            "voc is at http://host.robots.ox.ac.uk/pascal/VOC/voc2012: unpack VOCtrainval",
        ),
        (["prepare", "camvid", "--root", "x", "--from", "nowhere.zip"], 2, "nowhere.zip: no such file or folder"),
        (["prepare", "camvid", "--root", "x", "--from", "ftp://x/y"], 2, "only http and https"),
        (["prepare", "camvid", "--root", "x", "--from", "{address}/none.zip"], 5, "the server says 404"),
        (["prepare", "nyuv2", "--root", "x", "--from", "page.zip"], 3, "page.zip: not a folder, zip or tar file"),
        (["verify", "scenes", "--root", "x"], 2, "scenes are rendered: there are no files to verify"),
        (["verify", "camvid", "--root", "nowhere"], 3, "nowhere: 1 problem, named above"),
        (["verify", "folder", "--root", "."], 3, "1 problem, named above"),
    ],
)
def test_errors(
    here: Path, address: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    Path("page.zip").write_text("<html></html>")
    assert main(["data", *(text.format(address=address) for text in arguments)]) == code
    err = capsys.readouterr().err
    assert words in err and len(err.splitlines()) == 1


def test_an_interrupted_preparation_is_130_and_goes_on(here: Path, tutorial: Path) -> None:
    """Ctrl-C while it is busy; then the same command again."""
    code = (
        "import os, signal, sys; from segkd.data.prepare import staging; from segkd.cli.main import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background ignores it
        "stage, left = staging.Staging.stage, [300]\n"
        "def counted(*arguments):\n"
        "    left[0] -= 1\n"
        "    if left[0] == 0: os.kill(os.getpid(), signal.SIGINT)\n"
        "    stage(*arguments)\n"
        "staging.Staging.stage = counted\n"
        "sys.exit(main())"
    )
    command = ["data", "prepare", "camvid", "--root", "camvid", "--from", str(tutorial)]
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, "segkd: stopped")
    assert not Path("camvid/train").exists() and 250 < len(list(Path("camvid/.preparing").rglob("*.png"))) < 300
    assert main(command) == 0 and len(list(Path("camvid/train").iterdir())) == 367


def test_the_group_loads_nothing_heavy() -> None:
    code = (
        "import sys; from segkd.cli.main import main; main(['data', 'prepare', '--help']);"
        "assert not {'torch', 'numpy', 'PIL', 'h5py', 'scipy', 'urllib.request'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment).returncode == 0
