"""The folder of the real data sets, for the tests that are marked `realdata`."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def real() -> Path:
    if "SEGKD_DATA" not in os.environ:
        pytest.skip("SEGKD_DATA is not set")
    return Path(os.environ["SEGKD_DATA"])
