"""Tests of segkd.data.transforms: pure functions of their seeds, labels that move with their pixels."""

import os
import subprocess
import sys

import numpy as np
import pytest

from segkd.data.classes import IGNORE
from segkd.data.samples import Sample
from segkd.data.transforms import TrainTransform, draw_batch, normalise

HALF = (0.5, 0.5, 0.5)


def sample(seed: int = 0, height: int = 40, width: int = 56) -> Sample:
    """Labels and a picture that says the labels: red is 20 x id."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 11, (height // 8, width // 8), dtype=np.uint8)
    mask = np.kron(blocks, np.ones((8, 8), dtype=np.uint8))
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[:, :, 0] = mask * 20
    return Sample(f"s{seed}", image, mask)


def transform(crop: tuple[int, int] = (32, 32), colour: float = 0.3) -> TrainTransform:
    return TrainTransform(crop, (0.5, 2.0), flip=True, colour=colour, mean=HALF, std=HALF)


def plain(crop: tuple[int, int], flip: bool = False) -> TrainTransform:
    return TrainTransform(crop, (1.0, 1.0), flip=flip, colour=0.0, mean=(0, 0, 0), std=(1, 1, 1))


def test_normalise():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = ((image / 255.0 - mean) / std).transpose(2, 0, 1)
    output = normalise(image, mean, std)
    assert output.dtype == np.float32
    assert output.flags.c_contiguous
    assert np.abs(output - expected).max() < 1e-6


def test_one_value_is_for_grey_images():
    shown = TrainTransform((24, 48), (0.5, 2.0), flip=True, colour=0.3, mean=(0.5,), std=(0.5,))(sample(), 3)[0]
    colours = transform((24, 48), colour=0.3)(sample(), 3)[0]
    assert shown.shape == (1, 24, 48)
    luma = np.tensordot([0.299, 0.587, 0.114], colours, 1)
    assert np.abs(shown[0] - luma).max() <= 1 / 127


def test_shapes_and_types():
    image, mask = transform((24, 48))(sample(), 3)
    assert image.shape == (3, 24, 48)
    assert image.dtype == np.float32
    assert mask.shape == (24, 48)
    assert mask.dtype == np.int64
    assert -1 <= image.min() < image.max() <= 1


def test_equal_bytes_from_two_instances_in_any_order():
    first, second = transform(), transform()
    ahead = [first(sample(i), seed) for seed in range(6) for i in range(2)]
    back = [second(sample(i), seed) for seed in reversed(range(6)) for i in reversed(range(2))][::-1]
    for (image, mask), (other_image, other_mask) in zip(ahead, back, strict=True):
        assert image.tobytes() == other_image.tobytes()
        assert mask.tobytes() == other_mask.tobytes()
    assert ahead[0][0].tobytes() != ahead[2][0].tobytes()


def test_global_generators_are_neither_used_nor_moved():
    np.random.seed(0)
    first = transform()(sample(), 5)[0].tobytes()
    after = np.random.random()
    np.random.seed(0)
    assert np.random.random() == after
    np.random.seed(99)
    assert transform()(sample(), 5)[0].tobytes() == first


DIGEST = """
import hashlib
import numpy as np
from segkd.data.samples import Sample
from segkd.data.transforms import TrainTransform
generator = np.random.default_rng(0)
image, mask = generator.integers(0, 256, (40, 56, 3)), generator.integers(0, 11, (40, 56))
source = Sample("a", image.astype(np.uint8), mask.astype(np.uint8))
made = TrainTransform((32, 32), (0.5, 2.0), True, 0.3, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
digest = hashlib.sha256(b"".join(part.tobytes() for seed in range(5) for part in made(source, seed))).hexdigest()
"""


def test_equal_bytes_in_another_process_without_the_network():
    here: dict[str, str] = {}
    exec(DIGEST, here)
    refuse = "import socket\ndef refuse(*a, **k): raise SystemExit('network used')\n"
    code = refuse + "socket.getaddrinfo = socket.socket.connect = refuse\n" + DIGEST + "print(digest)"
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == here["digest"]


def test_importing_the_file_does_not_import_albumentations():
    code = "import sys, segkd.data.transforms; sys.exit('albumentations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_labels_move_with_their_pixels():
    for seed in range(30):
        image, mask = plain((16, 24), flip=True)(sample(1), seed)
        assert np.array_equal(np.rint(image[0] * 255).astype(int), mask * 20)


def test_scaled_labels_stay_on_their_pixels():
    """On a staircase of ids the scaled image rounds to the scaled label, unless one of them moves."""
    stairs = np.tile(np.repeat(np.arange(11, dtype=np.uint8), 8), (88, 1))
    both = np.maximum(stairs, stairs.T)
    source = Sample("stairs", np.repeat(both[:, :, None] * 20, 3, axis=2), both)
    scaled = TrainTransform((64, 64), (0.5, 2.0), True, 0.0, (0, 0, 0), (1, 1, 1))
    agree = total = 0
    for seed in range(40):
        image, mask = scaled(source, seed)
        assert set(np.unique(mask)) <= {*range(11), IGNORE}
        known = mask != IGNORE
        agree += np.count_nonzero(np.abs(image[0] * 255 - mask * 20)[known] < 10.5)
        total += np.count_nonzero(known)
    assert agree / total > 0.99


def test_small_images_are_padded_with_ignore_on_the_mean_colour():
    source = sample(2, 16, 24)
    padded = TrainTransform((40, 40), (1.0, 1.0), False, 0.0, mean=(0.2, 0.4, 0.6), std=HALF)
    places = set()
    for seed in range(12):
        image, mask = padded(source, seed)
        rows, columns = np.nonzero(mask != IGNORE)
        top, left = rows.min(), columns.min()
        assert np.array_equal(mask[top : top + 16, left : left + 24], source.mask)
        assert np.count_nonzero(mask != IGNORE) == 16 * 24
        assert np.abs(image[:, mask == IGNORE]).max() < 0.01
        places.add((int(top), int(left)))
    assert len(places) > 5


def test_steps_are_drawn_independently():
    """Seeding every step alike would let the scale decide about the mirror."""
    ramp = np.tile(np.arange(128, dtype=np.uint8)[None, :, None], (128, 1, 3))
    source = Sample("ramp", ramp, np.zeros((128, 128), np.uint8))
    scaled = TrainTransform((8, 8), (1.0, 2.0), True, 0.0, (0, 0, 0), (1 / 255,) * 3)
    slopes = np.array([np.diff(scaled(source, seed)[0][0, 4]).mean() for seed in range(400)])
    mirrored, scale = slopes < 0, 1 / np.abs(slopes)
    assert 0.4 < mirrored.mean() < 0.6
    assert abs(np.corrcoef(mirrored, scale)[0, 1]) < 0.15


def test_a_sample_without_labels_is_refused():
    with pytest.raises(ValueError, match="s0: a sample without labels"):
        transform()(Sample("s0", sample().image, None), 0)


def test_batches_are_functions_of_seed_and_step():
    data = [sample(i) for i in range(5)]
    made = transform()
    steps = [draw_batch(data, made, 3, 7, step) for step in range(6)]
    images, masks = steps[4]
    assert images.shape == (3, 3, 32, 32)
    assert images.dtype == np.float32
    assert masks.shape == (3, 32, 32)
    assert masks.dtype == np.int64
    again = draw_batch(data, transform(), 3, 7, 4)
    assert again[0].tobytes() == images.tobytes()
    assert again[1].tobytes() == masks.tobytes()
    assert draw_batch(data, made, 3, 8, 4)[0].tobytes() != images.tobytes()


@pytest.mark.parametrize(("count", "batch"), [(5, 3), (4, 4), (3, 8), (7, 1)])
def test_every_epoch_shows_every_sample_once(count: int, batch: int):
    data = [Sample(str(i), np.full((8, 8, 3), i, np.uint8), np.full((8, 8), i, np.uint8)) for i in range(count)]
    made = plain((8, 8))
    steps = -(-4 * count // batch)
    drawn = [int(mask[0, 0]) for step in range(steps) for mask in draw_batch(data, made, batch, 0, step)[1]]
    epochs = [drawn[start : start + count] for start in range(0, 4 * count, count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_sample_is_augmented_anew_in_each_epoch():
    data = [sample(0)]
    made = transform()
    seen = {draw_batch(data, made, 1, 0, step)[0].tobytes() for step in range(8)}
    assert len(seen) == 8
