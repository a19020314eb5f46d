"""Tests of segkd.data.samples: labels outside the classes are named with their pixel."""

import numpy as np
import pytest

from segkd.data.classes import IGNORE
from segkd.data.samples import check_labels
from segkd.foundation.errors import DataError


def test_ids_and_ignore_pass():
    check_labels("a.png", np.array([[0, 10], [5, IGNORE]], dtype=np.uint8), 11)


@pytest.mark.parametrize(("label", "dtype"), [(11, np.uint8), (254, np.uint8), (1000, np.uint16), (-1, np.int64)])
def test_first_wrong_pixel_is_named(label: int, dtype: type):
    mask = np.zeros((6, 7), dtype=dtype)
    mask[4, 5] = mask[5, 1] = label
    with pytest.raises(DataError) as caught:
        check_labels("a.png", mask, 11)
    assert f"a.png: label {label} at pixel (row 4, column 5) and 1 more" in str(caught.value)
