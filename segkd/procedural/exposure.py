"""From a drawn canvas to a photograph of it: the last step of every procedural picture (numpy and cv2 only)."""

from __future__ import annotations

import cv2
import numpy as np


def expose(
    canvas: np.ndarray, rng: np.random.Generator, texture: np.ndarray, gain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Material noise, uneven light, exposure, blur and sensor noise; the labels stay as drawn.

    Args:
        canvas: (H, W, 4) uint8: red, green, blue, label.
        rng: drawn from.
        texture: (C, 3) float32, strength of grain (a pixel), leaf (three pixels) and stain (wide) noise on each class.
        gain: (3,) brightness of red, green and blue.

    Returns:
        The image (H, W, 3) uint8 RGB and the mask (H, W) uint8.
    """
    height, width = canvas.shape[:2]
    unit = min(height / 96, width / 128)
    mask = canvas[..., 3].copy()
    grain = rng.standard_normal((height, width), np.float32)
    cells = (max(round(height / (2.5 * unit)), 2), max(round(width / (2.5 * unit)), 2))
    leaf = cv2.resize(rng.standard_normal(cells, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    stain = cv2.resize(rng.standard_normal((7, 9), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    strength = (texture * rng.uniform(0.6, 1.3, 3).astype(np.float32))[mask]
    light = 1 + strength[..., 0] * grain + strength[..., 1] * leaf + strength[..., 2] * stain

    tilt = rng.uniform(-0.14, 0.14, 2)
    light *= 1 + tilt[0] * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    light *= 1 + tilt[1] * np.linspace(-1, 1, width, dtype=np.float32)
    image = canvas[..., :3] * light[..., None] * gain.astype(np.float32)
    image = cv2.GaussianBlur(image, (0, 0), unit * rng.uniform(0.35, 0.55))
    image += rng.standard_normal(image.shape, np.float32) * rng.uniform(0.5, 2.0)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), mask
