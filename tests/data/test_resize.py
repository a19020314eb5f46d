"""Tests of segkd.data.resize."""

import numpy as np
import pytest

from segkd.data.resize import at_size, reduced, resize_protocol
from segkd.data.samples import Sample


def picture(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def labels(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 12, (height, width), dtype=np.uint8)


def test_resize_protocol():
    image, mask = picture(0, 360, 480), labels(0, 360, 480)
    small = resize_protocol(Sample("a", image, mask))
    assert small.name == "a"
    assert small.image.shape == (256, 341, 3)
    assert small.mask is not None
    assert small.mask.shape == (256, 341)
    assert small.mask.dtype == np.uint8
    assert resize_protocol(small) is small
    tall = resize_protocol(Sample("b", picture(0, 80, 40), None), shorter=20)
    assert tall.image.shape == (40, 20, 3)
    assert tall.mask is None


def test_resizing_favours_no_side():
    """The plain nearest neighbour of OpenCV moves labels up and left: a mirrored mask becomes another one."""
    image, mask = picture(3, 360, 360), labels(3, 360, 360)
    small = resize_protocol(Sample("a", image, mask))
    mirrored = resize_protocol(Sample("a", image[::-1, ::-1].copy(), mask[::-1, ::-1].copy()))
    assert small.mask is not None
    assert mirrored.mask is not None
    assert np.array_equal(mirrored.mask[::-1, ::-1], small.mask)
    assert np.abs(mirrored.image[::-1, ::-1].astype(int) - small.image).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(360, 480), (480, 640), (640, 480), (257, 300)])
def test_the_nearest_pixel_is_the_one_whose_centre_is_nearest(height: int, width: int):
    rows, columns = np.arange(height, dtype=np.uint16), np.arange(width, dtype=np.uint16)
    for mask, axis, old in ((rows[:, None].repeat(width, 1), 0, height), (columns[None].repeat(height, 0), 1, width)):
        small = resize_protocol(Sample("a", picture(0, height, width), mask)).mask
        new = small.shape[axis]
        centres = (np.arange(new) + 0.5) * old / new
        tie = centres == centres.round()  # two pixels are as near
        assert tie.sum() <= 1 and np.array_equal(small.take(0, 1 - axis)[~tie], np.floor(centres)[~tie])


def test_only_larger_images_are_reduced():
    sample = Sample("a", picture(0, 256, 300), None)
    assert reduced(sample) is sample
    assert reduced(Sample("b", picture(0, 100, 400), None)).image.shape == (100, 400, 3)
    assert reduced(Sample("c", picture(0, 300, 257), None)).image.shape == (299, 256, 3)


def test_the_size_of_a_recipe():
    large, small = Sample("a", picture(0, 300, 400), None), Sample("b", picture(0, 100, 400), None)
    assert np.array_equal(at_size(large, "protocol").image, resize_protocol(large).image)
    assert at_size(large, "original") is large and at_size(small, "protocol") is small
