"""Collages by dead leaves: random shapes, each of which shows another image of the batch.

A young generator paints soft spots; shapes with sharp borders that hide each other are what it learns last. The dead
leaves model has them and knows nothing of any data (arXiv:2106.05963 trains on it alone). Here it cuts up what the
generator makes, as CutMix (arXiv:1905.04899) does with boxes, and gradients flow through to the images that are shown.
Materials of the leaves' own made CamVid's students worse the more there were, and those of scenes hardly better.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

LEAVES = 60
"""Shapes drawn over each image."""

RADII = (0.01, 0.6)
"""Smallest and largest radius of a leaf, in widths of the image; between them evenly by logarithm."""


def collage(images: Tensor) -> Tensor:
    """Three quarters of the images (N,3,H,W) become collages, the first quarter stays: by torch's global generator.

    A leaf shows its image at the place where the leaf lies; what no leaf covers is the image that was there.
    """
    n, _, height, width = images.shape
    device, plain = images.device, n // 4
    shown = leaves(n - plain, height, width).to(device, non_blocking=True)
    source = torch.randint(n, (n - plain, LEAVES + 1), device=device)
    source[:, 0] = torch.arange(plain, n, device=device)
    picks = source.gather(1, shown.flatten(1)).view_as(shown)
    return torch.cat([images[:plain], taken(images, picks)])


def taken(images: Tensor, picks: Tensor) -> Tensor:
    """Pixel (y,x) of image picks[i,y,x] of images (N,3,H,W), for each of the picks (n,H,W).

    Gradients that meet at a pixel are added up in the same order each time: by gather on a CPU, where those of indexing
    come as the threads finish, and by indexing on a GPU, where it is the other way round.
    """
    return (gathered if images.device.type == "cpu" else indexed)(images, picks)


def gathered(images: Tensor, picks: Tensor) -> Tensor:
    """`taken` by gather."""
    return images.gather(0, picks.unsqueeze(1).expand(-1, images.shape[1], -1, -1))


def indexed(images: Tensor, picks: Tensor) -> Tensor:
    """`taken` by indexing."""
    height, width = picks.shape[1:]
    rows, columns = torch.meshgrid(
        *(torch.arange(side, device=images.device) for side in (height, width)), indexing="ij"
    )
    return images.permute(0, 2, 3, 1)[picks, rows, columns].permute(0, 3, 1, 2)


def leaves(n: int, height: int, width: int) -> Tensor:
    """The topmost leaf at each pixel: (n,height,width) int64 from 1 to LEAVES, 0 where none lies; large ones below."""
    rng = np.random.default_rng(int(torch.randint(2**62, ())))
    maps = np.zeros((n, height, width), np.uint8)
    low, high = (math.log(share * width) for share in RADII)
    for canvas in maps:
        radii = np.sort(np.exp(rng.uniform(low, high, LEAVES)))[::-1]
        for leaf, radius in enumerate(radii, start=1):
            draw = horizon if leaf <= 4 and rng.random() < 0.5 else rng.choice(SHAPES, p=CHANCES)
            draw(canvas, rng, leaf, radius)
    return torch.from_numpy(maps).long()


def horizon(canvas: np.ndarray, rng: np.random.Generator, leaf: int, _: float) -> None:
    """All above or below a line that is nearly level."""
    height, width = canvas.shape
    middle, fall = rng.uniform(0.1, 0.9) * height, math.tan(math.radians(rng.normal(0, 8))) * width / 2
    end = rng.choice([0, height])
    fill(canvas, leaf, [(0, middle - fall), (width, middle + fall), (width, end), (0, end)])


def box(canvas: np.ndarray, rng: np.random.Generator, leaf: int, radius: float) -> None:
    """A rectangle, or (three times of ten) a quadrangle near one."""
    centre, stretch, angle = pose(canvas, rng)
    corners = cv2.boxPoints((centre, (2 * radius * stretch, 2 * radius / stretch), angle))
    bent = rng.normal(0, 0.3 * radius, (4, 2)) if rng.random() < 0.3 else 0
    fill(canvas, leaf, corners + bent)


def ellipse(canvas: np.ndarray, rng: np.random.Generator, leaf: int, radius: float) -> None:
    (x, y), stretch, angle = pose(canvas, rng)
    axes = (max(round(radius * stretch), 1), max(round(radius / stretch), 1))
    cv2.ellipse(canvas, (round(x), round(y)), axes, angle, 0, 360, leaf, cv2.FILLED)


def shrub(canvas: np.ndarray, rng: np.random.Generator, leaf: int, radius: float) -> None:
    """A blob with a ragged edge."""
    (x, y), stretch, _ = pose(canvas, rng)
    turn, reach = np.linspace(0, 2 * math.pi, 24, endpoint=False), radius * (1 + 0.18 * rng.normal(size=24))
    fill(canvas, leaf, np.stack([x + reach * stretch * np.cos(turn), y + reach / stretch * np.sin(turn)], axis=1))


def grid(canvas: np.ndarray, rng: np.random.Generator, leaf: int, radius: float) -> None:
    """Up to six by six small boxes in rows, as windows in a wall."""
    (x, y), stretch, _ = pose(canvas, rng)
    wide, high = 0.35 * radius, 0.35 * radius * stretch
    across, down = wide * rng.uniform(1.3, 3), high * rng.uniform(1.3, 3)
    columns, rows = rng.integers(1, 7, 2)
    for left in x + across * np.arange(columns):
        for top in y + down * np.arange(rows):
            cv2.rectangle(canvas, (int(left), int(top)), (int(left + wide), int(top + high)), leaf, cv2.FILLED)


SHAPES, CHANCES = (box, ellipse, shrub, grid), (0.5, 0.25, 0.12, 0.13)


def pose(canvas: np.ndarray, rng: np.random.Generator) -> tuple[tuple[float, float], float, float]:
    """Centre, in the image or just beside it; stretch; angle in degrees: most leaves stand nearly upright."""
    height, width = canvas.shape
    centre = (rng.uniform(-0.1, 1.1) * width, rng.uniform(-0.1, 1.1) * height)
    angle = rng.normal(0, 6) if rng.random() < 0.8 else rng.uniform(0, 180)
    return centre, math.exp(rng.normal(0, 0.7)), angle


def fill(canvas: np.ndarray, leaf: int, corners: object) -> None:
    """Paint a polygon of corners (n,2), x and y, in place."""
    cv2.fillPoly(canvas, [np.rint(corners).astype(np.int32)], leaf)
