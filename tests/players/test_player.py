"""The player: steps as by hand, refused steps that change nothing, schedules, averages, and all of it restored."""

import copy
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from segkd.machine import ranks
from segkd.machine.snapshot import Snapshot
from segkd.players.player import Player, frozen, same_layout
from segkd.players.schedule import cosine, poly, warmed_up

Making = Callable[..., torch.optim.Optimizer]


def sgd(lr: float = 0.1, momentum: float = 0.9, **more: float) -> Making:
    return partial(torch.optim.SGD, lr=lr, momentum=momentum, fused=True, **more)


def adam(lr: float = 0.1, **more: object) -> Making:
    return partial(torch.optim.Adam, lr=lr, fused=True, **more)


def adamw(lr: float = 0.1, **more: object) -> Making:
    return partial(torch.optim.AdamW, lr=lr, fused=True, **more)


MAKERS = {"sgd": sgd, "adam": adam, "adamw": adamw}


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


def player(make: Making | None = None, ema: float = 0.0, clip: float | None = None) -> Player:
    return Player("student", network(), make or sgd(), ema_decay=ema, clip=clip)


def loss_of(made: Player, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return made.network(torch.randn(2, 3, 6, 6, generator=generator)).square().mean()


def move(made: Player, loss: Callable[[], torch.Tensor] | torch.Tensor, step: int) -> str | None:
    """One update on `loss`, which may be computed here; why it was refused, if it was."""
    before = Snapshot([made.network])
    verdict = made.update(loss() if callable(loss) else loss, step, before)
    return verdict.why() if verdict.refused else None


@pytest.fixture(params=["read at once", "decided on the device"])
def _decided(request: pytest.FixtureRequest, far: Callable[[], None]) -> None:
    """Also as on an accelerator, where nothing may be looked at."""
    if request.param == "decided on the device":
        far()


def flat(value: object, name: str = "") -> dict[str, torch.Tensor]:
    """All tensors and numbers of a nested state, as copies."""
    if isinstance(value, torch.Tensor):
        return {name: value.detach().clone()}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else None
    if items is None:
        return {name: torch.tensor(float(value))} if isinstance(value, (int, float)) else {}
    return {key: t for k, inner in items for key, t in flat(inner, f"{name}.{k}").items()}


def differing(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [key for key in a if not torch.equal(a[key], b[key])]


class Weight(nn.Module):
    """A vector as a network, for optimisers by hand."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values, dtype=torch.float64))


def pulled(made: Player, step: int, target: np.ndarray) -> np.ndarray:
    """One update towards `target`; the gradient is w - target."""
    assert move(made, 0.5 * (made.network.w - torch.tensor(target)).square().sum(), step) is None
    return made.network.w.detach().numpy().copy()


def test_sgd_with_schedule_momentum_decay_and_clip_as_by_hand():
    falls = partial(poly, steps=8, power=0.9)
    made = Player("p", Weight([1.0, -2.0]), sgd(0.2, weight_decay=0.01), falls, clip=0.5)
    w, velocity, target = np.array([1.0, -2.0]), None, np.array([0.3, 0.1])
    for step in range(6):
        gradient = w - target
        gradient = gradient * min(1.0, 0.5 / (math.sqrt(gradient @ gradient) + 1e-6)) + 0.01 * w
        velocity = gradient if velocity is None else 0.9 * velocity + gradient
        w = w - 0.2 * (1 - step / 8) ** 0.9 * velocity
        np.testing.assert_allclose(pulled(made, step, target), w, rtol=1e-6)


@pytest.mark.parametrize(("name", "decay"), [("adam", 0.0), ("adamw", 0.1)])
def test_adam_as_by_hand(name, decay):
    made = Player("p", Weight([1.0, -2.0]), MAKERS[name](betas=(0.5, 0.9), weight_decay=decay))
    w, m, v, target = np.array([1.0, -2.0]), 0.0, 0.0, np.array([0.3, 0.1])
    for step in range(4):
        gradient = w - target
        m, v = 0.5 * m + 0.5 * gradient, 0.9 * v + 0.1 * gradient**2
        step_ = (m / (1 - 0.5 ** (step + 1))) / (np.sqrt(v / (1 - 0.9 ** (step + 1))) + 1e-8)
        w = w * (1 - 0.1 * decay) - 0.1 * step_
        np.testing.assert_allclose(pulled(made, step, target), w, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_gradient_in_another_memory_format_moves_the_same_weights(name):
    """Fused optimisers go over memory as it lies: with another format they would move weights by others' gradients."""
    weights, slopes = torch.randn(8, 4, 3, 3), torch.randn(8, 4, 3, 3)
    layer = nn.Conv2d(4, 8, 3, bias=False).to(memory_format=torch.channels_last)
    with torch.no_grad():
        layer.weight.copy_(weights)
    made = Player("p", layer, MAKERS[name](weight_decay=0.01))
    for _ in range(3):
        assert move(made, (layer.weight.contiguous() * slopes).sum(), 0) is None
    plain = nn.Parameter(weights.clone())
    kind, more = {
        "sgd": (torch.optim.SGD, {"momentum": 0.9}), "adam": (torch.optim.Adam, {}), "adamw": (torch.optim.AdamW, {}),
    }[name]  # fmt: skip
    optimizer = kind([plain], 0.1, weight_decay=0.01, fused=False, **more)
    for _ in range(3):
        plain.grad = slopes.clone()
        optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), plain.detach())


