"""From samples to network inputs: augmentation for supervised training, normalisation, batches by step number.

The only file that imports albumentations, and only when a `TrainTransform` is made.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

import numpy as np

from segkd.data.classes import IGNORE
from segkd.data.samples import Dataset, Sample
from segkd.foundation.channels import RGB, in_channels
from segkd.foundation.rng import seed_for

PerChannel = Sequence[float]


def normalise(image: np.ndarray, mean: PerChannel, std: PerChannel) -> np.ndarray:
    """(image / 255 - mean) / std: (H,W,3) uint8 RGB to (K,H,W) float32; K values of mean and std for a [0,1] image.

    With one value each, of an image in grey, see `in_channels`.
    """
    image = in_channels(image, len(mean))
    factor = 1.0 / (255.0 * np.asarray(std, dtype=np.float64))
    shift = -np.asarray(mean, dtype=np.float64) / np.asarray(std, dtype=np.float64)
    output = np.empty((len(mean), *image.shape[:2]), dtype=np.float32)
    for channel in range(len(mean)):
        np.multiply(image[:, :, channel], np.float32(factor[channel]), out=output[channel])
        output[channel] += np.float32(shift[channel])
    return output


class TrainTransform:
    """Random scale, pad, crop, mirror and colour, then normalisation; a pure function of (sample, seed).

    Where the scaled image is smaller than the crop, it is placed at random on the mean colour, with ignored labels.
    An instance holds random state while it works: give each thread its own.
    """

    def __init__(
        self,
        crop: tuple[int, int],
        scale: tuple[float, float],
        flip: bool,
        colour: float,
        mean: PerChannel,
        std: PerChannel,
    ) -> None:
        """Build the transform.

        Args:
            crop: (height, width) of the result, pixels.
            scale: range of the factor on both sides, drawn uniformly; (1, 1) leaves the size alone.
            flip: mirror left to right, half of the times.
            colour: brightness, contrast and saturation are multiplied by 1 +- colour, the hue turns by up to
                colour / 10 of the circle; 0 leaves the colours alone.
            mean, std: per channel, in the units of a [0,1] image.
        """
        # albumentations asks PyPI for its newest version when imported
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
        import albumentations
        import cv2

        height, width = crop
        steps: list[albumentations.BasicTransform] = []
        if tuple(scale) != (1.0, 1.0):
            limits = (scale[0] - 1.0, scale[1] - 1.0)
            nearest = cv2.INTER_NEAREST_EXACT
            steps.append(albumentations.RandomScale(limits, cv2.INTER_LINEAR, nearest, p=1.0))
        fill = tuple(round(255 * value) for value in (mean if len(mean) == RGB else RGB * tuple(mean)))
        steps.append(albumentations.PadIfNeeded(height, width, position="random", fill=fill, fill_mask=IGNORE))
        steps.append(albumentations.RandomCrop(height, width))
        if flip:
            steps.append(albumentations.HorizontalFlip(p=0.5))
        if colour > 0:
            span = (max(0.0, 1.0 - colour), 1.0 + colour)
            turn = (-min(0.5, colour / 10), min(0.5, colour / 10))
            steps.append(albumentations.ColorJitter(span, span, span, turn, p=1.0))
        self._pipeline = albumentations.Compose(steps)
        self._mean, self._std = tuple(mean), tuple(std)

    def __call__(self, sample: Sample, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Transform one labelled sample.

        Args:
            sample: with a mask.
            seed: any integer from 0; the same sample and seed give the same bytes, in any process.

        Returns:
            the normalised image (K,H,W) float32 and the labels (H,W) int64, with (H,W) = crop.
        """
        if sample.mask is None:
            raise ValueError(f"{sample.name}: a sample without labels cannot be trained on")
        # one pair of generators for all steps: set_random_seed would give each step the same seed, and the crop's
        # place would follow from the scale
        self._pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        result = self._pipeline(image=sample.image, mask=sample.mask)
        return normalise(result["image"], self._mean, self._std), result["mask"].astype(np.int64)


def draw_batch(
    dataset: Dataset | Sequence[Sample], transform: TrainTransform, batch: int, seed: int, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """The batch of a training step, as a pure function of (seed, step): nothing to save, any step can be replayed.

    Sample k of the run (k = step * batch + place) is the next of its epoch's permutation, so that each epoch shows
    every sample once. Samples are read when drawn; pass `list(dataset)` to read each file once.

    Args:
        dataset: labelled samples, at least one.
        transform: makes every sample the same size.
        batch: N, the number of samples.
        seed: the run's seed.
        step: from 0.

    Returns:
        images (N,K,H,W) float32 and masks (N,H,W) int64, NumPy arrays.
    """
    images, masks = [], []
    for number, index in _drawn(len(dataset), batch, seed, step):
        image, mask = transform(dataset[index], seed_for(seed, number, 0, "data.sample"))
        images.append(image)
        masks.append(mask)
    return np.stack(images), np.stack(masks)


def _drawn(count: int, batch: int, seed: int, step: int) -> list[tuple[int, int]]:
    """(number in the run, index in the data set) of each sample of a step's batch."""
    drawn = []
    orders: dict[int, np.ndarray] = {}
    for number in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(number, count)
        if epoch not in orders:
            orders[epoch] = np.random.default_rng(seed_for(seed, epoch, 0, "data.epoch")).permutation(count)
        drawn.append((number, int(orders[epoch][place])))
    return drawn
