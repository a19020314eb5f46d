"""Materials of dead leaves: each leaf one colour and texture; noise with the spectrum that is asked for."""

import numpy as np
import pytest

from segkd.procedural.leaves import cloud, painted


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (7, 9)])
def test_noise_has_the_spectrum_that_is_asked_for(size):
    noise = cloud(np.random.default_rng(0), 3, size, 1.0)
    assert noise.shape == (3, *size)
    np.testing.assert_allclose(noise.mean((1, 2)), 0, atol=1e-9)
    np.testing.assert_allclose(noise.std((1, 2)), 1)


def test_its_amplitudes_fall_by_the_slope():
    for slope in (0.5, 1.5):
        power = np.abs(np.fft.rfft2(cloud(np.random.default_rng(0), 16, (128, 128), slope))) ** 2
        f = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)) * 128
        near, far = (power[:, (f > low) & (f < high)].mean() for low, high in ((3, 5), (30, 50)))
        assert np.log10(near / far) == pytest.approx(2 * slope, abs=0.2)


def test_one_pixel_is_a_picture():
    assert painted(np.random.default_rng(0), np.zeros((1, 1), np.int64)).shape == (1, 1, 3)


def test_each_leaf_has_a_colour_of_its_own():
    leaves = np.repeat(np.arange(8), 32)[None].repeat(64, 0)
    image = painted(np.random.default_rng(3), leaves).astype(float)
    inside = [image[:, 32 * k + 6 : 32 * k + 26].reshape(-1, 3) for k in range(8)]
    means = np.stack([pixels.mean(0) for pixels in inside])
    assert len(np.unique(means.round(), axis=0)) == 8 and means.std(0).min() > 20
    assert (means.max(1) - means.min(1)).mean() < 60  # greyish
    spreads = [pixels.std(0).mean() for pixels in inside]
    assert max(spreads) > 3 * min(spreads)