def test_an_optimiser_that_cannot_leave_out_an_update_is_refused():
    with pytest.raises(ValueError, match="p: an optimiser that is not fused .*: pass fused=True"):
        Player("p", network(), partial(torch.optim.SGD, lr=0.1))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_parameters_that_ask_for_no_gradient_are_not_moved(name):
    net = network()
    net[0].requires_grad_(False)
    made = Player("p", net, MAKERS[name](weight_decay=0.1))
    before = net[0].weight.clone()
    assert move(made, net(torch.randn(2, 3, 6, 6)).square().mean(), 0) is None
    (group,) = made.optimizer.param_groups
    assert torch.equal(net[0].weight, before) and len(group["params"]) == 4


def test_clip_of_a_gradient_that_is_next_to_nothing():
    made = Player("p", Weight([1.0]), sgd(1.0, 0.0), clip=1e-6)
    assert move(made, 1e-6 * made.network.w.sum(), 0) is None
    assert 1 - made.network.w.item() == pytest.approx(0.5e-6, rel=1e-3)  # 1e-6 / (1e-6 + 1e-6) of it


def test_gradients_are_copied_only_where_they_lie_otherwise():
    plain = torch.empty(4, 3, 2, 2)
    assert same_layout(plain, plain.clone()) and not same_layout(
        plain, plain.contiguous(memory_format=torch.channels_last)
    )
    row = torch.empty(4, 3, 1, 1)
    assert same_layout(row, torch.empty_strided(row.shape, (3, 1, 3, 3)))  # as in channels_last
    assert not same_layout(torch.empty(4, 3), torch.empty(3, 4).T) and not same_layout(
        torch.empty(2, 2), torch.empty(2, 2).T
    )


def test_clip_leaves_a_small_gradient_alone():
    loose, none = (Player("p", Weight([1.0, -2.0]), sgd(), clip=clip) for clip in (100.0, None))
    for made in (loose, none):
        pulled(made, 0, np.zeros(2))
    assert torch.equal(loose.network.w, none.network.w)


@pytest.mark.usefixtures("_decided")
def test_the_average_as_by_hand():
    """It begins with the first step that was not refused, and decays the faster the younger it is."""
    made = player(sgd(0.5), ema=0.15)
    decays = iter([0.0, 1 / 10, 0.15])  # n/(n+9), then `ema`
    wanted: dict[str, torch.Tensor] = {}
    for step in range(5):
        if step in (0, 3):
            assert move(made, lambda step=step: loss_of(made, step) * math.nan, step)
            continue
        assert move(made, lambda step=step: loss_of(made, step), step) is None
        decay = next(decays)
        for key, value in made.network.state_dict().items():
            if value.is_floating_point():
                wanted[key] = decay * wanted[key] + (1 - decay) * value if key in wanted else value.clone()
    assert {"0.weight", "1.running_mean", "1.running_var"} <= wanted.keys()
    for key, value in wanted.items():
        assert torch.allclose(made.ema_or_live.state_dict()[key], value, atol=1e-6), key
    assert made.average.n_averaged == made.ema_or_live.state_dict()["1.num_batches_tracked"] == 3
    assert made.ema_or_live is not made.network
    assert not any(p.requires_grad for p in made.ema_or_live.parameters())


