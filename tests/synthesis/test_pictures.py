"""Procedural pictures: in the teacher's range, a function of the move, and none of the data set's."""

import numpy as np
import torch

from segkd.foundation.rng import seed_for
from segkd.procedural import rooms, scenes
from segkd.procedural.leaves import painted
from segkd.synthesis import pictures
from segkd.synthesis.augment import Augment
from segkd.synthesis.collage import leaves
from segkd.synthesis.pictures import Pictures
from segkd.synthesis.source import Move

LOW, HIGH = torch.tensor([-1.0, -2.0, 0.0]), torch.tensor([1.0, 2.0, 4.0])
SIZE = (24, 32)


def test_a_picture_is_one_of_the_pool_in_the_teachers_range():
    drawn = Pictures(("streets",), LOW, HIGH).draw(3, SIZE, Move(5, 3, 2)).images
    torch.manual_seed(seed_for(5, 3, 2, "synthesis"))
    torch.multinomial(torch.ones(1), 3, replacement=True)  # kinds
    seeds = torch.randint(512, (3,)).tolist()
    rendered = torch.stack([torch.from_numpy(scenes.render(3_000_000 + seed, SIZE)[0]) for seed in seeds])
    wanted = rendered.permute(0, 3, 1, 2) / 255 * (HIGH - LOW).view(1, 3, 1, 1) + LOW.view(1, 3, 1, 1)
    torch.testing.assert_close(drawn, wanted)
    assert drawn.is_contiguous(memory_format=torch.channels_last)


def test_they_follow_the_move_and_learn_nothing():
    source = Pictures(("streets",), LOW, HIGH)
    first, again, other = (source.draw(2, SIZE, Move(0, step, 0)).images for step in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not source.state() and source.player is None and source.real == 0


def test_a_grey_teachers_are_grey():
    drawn = Pictures(("streets",), LOW[:1], HIGH[:1]).draw(2, SIZE, Move(0, 0, 0)).images
    assert drawn.shape == (2, 1, *SIZE) and drawn.std() > 0.05


def test_kinds_are_what_they_are_called():
    assert list(pictures.KINDS) == ["leaves", "streets", "rooms"]
    for kind, wanted in (("streets", scenes.render(7, SIZE)[0]), ("rooms", rooms.render(7, SIZE)[0])):
        assert np.array_equal(pictures.KINDS[kind](7, SIZE), wanted)
    assert np.array_equal(pictures.KINDS["leaves"](7, SIZE), pictures.dead_leaves(7, SIZE))


def test_a_picture_is_rendered_once(monkeypatch):
    seen = []
    monkeypatch.setattr(
        pictures, "KINDS", {"once": lambda seed, size: seen.append(seed) or np.zeros((*size, 3), np.uint8)}
    )
    source = Pictures(("once",), LOW, HIGH)
    for _ in range(2):
        source.draw(8, SIZE, Move(0, 0, 0))
    assert len(seen) == len(set(seen)) > 6


def test_each_kind_is_shown(monkeypatch):
    flat = {name: lambda seed, size, value=value: torch.full((*size, 3), value).byte().numpy() for name, value in
            (("black", 0), ("white", 255))}  # fmt: skip
    monkeypatch.setattr(pictures, "KINDS", flat)
    drawn = Pictures(("black", "white"), LOW, HIGH).draw(64, SIZE, Move(0, 0, 0)).images[:, 0, 0, 0]
    assert set(drawn.tolist()) == {-1.0, 1.0} and 16 < int((drawn == 1).sum()) < 48


def test_pictures_that_teach_nobody_are_not_changed():
    plain, changed = (
        Pictures(("streets",), LOW, HIGH, augment) for augment in (None, Augment(("flip", "noise"), LOW, HIGH))
    )
    for done, same in ((None, True), (0.5, False)):
        move = Move(0, 1, 0, done)
        assert torch.equal(plain.draw(4, SIZE, move).images, changed.draw(4, SIZE, move).images) == same


def test_dead_leaves_are_drawn_from_their_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (pictures.dead_leaves(seed, SIZE) for seed in (4, 4, 5))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(4)
    [shapes] = leaves(1, *SIZE).numpy()
    assert np.array_equal(first, painted(np.random.default_rng(4), shapes))
    assert first.shape == (*SIZE, 3) and (first == again).all() and (first != other).mean() > 0.9
