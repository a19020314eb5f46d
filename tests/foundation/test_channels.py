"""Channels of images: one rule for grey, and no other channels than a network takes."""

import numpy as np
import pytest

from segkd.foundation.channels import in_channels
from segkd.foundation.errors import DataError
from segkd.foundation.resize import resized


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def test_colours_become_their_luma_and_grey_stays(image):
    exact = image @ np.array([0.299, 0.587, 0.114])
    found = in_channels(image, 1)
    assert found.shape == (48, 64, 1) and abs(found[..., 0] - exact).max() <= 0.51
    for stored in (image[..., :1].repeat(3, axis=2), image[..., :1], image[..., 0]):
        np.testing.assert_array_equal(in_channels(stored, 1), image[..., :1])
    assert in_channels(image, 3) is image


def test_other_channels_are_not_made_up(image):
    for shown, channels in ((image, 4), (image[..., 0], 3), (np.zeros((2, 2, 4), np.uint8), 1)):
        with pytest.raises(DataError, match="for a network of .*predict takes arrays of all channels"):
            in_channels(shown, channels)


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_each_channel_is_resized_alone(channels):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, channels), np.uint8)
    found = resized(image, (20, 30))
    for index in range(channels):
        np.testing.assert_array_equal(found[..., index], resized(image[..., index], (20, 30)))