def test_a_network_that_counts_nothing_has_an_average_too():
    made = Player("p", Weight([1.0, -2.0]), sgd(0.5), ema_decay=0.75)
    first, second = (torch.tensor(pulled(made, step, np.zeros(2))) for step in range(2))
    torch.testing.assert_close(made.ema_or_live.w.detach(), 0.1 * first + 0.9 * second)  # a young average decays faster


def test_there_is_no_average_unless_it_is_asked_for():
    made = Player("p", network(), sgd())
    assert made.average is None and made.state()["average"] == {}


def test_without_an_average_the_live_network_is_the_headline():
    made = player()
    assert made.ema_or_live is made.network


@pytest.mark.usefixtures("_decided")
@pytest.mark.parametrize(("make", "clip"), [(sgd(), None), (sgd(), 0.1), (adam(0.01), None)])
@pytest.mark.parametrize("fault", ["nan loss", "inf loss", "inf gradient", "nan images", "unsound"])
def test_a_refused_step_changes_nothing(make, clip, fault):
    made = player(make, 0.9, clip)
    for step in range(2):
        move(made, lambda step=step: loss_of(made, step), step)
    before, saved = flat(made.state()), Snapshot([made.network])
    if fault == "inf gradient":
        loss = loss_of(made, 2) + (made.network[0].weight[0, 0, 0, 0] * 0).sqrt()
        assert torch.isfinite(loss)
    elif fault == "nan images":
        loss = made.network(torch.full((2, 3, 6, 6), math.nan)).mean()
    else:
        loss = loss_of(made, 2) * {"nan loss": math.nan, "inf loss": math.inf, "unsound": 1.0}[fault]
    touched = differing(before, flat(made.state()))
    assert touched  # the forward alone has moved the running statistics
    assert all(key.startswith(".network.1.") for key in touched)
    verdict = made.update(loss, 2, saved, torch.tensor(False) if fault == "unsound" else None)
    assert verdict.refused and verdict.refused.shape == ()
    if fault != "unsound":  # who said so has the words
        assert verdict.why().startswith("gradient norm is" if fault == "inf gradient" else "loss is")
    assert differing(before, flat(made.state())) == []
    assert all(p.grad is None for p in made.network.parameters())


@pytest.mark.usefixtures("_decided")
@pytest.mark.parametrize("make", [sgd(), adam(0.01)])
@pytest.mark.parametrize("refused", [0, 2])
def test_a_refused_step_leaves_no_trace_in_those_after_it(make, refused):
    plain, disturbed = player(make, ema=0.9), player(make, ema=0.9)
    for step in range(4):
        move(plain, lambda step=step: loss_of(plain, step), step)
        if step == refused:
            # What is freed lies about in memory: an optimiser that began with it would show.
            torch.full((sum(p.numel() for p in disturbed.network.parameters()),), math.nan)
            assert move(disturbed, lambda: loss_of(disturbed, 99) * math.nan, step)
        move(disturbed, lambda step=step: loss_of(disturbed, step), step)
    assert differing(flat(plain.state()), flat(disturbed.state())) == []


def test_an_update_leaves_no_gradient_anywhere():
    made, other = player(), network(1)
    images = torch.randn(2, 3, 6, 6, requires_grad=True)
    move(made, (made.network(images) - other(images)).square().mean(), 0)
    assert all(p.grad is None for p in [*made.network.parameters(), *other.parameters(), images])


def test_parameters_that_the_loss_does_not_reach_stay():
    made = player(sgd(weight_decay=0.1))
    before = made.network[3].weight.detach().clone()
    assert move(made, made.network[0](torch.randn(1, 3, 6, 6)).square().mean(), 0) is None
    assert torch.equal(made.network[3].weight, before)


