"""Supervised training: the losses against loops over pixels, and runs that repeat to the byte."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch

from segkd.data.samples import Sample
from segkd.data.transforms import TrainTransform
from segkd.foundation.errors import NumbersError
from segkd.machine.passes import Passes
from segkd.models.adapters import Adapter
from segkd.models.building import create_network
from segkd.players.player import Player
from segkd.players.refusals import Refusals
from segkd.players.schedule import poly, warmed_up
from segkd.training import checkpoint
from segkd.training.teaching import Objective, Teaching, class_weights

CLASSES = 4
OPTIONS = {
    "channels": [8, 8, 16, 16],
    "decoder_pyramid_channels": 16,
    "decoder_segmentation_channels": 32,
    "decoder_dropout": 0.5,
}


pytestmark = pytest.mark.usefixtures("one_thread")


def reference(
    logits: np.ndarray, target: np.ndarray, weights: list[float] | None, gamma: float | None
) -> tuple[float, np.ndarray]:
    """Value and gradient, pixel by pixel; `gamma` None is the cross-entropy, whose mean is weighted."""
    gradient, total, divisor = np.zeros_like(logits), 0.0, 0.0
    for n, i, j in np.ndindex(target.shape):
        label = target[n, i, j]
        if label == 255:
            continue
        powers = np.exp(logits[n, :, i, j] - logits[n, :, i, j].max())
        p = powers / powers.sum()
        weight, loss, slope = 1.0 if weights is None else weights[label], -math.log(p[label]), p.copy()
        slope[label] -= 1
        if gamma is None:
            total, divisor = total + weight * loss, divisor + weight
        else:
            factor = (1 - p[label]) ** gamma
            # d/dl of (1 - e^-l)^gamma l, with e^-l = p
            slope *= factor + gamma * (1 - p[label]) ** (gamma - 1) * p[label] * loss
            total, divisor = total + weight * factor * loss, divisor + 1
        gradient[n, :, i, j] = weight * slope
    return total / divisor, gradient / divisor


def labelled(seed: int = 0, ignored: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, CLASSES, (2, 5, 7))
    target[rng.random(target.shape) < ignored] = 255
    return 2 * rng.standard_normal((2, CLASSES, 5, 7)), target


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 4.0]])
@pytest.mark.parametrize("gamma", [None, 2.0, 1.0, 0.5, 0.0])
def test_objectives(gamma, weights):
    logits, target = labelled()
    objective = Objective(
        "cross_entropy" if gamma is None else "focal", gamma or 0.0, None if weights is None else torch.tensor(weights)
    )
    x = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    value = objective(x, torch.from_numpy(target))
    (gradient,) = torch.autograd.grad(value, x)
    wanted, wanted_gradient = reference(logits, target, weights, gamma)
    assert value.item() == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(gradient.double().numpy(), wanted_gradient, rtol=1e-3, atol=1e-6)


def objectives() -> list[Objective]:
    weights = torch.tensor([0.5, 2.0, 1.0, 4.0])
    return [Objective(loss, 2.0, w) for loss in ("cross_entropy", "focal") for w in (None, weights)]


@pytest.mark.parametrize("objective", objectives())
def test_ignored_pixels_do_not_count(objective):
    logits, target = labelled()
    x, ids = torch.tensor(logits, dtype=torch.float32), torch.from_numpy(target)
    value = objective(x, ids).item()
    other = x.clone()
    other.permute(0, 2, 3, 1)[ids == 255] = 37.0
    other[:, 1][ids == 255] = -99.0
    assert objective(other, ids).item() == pytest.approx(value, rel=1e-6)
    # nor do they thin out the mean: twice the area, the new half all ignored
    wider, more = torch.cat([x, x], 3), torch.cat([ids, torch.full_like(ids, 255)], 2)
    assert objective(wider, more).item() == pytest.approx(value, rel=1e-6)
    wider.requires_grad_()
    (gradient,) = torch.autograd.grad(objective(wider, more), wider)
    assert gradient.permute(0, 2, 3, 1)[more == 255].abs().max() == 0


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_of_sure_predictions_has_a_finite_gradient(gamma):
    x = torch.full((1, CLASSES, 2, 2), -200.0)
    x[:, 1] = 200
    x.requires_grad_()
    value = Objective("focal", gamma, None)(x, torch.tensor([[[1, 1], [0, 255]]]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("objective", objectives())
def test_bf16_logits_are_judged_in_fp32(objective):
    logits, target = (torch.from_numpy(part) for part in labelled())
    value = objective(logits.bfloat16(), target)
    assert value.dtype == torch.float32
    assert value.item() == objective(logits.bfloat16().float(), target).item()


def samples(count: int = 5, height: int = 32, width: int = 48, seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        mask = rng.integers(0, CLASSES, (height, width)).astype(np.uint8)
        mask[:3] = 255
        made.append(Sample(f"s{index}", rng.integers(0, 256, (height, width, 3), dtype=np.uint8), mask))
    return made


def masks(*counts: dict[int, int]) -> list[Sample]:
    """Samples whose masks hold each id so many times."""
    made = []
    for count in counts:
        ids = np.concatenate([np.full(n, label, np.uint8) for label, n in count.items()])
        made.append(Sample("m", np.zeros((1, len(ids), 3), np.uint8), ids[None]))
    return made


def test_class_weights_are_median_over_frequency():
    found = masks({0: 60, 1: 30, 255: 500}, {0: 20, 1: 10, 2: 16, 3: 25})
    counts = np.array([80, 40, 16, 25])
    wanted = np.median(counts) / counts
    np.testing.assert_allclose(class_weights(found, 4, "median").numpy(), wanted, rtol=1e-6)
    np.testing.assert_allclose(class_weights(found, 4, "sqrt").numpy(), np.sqrt(wanted), rtol=1e-6)
    assert class_weights(found, 4, "none") is None


def test_class_weights_of_absent_and_of_very_rare_classes():
    weights = class_weights(masks({0: 5000, 1: 5000, 3: 1}), 4, "median")
    assert weights.tolist() == [1.0, 1.0, 1.0, 10.0]
    assert class_weights(masks({255: 9}), 3, "median").tolist() == [1.0, 1.0, 1.0]


def test_class_weights_look_at_the_first_samples_only():
    class Counted(list):
        asked = 0

        def __getitem__(self, index):
            Counted.asked += 1
            return super().__getitem__(index)

    assert class_weights(Counted(masks({0: 3, 1: 1}, {0: 1, 1: 99})), 2, "median", most=1).tolist() == pytest.approx(
        [2 / 3, 2]
    )
    assert Counted.asked == 1


def teaching(
    seed: int = 0,
    found: list[Sample] | None = None,
    loss: str = "cross_entropy",
    bf16: bool = False,
    max_bad: int = 5,
    steps: int = 8,
) -> Teaching:
    torch.manual_seed(seed)
    adapter = Adapter(create_network("FPN", "tu-resnet10t", CLASSES, OPTIONS), CLASSES).to(
        memory_format=torch.channels_last
    )
    make = partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-4, fused=True)
    factor = partial(warmed_up, factor=partial(poly, steps=steps, power=0.9), warmup=2)
    made = Player("network", adapter, make, factor, 0.9, clip=5.0)
    return Teaching(
        made, samples() if found is None else found, TrainTransform((32, 32), (0.75, 1.5), True, 0.3, [0.5] * 3, [0.5] * 3),
        Objective(loss, 2.0, None), batch=2, seed=seed, passes=Passes(bf16), refusals=Refusals(max_bad),
    )  # fmt: skip


def assert_equal(a: object, b: object, place: str = "") -> None:
    """Every tensor, number and key the same; the bytes of two files may differ in how they repeat their strings."""
    assert type(a) is type(b), place
    if isinstance(a, dict):
        assert list(a) == list(b), place
    if isinstance(a, (dict, list, tuple)):
        assert len(a) == len(b), place
        for key in a if isinstance(a, dict) else range(len(a)):
            assert_equal(a[key], b[key], f"{place}.{key}")
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, place


def test_same_seed_same_numbers():
    states = []
    for seed in (0, 0, 1):
        game = teaching(seed)
        for step in range(3):
            assert math.isfinite(game.play(step)["loss"])
            torch.randn(5)  # what others draw in between must not matter to the next step
        states.append(game.state())
    assert_equal(states[0], states[1])
    with pytest.raises(AssertionError):
        assert_equal(states[0], states[2])


@pytest.mark.parametrize("bf16", [False, True])
def test_a_resumed_game_equals_the_uninterrupted_one(tmp_path, bf16):
    whole = teaching(bf16=bf16)
    values = [whole.play(step) for step in range(2)]
    whole.offer(0.25, 2, whole.player.ema_or_live)
    checkpoint.save(tmp_path, 2, whole.state(), 1)
    values += [whole.play(step) for step in range(2, 5)]
    resumed = teaching(bf16=bf16)
    resumed.play(0)
    resumed.restore(checkpoint.newest(tmp_path)[0])
    torch.manual_seed(99)
    assert [resumed.play(step) for step in range(2, 5)] == values[2:]
    assert resumed.best["step"] == 2
    assert_equal(resumed.state(), whole.state())


def test_it_learns():
    found = samples(4)
    for sample in found:  # bright rows are of class 1, dark ones of class 2
        sample.image[:16], sample.image[16:] = 230, 20
        sample.mask[3:16], sample.mask[16:] = 1, 2
    game = teaching(found=found, steps=24)
    losses = [game.play(step)["loss"] for step in range(20)]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    assert game.play(0)["lr"] == pytest.approx(0.025)


def tensors(game: Teaching) -> dict[str, torch.Tensor]:
    return {
        **game.player.network.state_dict(),
        **{f"average {k}": v for k, v in game.player.ema_or_live.state_dict().items()},
    }


def test_a_refused_step_changes_nothing_and_is_noted():
    game = teaching()
    game.play(0)
    before = copy.deepcopy(tensors(game))
    with torch.no_grad():
        game.player.network.network.segmentation_head[0].bias[0] = math.nan
    poisoned = copy.deepcopy(tensors(game))
    values = game.play(1)
    assert math.isnan(values["loss"])
    after = tensors(game)
    for key, value in poisoned.items():
        assert torch.equal(value.nan_to_num(7.0), after[key].nan_to_num(7.0)), key
    assert "step 1: network loss is nan" in game.notes[-1]
    assert game.refusals.state() == {"total": 1, "in_a_row": {"network": 1}}
    game.player.network.load_state_dict({k: v for k, v in before.items() if not k.startswith("average ")})
    assert math.isfinite(game.play(2)["loss"])
    assert game.refusals.state() == {"total": 1, "in_a_row": {}}


def test_too_many_refusals_end_the_run():
    game = teaching(max_bad=1)
    with torch.no_grad():
        game.player.network.network.segmentation_head[0].bias[0] = math.nan
    game.play(0)
    with pytest.raises(NumbersError, match="2 refused updates in a row"):
        game.play(1)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_a_batch_that_shows_nothing_but_void_teaches_nothing(loss):
    void = samples()
    for sample in void:
        sample.mask[:] = 255
    game = teaching(loss=loss, found=void)
    before = game.player.network.network.segmentation_head[0].weight.detach().clone()
    assert game.play(0)["loss"] == 0 and not game.notes
    after = game.player.network.network.segmentation_head[0].weight  # decayed a little
    torch.testing.assert_close(after, before, rtol=1e-4, atol=0)


def test_the_best_is_kept_as_a_copy():
    game = teaching()
    assert game.offer(0.3, 4, game.player.network)
    kept = {key: value.clone() for key, value in game.best["network"].items()}
    game.play(0)
    assert not game.offer(0.3, 8, game.player.network)
    assert not game.offer(0.1, 8, game.player.network)
    assert game.best["step"] == 4
    assert all(torch.equal(game.best["network"][key], value) for key, value in kept.items())
    assert game.offer(0.31, 9, game.player.ema_or_live)
    assert game.best["miou"] == 0.31
