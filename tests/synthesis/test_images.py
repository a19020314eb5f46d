"""Real images as a source: crops as they are, in the teacher's range, by the global seed."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from segkd.data.samples import Sample
from segkd.data.sets.camvid import CAMVID
from segkd.foundation.errors import DataError
from segkd.foundation.rng import seed_for
from segkd.machine import memory
from segkd.models.teacher import input_range
from segkd.synthesis.images import Images
from segkd.synthesis.source import Move

MEAN, STD = (0.485, 0.456, 0.2), (0.229, 0.5, 0.1)
LOW, HIGH = input_range(MEAN, STD)


def drawn(made, size, batch=6, seed=0):
    return made.draw(batch, size, Move(seed, 0, 0)).images


class Few(list):
    """A data set of samples in memory."""

    classes = CAMVID


def stream(*shapes, masks=True):
    random = np.random.default_rng(0)
    samples = [
        Sample(str(i), random.integers(0, 256, (*shape, 3), np.uint8), np.zeros(shape, np.uint8) if masks else None)
        for i, shape in enumerate(shapes)
    ]
    return Images(Few(samples), LOW, HIGH), samples


def pixels(images):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (images * std + mean) * 255


def test_images_are_crops_of_the_set_normalised_as_the_teachers():
    made, samples = stream((20, 30), (16, 24))
    found = pixels(drawn(made, (12, 16)))
    assert found.shape == (6, 3, 12, 16) and made.real == 2
    whole = [torch.from_numpy(s.image).permute(2, 0, 1).unfold(1, 12, 1).unfold(2, 16, 1) for s in samples]
    for image in found:
        places = [(crops.permute(1, 2, 0, 3, 4) - image).abs().amax((2, 3, 4)).min() for crops in whole]
        assert min(places) < 0.01


def test_draws_follow_the_move_and_nothing_else():
    made, _ = stream((20, 30), (16, 24))
    found = [drawn(made, (12, 16), seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_the_numbers_are_those_of_the_move_s_own_stream():
    made, samples = stream((12, 16), (12, 16), (12, 16))
    found = pixels(drawn(made, (12, 16), 8, seed=5)).round().to(torch.uint8)
    torch.manual_seed(seed_for(5, 0, 0, "synthesis"))
    wanted = [samples[number].image for number in torch.randint(3, (8,)).tolist()]
    assert torch.equal(found, torch.from_numpy(np.stack(wanted)).permute(0, 3, 1, 2))


def test_the_whole_image_where_it_has_the_size_asked_for():
    made, samples = stream((12, 16))
    image = torch.from_numpy(samples[0].image).permute(2, 0, 1).float()
    torch.testing.assert_close(pixels(drawn(made, (12, 16), 1))[0], image, rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(10, 13), (10, 16), (12, 13)])
def test_smaller_images_repeat_their_last_row_and_column(shape):
    made, samples = stream(shape)
    image = pixels(drawn(made, (12, 16), 1))[0]
    wanted = np.pad(samples[0].image, ((0, 12 - shape[0]), (0, 16 - shape[1]), (0, 0)), mode="edge")
    torch.testing.assert_close(image, torch.from_numpy(wanted).permute(2, 0, 1).float(), rtol=0, atol=1e-3)


def test_every_image_is_shown():
    made, samples = stream((8, 8), (8, 8), (8, 8))
    shown = pixels(drawn(made, (8, 8), 60)).round().to(torch.uint8)
    counts = [sum(np.array_equal(image.permute(1, 2, 0).numpy(), s.image) for image in shown) for s in samples]
    assert sum(counts) == 60 and min(counts) > 8


@pytest.mark.parametrize(
    ("shape", "kept"), [((300, 400), (256, 341)), ((257, 300), (256, 299)), ((200, 400), (200, 400))]
)
def test_large_images_are_reduced_as_the_protocol_says(shape, kept):
    made, _ = stream(shape)
    assert made.images[0].shape == (3, *kept)


def test_masks_are_not_needed_and_nothing_is_learnt_or_saved():
    made, _ = stream((8, 8), masks=False)
    assert not list(made.parameters()) and not made.state_dict()


def test_more_images_than_fit_into_memory_are_refused(monkeypatch):
    for left, fits in ((3 * 8 * 9 * 3, True), (3 * 8 * 9 * 3 - 1, False)):
        monkeypatch.setattr(memory, "available_mb", lambda left=left: left / 2**20)
        with nullcontext() if fits else pytest.raises(DataError, match="^3 images do not fit into memory; name a sm"):
            stream((8, 9), (8, 9), (8, 9))
    monkeypatch.setattr(memory, "available_mb", lambda: None)
    assert stream((8, 9))[0].real == 1