def test_frozen_restores_even_after_an_exception():
    net = network()
    net[3].bias.requires_grad_(False)
    with pytest.raises(RuntimeError), frozen(net):
        assert not any(p.requires_grad for p in net.parameters())
        net(torch.randn(1, 5, 6, 6))
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["3.bias"]


def test_gradients_flow_through_a_frozen_network():
    net, images = network(), torch.randn(2, 3, 6, 6, requires_grad=True)
    with frozen(net):
        net(images).square().mean().backward()
    assert images.grad.abs().max() > 0
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("make", [sgd(), adam(0.01), adamw(0.01)])
def test_a_restored_player_goes_on_as_if_nothing_had_been(make):
    factor = partial(warmed_up, factor=partial(cosine, steps=10), warmup=2)
    one = Player("student", network(), make, factor, 0.9)
    for step in range(3):
        move(one, loss_of(one, step), step)
    state = copy.deepcopy(one.state())
    two = Player("student", network(7), make, factor, 0.9)
    two.restore(state)
    assert differing(flat(state), flat(two.state())) == []
    for made in (one, two):
        for step in range(3, 6):
            move(made, loss_of(made, step), step)
    assert differing(flat(one.state()), flat(two.state())) == []


def test_the_state_of_another_kind_of_optimiser_is_refused():
    one = player(adam())
    move(one, loss_of(one, 0), 0)
    with pytest.raises(ValueError, match="another kind of optimiser"):
        player(sgd()).restore(one.state())


def test_an_accepted_change_of_the_optimizer_survives_the_restore():
    one = player(sgd(weight_decay=0.0))
    move(one, loss_of(one, 0), 0)
    two = player(sgd(momentum=0.1, weight_decay=0.5))
    two.restore(copy.deepcopy(one.state()))
    assert (two.optimizer.param_groups[0]["weight_decay"], two.optimizer.param_groups[0]["momentum"]) == (0.5, 0.1)


def test_further_parameters_learn_with_the_network() -> None:
    made, scale = player(sgd(0.5, 0.0)), nn.Parameter(torch.ones(()))
    made.add_parameters(iter([scale]))
    assert move(made, lambda: loss_of(made, 0) + 2 * scale, 0) is None
    assert scale.item() == pytest.approx(0.0)


def test_what_a_player_is_made_of() -> None:
    assert player().shared
    for made in ({"optimizer": None}, {"average": None}, {"version": 1}):
        with pytest.raises(TypeError):
            Player("p", network(), sgd(), **made)


@pytest.mark.parametrize("shared", [True, False])
def test_processes_share_gradients_or_move_each_its_own_and_refuse_alike(monkeypatch, shared) -> None:
    """Two processes, of which the other one's gradients are all 1 larger, and whose flags are asked for in turn."""
    sent, asked = [], []
    monkeypatch.setattr(
        ranks, "all_mean", lambda values: sent.append(len(values)) or [v + (v.ndim > 0) for v in values]
    )
    monkeypatch.setattr(ranks, "anywhere", lambda flag: asked.append(flag) or torch.tensor(len(asked) == 2))
    made = Player("p", Weight([1.0, -2.0]), sgd(0.1, 0.0), shared=shared)
    seen = []
    for _ in range(2):
        before = Snapshot([made.network])
        seen.append(made.update(made.network.w.sum(), 0, before))
    assert sent == ([2, 2] if shared else []) and len(asked) == (0 if shared else 2)
    assert [bool(verdict.refused) for verdict in seen] == [False, not shared]
    assert shared or seen[1].why() == "loss and gradients are finite here, and not in another process"
    moved = [1 - 0.4, -2 - 0.4] if shared else [1 - 0.1, -2 - 0.1]
    torch.testing.assert_close(made.network.w.detach(), torch.tensor(moved, dtype=torch.float64))


def test_updates_tell_that_the_network_may_be_another() -> None:
    made, seen = player(), [0]
    for act in (lambda: move(made, lambda: loss_of(made, 0), 0), lambda: made.restore(copy.deepcopy(made.state()))):
        act()
        seen.append(made.version)
    assert seen == [0, 1, 2]
