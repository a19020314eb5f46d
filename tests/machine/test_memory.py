"""Freed memory stays with the process, and comes back without new pages."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from segkd.machine import memory

if "hold" in sys.argv:
    assert memory.hold()
np.ones(10_000_000)  # 80 MB, freed at once
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def new_pages(*arguments: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_held():
    assert new_pages("hold") < 0.1 * new_pages()


HELD = """
import numpy as np
from segkd.machine import memory

assert memory.hold(sparing=True)
memory.forget_peak()
before, kept = memory.resident_mb(), []
for turn in range(40):
    large = np.ones(2_000_000 - 5_000 * turn)  # 16 MB and less
    kept.append(np.ones(10_000))  # lies behind it
    del large
print(memory.resident_mb() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_is_spared():
    """Arrays of many sizes come and go, and small ones stay between them."""
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 8


PEAK = """
import numpy as np
from segkd.machine import memory

memory.forget_peak()
before = memory.peak_mb()
held = np.ones(25_000_000)  # 191 MB
assert memory.resident_mb() >= before + 100
del held
assert memory.peak_mb() > before + 150
memory.forget_peak()
assert memory.peak_mb() < before + 150 and memory.available_mb() > 0
assert memory.largest_mb() > before + 150  # a run's summary tells of the whole run
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="the system does not tell")
def test_a_peak_is_seen_and_forgotten():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
