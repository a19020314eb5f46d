"""Refusals that are decided on the device: on a CPU where nothing is called at hand, as on an accelerator."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from segkd.foundation.errors import NumbersError
from segkd.machine.snapshot import Snapshot
from segkd.synthesis.bank import Replay
from segkd.synthesis.source import Batch
from tests.methods.conftest import inverts, tiers

REFUSED = {"student": (1, 3), "source": (0, 2, 3), "keep": (2, 3)}
"""The steps at which a player's moves are spoilt."""


def spoil(game):
    """Loss terms and kept images are NaN at the steps above."""
    true, loss, finished = game.moves.copy(), game.method.loss, game.source.augmented
    now = []

    def bad():
        player, step = now[-1]
        return step in REFUSED[player]

    def spoilt_loss(player, view, step):
        total, values = loss(player, view, step)
        if bad():
            total, values = total * math.nan, {name: value * math.nan for name, value in values.items()}
        return total, values

    def moved(player, step, index):
        now.append((player, step))
        return true[player](step, index)

    game.method.loss = spoilt_loss
    game.source.augmented = lambda images, move: (
        finished(images, move) * (math.nan if now and now[-1][0] == "keep" and bad() else 1)
    )
    game.moves = {player: lambda step, index, player=player: moved(player, step, index) for player in true}


@pytest.mark.parametrize("uint8", [False, True])
@pytest.mark.parametrize("capacity", [1, 3, 50])
def test_a_game_is_the_same_wherever_its_refusals_are_decided(tiny, far, capacity, uint8):
    games = []
    for decided in ("at once", "on the device"):
        if decided == "on the device":
            far()
        game = tiny.game(
            "ddad.segkd", "student.ema=0.9", "synth.ema=0.8", f"synth.replay={capacity}", "game.keep_moves=1",
            f"synth.replay_uint8={uint8}".lower(), "synth.augment=[flip]", "synth.class_balance=1",
        )  # fmt: skip
        spoil(game)
        for step in range(4):
            game.play(step)
        games.append((game, game.state()))
    (one, at_once), (other, on_the_device) = games
    assert one.notes == other.notes and len(one.notes) == 2 * 2 + 3 + 2
    assert (
        at_once["refusals"]
        == on_the_device["refusals"]
        == {"total": 9, "in_a_row": {"student": 2, "source": 2, "keep": 2}}
    )
    exact = capacity != 3  # a full bank of several places has left others of them as they were
    if exact:
        assert at_once["replay"]["next"] == on_the_device["replay"]["next"]
    for part in ("student", "source", "replay"):
        compare(at_once[part], on_the_device[part], exact)


def compare(a, b, exact):
    if isinstance(a, torch.Tensor):
        assert torch.isfinite(b).all()
        if exact:
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    elif isinstance(a, (dict, list)):
        assert len(a) == len(b)
        for key in a if isinstance(a, dict) else range(len(a)):
            compare(a[key], b[key], exact)


class Unread(TorchDispatchMode):
    """Nobody looks at what networks computed; the host may at whole numbers, and at what it has drawn by itself."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        drawn = all(hasattr(tensor, "drawn") for tensor in tensors) if tensors else func is torch.ops.aten.rand.default
        whole = tensors and tensors[0].dtype in (torch.int64, torch.int32)
        if func is torch.ops.aten._local_scalar_dense.default and not (whole or drawn):
            raise AssertionError("the host looked at a number: on an accelerator it would have waited")
        result = func(*args, **(kwargs or {}))
        if drawn and isinstance(result, torch.Tensor):
            result.drawn = True
        return result


def test_the_guard_of_this_test_sees_a_look():
    with Unread(), pytest.raises(AssertionError, match="waited"):
        assert torch.ones(()).isfinite()
    with Unread(), pytest.raises(AssertionError, match="waited"):
        float(torch.ones(()))
    with Unread():
        assert bool(torch.rand(()) < 0.5) in (False, True)
    with Unread(), pytest.raises(AssertionError, match="waited"):
        assert torch.rand(()) < torch.ones(())


WITHOUT_BANK = ("synth.replay=0", "game.keep_moves=0", "synth.class_balance=0")


@pytest.mark.parametrize("overrides", [WITHOUT_BANK, ("synth.replay=2", "game.keep_moves=1")])
@pytest.mark.parametrize("case", tiers(variants=True))
def test_no_move_looks_at_a_number(tiny, far, case, overrides):
    if overrides == WITHOUT_BANK and inverts(case):
        pytest.skip("its images are made as they are kept")
    far()
    # Of kornia's changes to images, crop and jitter look at the numbers that they have drawn.
    changes = {"kd": "[flip, collage, erase, noise]", "cgdd": "[flip, collage, noise]"}
    augment = [f"synth.augment={changes[case]}"] if case in changes else []
    game = tiny.game(case, "student.ema=0.9", *augment, *overrides)
    for step in range(2):  # until the bank is full
        game.play(step)
    with Unread():
        for step in range(2, 4):
            values = game.play(step)
    assert all(math.isfinite(value) for value in values.values()) and not game.notes


def test_more_than_max_bad_end_a_run_one_step_late(tiny, far):
    far()
    game = tiny.game("ddad.segkd", "run.max_bad=2", "game.student_moves=1", "synth.replay=0", "game.keep_moves=0")
    true = game.method.kd
    game.method.kd = lambda view: true(view) * math.nan
    for step in range(3):
        game.play(step)
    assert game.refusals.in_a_row == {"student": 2}
    with pytest.raises(
        NumbersError, match=r"step 2: student loss is nan \(term kd is nan\), 3 refused updates in a row"
    ):
        game.play(3)


def test_a_bank_leaves_its_place_as_it_is_where_a_batch_is_refused(far):
    far()
    bank = Replay(2, torch.float32, flip=False)
    batches = [(torch.full((1, 3, 4, 4), float(i)), torch.full((1, 2, 4, 4), float(i))) for i in range(4)]
    for (images, logits), refused in zip(batches, (True, False, False, True), strict=True):
        bank.keep(Batch(images), logits, unless=torch.tensor(refused))
    assert [float(images.mean()) for images in bank.images] == [float(x.mean()) for x in bank.logits] == [1.0, 2.0]
    bank.keep(Batch(batches[0][0] * math.nan), batches[0][1] * math.nan, unless=torch.tensor(True))
    bank.keep(
        Batch(torch.full((1, 3, 8, 4), 5.0)), torch.full((1, 2, 8, 4), 5.0), unless=torch.tensor(False)
    )  # another size
    assert bank.images[0].shape == (1, 3, 8, 4) and float(bank.images[1].mean()) == 2


@pytest.mark.parametrize("refused", [False, True])
def test_a_snapshot_is_put_back_only_where_it_is_asked_for(far, refused):
    far()
    layer = torch.nn.BatchNorm2d(3)
    kept = Snapshot([layer])
    layer(torch.full((2, 3, 4, 4), math.nan))
    kept.put_back(torch.tensor(refused))
    assert layer.running_mean.isfinite().all() == refused and layer.num_batches_tracked == 1 - refused
