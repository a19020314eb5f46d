"""The audit, in fresh processes: hooks cannot be removed, and the order of imports matters."""

import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from tests.waiting import PATIENCE

SETUP = """
import os, sys
from pathlib import Path
from segkd.foundation import audit
"""


def run(code: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SETUP + code], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    pixels = np.zeros((4, 4, 3), np.uint8)
    for name in ("a.png", "a.jpg", "a.PNG", "a.tiff"):
        cv2.imwrite(str(folder / name), pixels)
    np.save(folder / "a.npy", pixels)
    np.savez(folder / "a.npz", pixels)
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = pixels
    with h5py.File(folder / "a.mat", "w") as file:
        file["x"] = pixels
    (folder / "a.txt").write_text("no image")
    return folder


READERS = {
    "open": "open('a.png', 'rb').close()",
    "open bytes": "open(b'a.png', 'rb').close()",
    "os.open": "os.close(os.open('a.jpg', os.O_RDONLY))",
    "Path": "Path('a.PNG').read_bytes()",
    "cv2": "import cv2; assert cv2.imread('a.png').shape == (4, 4, 3)",
    "cv2 keyword": "import cv2; assert cv2.imread(filename='a.jpg', flags=0) is not None",
    "cv2 multi": "import cv2; assert cv2.imreadmulti('a.tiff')[0]",
    "cv2 after from": "from cv2 import imread; assert imread('a.png') is not None",
    "PIL": "from PIL import Image; Image.open('a.png').load()",
    "numpy": "import numpy; numpy.load('a.npy')",
    "npz": "import numpy; numpy.load('a.npz')",
    "h5py": "import h5py; h5py.File('a.h5', 'r').close()",
    "h5py mat": "import h5py; h5py.File(Path('a.mat'), mode='r').close()",
    "h5py keyword": "import h5py; h5py.File(name='a.h5', mode='r').close()",
}


@pytest.mark.parametrize("reader", READERS)
def test_counts_each_reader_once(images: Path, reader: str) -> None:
    run(
        f"""
audit.install(); audit.install()
with audit.phase('training'):
    {READERS[reader]}
assert [audit.count(n) for n in ('training', 'evaluation', 'none')] == [1, 0, 0]
""",
        images,
    )


def test_libraries_imported_before(images: Path) -> None:
    run(
        """
import cv2, h5py
audit.install()
with audit.phase('evaluation'):
    cv2.imread('a.png')
    with h5py.File('a.h5', 'r') as file:
        assert isinstance(file, h5py.File)
assert audit.count('evaluation') == 2
""",
        images,
    )


@pytest.mark.slow
def test_torchvision(images: Path) -> None:
    run(
        """
audit.install()
import torchvision.io
from torchvision.io import read_image
with audit.phase('training'):
    read_image('a.png'); torchvision.io.read_file('a.jpg')
assert audit.count('training') == 2
""",
        images,
    )


def test_phases_nest_and_return_after_errors(images: Path) -> None:
    run(
        """
audit.install()
def look(): open('a.png', 'rb').close()
look()
with audit.phase('training'):
    look()
    with audit.phase('evaluation'):
        look(); look()
    try:
        with audit.phase('none'):
            raise KeyError
    except KeyError:
        pass
    look()
assert [audit.count(n) for n in ('training', 'evaluation', 'none')] == [2, 2, 1]
""",
        images,
    )


THREADS = """
import threading
from concurrent.futures import ThreadPoolExecutor
audit.install()
def look(): open('a.png', 'rb').close()
go, looked, done = threading.Event(), threading.Event(), threading.Event()
def other():
    go.wait(); look(); looked.set(); done.wait(); look()
stranger = threading.Thread(target=other); stranger.start()
"""


def test_another_thread_of_the_process_does_not_count_in_this_ones_phase(images: Path) -> None:
    run(
        THREADS
        + """
def a_run():
    with audit.phase('training'):
        go.set(); looked.wait(); look()
        with audit.phase('evaluation'):
            done.set(); stranger.join()
a_run()
assert [audit.count(n) for n in ('training', 'evaluation', 'none')] == [1, 0, 2]
runner = threading.Thread(target=a_run); runner.start(); runner.join(); look()
assert [audit.count(n) for n in ('training', 'evaluation', 'none')] == [2, 0, 3]
""",
        images,
    )


def test_a_thread_begins_in_the_phase_of_whom_started_it(images: Path) -> None:
    """A method that reads images by a thread of its own cannot hide them, and a run's readers keep their own phase."""
    run(
        THREADS
        + """
def inner():
    look()
    with ThreadPoolExecutor(1) as pool: pool.submit(look).result()
    with audit.phase('evaluation'): look()
    look()
with audit.phase('training'):
    one = threading.Thread(target=inner)
    one.start(); one.join()
    with ThreadPoolExecutor(2) as pool:
        with audit.phase('none'): pool.submit(look).result()
    waits = threading.Thread(target=lambda: (go.wait(), look()))
    waits.start()
done.set(); go.set(); waits.join(); stranger.join()
assert [audit.count(n) for n in ('training', 'evaluation', 'none')] == [4, 1, 3]
with audit.phase('training'): two = threading.Thread(target=lambda: audit.rendered(2)); two.start(); two.join()
assert audit.count('rendered') == 2
""",
        images,
    )


def test_other_files_and_failed_opens(images: Path) -> None:
    run(
        """
audit.install()
with audit.phase('training'):
    open('a.txt').close(); open(os.open('a.txt', os.O_RDONLY)).close(); os.listdir('.')
    assert audit.count('training') == 0
    try: open('missing.png')
    except FileNotFoundError: pass
    assert audit.count('training') == 1   # an attempt counts
""",
        images,
    )


def test_the_run_folder_is_ignored_also_through_links(images: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "samples").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    run(
        f"""
os.chdir({str(tmp_path)!r})
audit.install(); audit.ignore('link'); audit.ignore('link')
for name in ('run/a.png', 'link/samples/b.png', 'run/../run/c.png'):
    open(name, 'wb').close()
assert audit.count('none') == 0
open('run-2.png', 'wb').close()
assert audit.count('none') == 1
""",
        tmp_path,
    )


def test_rendered_scenes_count_in_training_only(images: Path) -> None:
    run(
        """
audit.rendered(5)
with audit.phase('evaluation'): audit.rendered()
with audit.phase('training'): audit.rendered(); audit.rendered(3)
assert audit.count('rendered') == 4
try:
    with audit.phase('trainig'): pass
except ValueError: pass
else: raise SystemExit(1)
""",
        images,
    )


def test_nothing_counts_before_install(images: Path) -> None:
    run("open('a.png', 'rb').close(); assert audit.count('none') == 0; assert not audit.installed()", images)


def test_install_imports_no_library(images: Path) -> None:
    run(
        "audit.install(); assert not {'cv2', 'h5py', 'numpy', 'torch', 'torchvision', 'PIL'} & set(sys.modules)", images
    )
