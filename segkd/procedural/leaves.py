"""Materials for dead leaves: what shapes that hide each other look like where nothing is known of any scene (numpy and cv2 only).

Pictures of dead leaves have the borders, the occlusions and the spectrum of photographs, and no more (arXiv:2106.05963).
"""

from __future__ import annotations

import cv2
import numpy as np

TEXTURES = 4
"""Of a picture; leaves share them, each as strong as it likes."""


def painted(rng: np.random.Generator, leaves: np.ndarray) -> np.ndarray:
    """A picture (H,W,3) uint8 RGB of leaves (H,W), numbered from 0: each of one colour, most of them greyish, and one texture."""
    count = int(leaves.max()) + 1
    colours = rng.uniform(0.02, 0.98, (count, 1)) + rng.normal(0, 0.08, (count, 3))
    textures = cloud(rng, TEXTURES, leaves.shape, rng.uniform(0.4, 1.6))
    strengths = np.abs(rng.normal(0, 0.07, count))
    grain = strengths[leaves] * np.choose(leaves % TEXTURES, textures)
    image = cv2.GaussianBlur(colours.clip(0, 1)[leaves] + grain[..., None], (0, 0), rng.uniform(0.4, 1.0))
    return np.rint(image.reshape(*leaves.shape, 3).clip(0, 1) * 255).astype(np.uint8)


def cloud(rng: np.random.Generator, n: int, size: tuple[int, int], slope: float) -> np.ndarray:
    """Noise (n,H,W) whose amplitudes fall with the frequency as 1/f^slope, of mean 0 and, where it can vary, deviation 1."""
    height, width = size
    down, across = np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width) * width
    frequency = np.hypot(down, across)
    frequency[0, 0] = np.inf  # no mean
    spectrum = rng.normal(size=(n, *frequency.shape)) + 1j * rng.normal(size=(n, *frequency.shape))
    noise = np.fft.irfft2(spectrum / frequency**slope, s=size)
    return noise / np.maximum(noise.std((1, 2), keepdims=True), np.finfo(np.float64).tiny)
