"""Row N1: a number that is none changes nothing and is named, wherever it comes from; and too many end the run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segkd.data.samples import Sample
from segkd.data.transforms import TrainTransform
from segkd.foundation.errors import NumbersError
from segkd.machine.passes import Passes
from segkd.players.player import Player
from segkd.players.refusals import Refusals
from segkd.recipe import further_terms, method_terms
from segkd.synthesis.source import Move, Source
from segkd.synthesis.translator import Translator
from segkd.training.networks import TermsJudge
from segkd.training.teaching import Objective, Teaching
from tests.methods.conftest import inverts, tiers

BAD = (math.nan, math.inf, -math.inf)


def spoilt(tensor: Tensor, value: float) -> Tensor:
    """One of its numbers is no number; the gradients of the others pass."""
    mask = torch.zeros(tensor.shape, dtype=torch.bool, device=tensor.device)
    mask.view(-1)[tensor.numel() // 2] = True
    return tensor.masked_fill(mask, value)


@contextmanager
def patched(thing: Any, name: str, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """`change` wraps a function of `thing` inside the block."""
    own = vars(thing).get(name)
    setattr(thing, name, change(getattr(thing, name)))
    try:
        yield
    finally:
        delattr(thing, name) if own is None else setattr(thing, name, own)


def seen(*names: str) -> Callable[..., Any]:
    """Spoils what a network, or a tap in it, gave."""

    def change(original: Callable[..., dict], value: float) -> Callable[..., dict]:
        def wrapped(*given: Any, **options: bool) -> dict:
            found = original(*given, **options)
            for name in names:
                if name == "statistics" and found.get(name):
                    first = found[name][0]
                    images = tuple(spoilt(part, value) for part in first.images)
                    found[name][0] = dataclasses.replace(first, mean=spoilt(first.mean, value), images=images)
                elif name in found and name != "statistics":
                    found[name] = spoilt(found[name], value)
            return found

        return wrapped

    return change


def result(original: Callable[..., Tensor], value: float) -> Callable[..., Tensor]:
    return lambda *given: spoilt(original(*given), value)


def drawn(original: Callable[..., tuple], value: float) -> Callable[..., tuple]:
    def wrapped(*given: Any) -> tuple:
        batch, logits = original(*given)
        return dataclasses.replace(batch, images=spoilt(batch.images, value)), spoilt(logits, value)

    return wrapped


def bad_gradients(original: Callable[..., None], value: float) -> Callable[..., None]:
    """Of whatever a source moves by its judge: a generator, or a copy of it."""

    def wrapped(judge: Any, player: Player, loss: Callable[[], Tensor]) -> None:
        with bad_gradient(player, value):
            original(judge, player, loss)

    return wrapped


@contextmanager
def bad_gradient(player: Any, value: float) -> Iterator[None]:
    """One number of the gradient of one parameter."""
    parameter = list(player.network.parameters())[-1]
    handle = parameter.register_hook(lambda gradient: spoilt(gradient, value))
    try:
        yield
    finally:
        handle.remove()


def given(game: Any, value: float) -> Any:
    """What a generator makes its images of: latents, or pictures."""
    source = getattr(game.source, "start", game.source)
    if isinstance(source, Translator):
        return patched(source.pictures, "shown", lambda f: result(f, math.nan))  # an infinity is cut to the range's end
    return patched(Move, "latents", lambda f: result(f, value))


Fault = Callable[[Any, float], Any]
PLACES: dict[str, Fault] = {
    "teacher out": lambda game, value: patched(game.networks, "teacher_outputs", lambda f: seen("t", "stored")(f, value)),
    "student out": lambda game, value: patched(game.networks, "student_outputs", lambda f: seen("s")(f, value)),
    "statistics": lambda game, value: patched(game.networks, "teacher_outputs", lambda f: seen("statistics")(f, value)),
    "z": given,
    "images": lambda game, value: patched(Source, "augmented", lambda f: result(f, value)),
    "student gradient": lambda game, value: bad_gradient(game.student, value),
    "source gradient": lambda game, value: patched(TermsJudge, "update", lambda f: bad_gradients(f, value)),
    "bank": lambda game, value: patched(game.bank, "draw", lambda f: drawn(f, value)),
}  # fmt: skip


def term(name: str) -> Fault:
    def fault(game: Any, value: float) -> Any:
        thing, function = (
            (getattr(game.method, name), "forward") if name in game.method.further else (game.method, name)
        )
        return patched(thing, function, lambda f: lambda view: spoilt(f(view), value))

    return fault


def weighed(case: str) -> list[str]:
    """Every term of the method has weight, and each that all methods have."""
    own = [f"weights.{name}=1.0" for name in method_terms()[case.partition(".")[0]].names]
    return own + [f"terms.{name}=1.0" for name in further_terms()]


Injection = tuple[str, str, Fault, list[str]]
"""A move, a place, how to inject, and the words one of which must name it."""


def live(game: Any) -> Iterator[Injection]:
    """Where the student learns from images that are made for it, and the synthesiser from its judges."""
    learns = game.source.player is not None
    for player, needs in {
        "student": game.needs["student"],
        **({"source": game.needs["source"]} if learns else {}),
    }.items():
        terms = game.method.terms(player)
        places = ["teacher out", "images", f"{player} gradient"]
        places += ["z"] if learns else []
        places += [place for place, field in (("student out", "s"), ("statistics", "statistics")) if field in needs]
        for place in places:
            yield player, place, PLACES[place], [f"term {name}" for name in terms]
        for name in terms:
            yield player, name, term(name), [f"term {name}"]


def kept(game: Any) -> Iterator[Injection]:
    """Where images are kept, and drawn again."""
    yield "student", "bank", PLACES["bank"], [f"term {name}" for name in game.method.terms("student")]
    for place in ("teacher out", "images", *(["z"] if game.source.player is not None else [])):
        yield "keep", place, PLACES[place], ["images", "logits"]


def refined(game: Any) -> Iterator[Injection]:
    """Where images follow their judges before they are kept."""
    terms = game.method.terms("pixels")
    for place in ("teacher out", "z", "statistics"):
        yield "keep", place, PLACES[place], ["images", "logits", *(f"term {name}" for name in terms)]
    for name in terms:
        yield "keep", name, term(name), [f"term {name}"]


def inverted(game: Any) -> Iterator[Injection]:
    """Where nothing else follows a judge, and all that the student learns from is kept."""
    terms = [f"term {name}" for name in game.method.terms("student")]
    yield "student", "bank", PLACES["bank"], terms
    yield from (("student", name, term(name), [f"term {name}"]) for name in game.method.terms("student"))
    judges = game.method.terms("pixels")
    spoils = PLACES["images"]  # by a NaN: an infinity is cut to the range's end
    places = {"teacher out": PLACES["teacher out"], "images": lambda game, value: spoils(game, math.nan)}
    places |= {"statistics": PLACES["statistics"]} if "statistics" in game.needs["pixels"] else {}
    for place, inject in places.items():
        yield "keep", place, inject, ["images", "logits", *(f"term {name}" for name in judges)]
    for name in judges:
        yield "keep", name, term(name), [f"term {name}"]


Way = tuple[tuple[str, ...], Callable[[Any], Iterator[Injection]]]


def ways(case: str) -> list[Way]:
    """How a method may be played: overrides, and what is injected then."""
    if inverts(case):
        return [((), inverted)]
    plain: list[Way] = [
        (("synth.replay=0", "game.keep_moves=0", "synth.class_balance=0"), live),
        (("synth.replay=3", "game.keep_moves=1"), kept),
    ]
    refining = method_terms()[case.partition(".")[0]].pixels
    return [*plain, *([(("synth.replay=3", "game.keep_moves=1", "synth.refine=1"), refined)] if refining else [])]


def numbers(value: Any) -> Iterator[Tensor]:
    """The tensors of a nested state, in its order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)


def everything(game: Any) -> list[Tensor]:
    return list(numbers({name: part for name, part in game.state().items() if name != "refusals"}))


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("case", tiers())
@pytest.mark.row("N1")
def test_a_number_that_is_none_changes_nothing_and_is_named(row, tiny, case: str):
    injected = set()
    for overrides, places in ways(case):
        game = tiny.game(case, *weighed(case), "run.max_bad=0", *overrides)
        game.play(0)
        before = [tensor.clone() for tensor in everything(game)]
        networks = (game.student.network, game.source, game.teacher)
        for move, place, inject, words in places(game):
            for value in BAD:
                with pytest.raises(NumbersError) as caught, inject(game, value):
                    game.moves[move](1, 1)
                line = str(caught.value)
                assert line.startswith(f"step 1: {move} ") and any(word in line for word in words), (place, line)
                assert "nan" in line or "inf" in line or "not finite" in line
                assert same(everything(game), before), (move, place, value)
                assert all(p.grad is None for network in networks for p in network.parameters())
                injected.add((move, place))
                row.count()
        game.play(1)
        assert not same(everything(game), before)
    assert len(injected) >= (15 if game.source.player is not None else 8)


@pytest.mark.parametrize("case", tiers())
@pytest.mark.row("N1")
def test_more_than_max_bad_of_one_player_end_the_run(row, tiny, case: str):
    """Also where the other player's moves go well: a player that is always refused learns nothing."""
    bank = () if inverts(case) else ("synth.replay=0", "game.keep_moves=0", "synth.class_balance=0")
    game = tiny.game(case, *weighed(case), *bank, "game.student_moves=1", "game.synth_moves=1")
    assert game.refusals.max_bad == 5
    for player in ("student", "source") if game.source.player is not None else ("student",):
        with term(game.method.terms(player)[0])(game, math.nan), pytest.raises(NumbersError) as caught:
            for step in range(20):
                game.play(step)
        last = -(-6 // (game.source.updates if player == "source" else 1)) - 1
        assert step == last and caught.value.exit_code == 4
        assert f"step {last}: {player} " in str(caught.value) and "6 refused updates in a row" in str(caught.value)
        row.count()


TEACHING: dict[str, Callable[[Any, float], Any]] = {
    "images": lambda game, value: patched(game.player.network, "forward", lambda f: lambda x: f(spoilt(x, value))),
    "logits": lambda game, value: patched(game.player.network, "forward", lambda f: result(f, value)),
    "loss": lambda game, value: patched(game, "objective", lambda f: result(f, value)),
    "gradient": lambda game, value: bad_gradient(game.player, value),
}


@pytest.mark.row("N1", 3 * len(TEACHING))
def test_a_teacher_that_learns_is_guarded_too(row):
    game = taught(0)
    game.play(0)
    before = [tensor.clone() for tensor in numbers(game.player.state())]
    for inject in TEACHING.values():
        for value in BAD:
            with (
                pytest.raises(NumbersError, match="step 1: network (loss|gradient norm) is") as caught,
                inject(game, value),
            ):
                game.play(1)
            assert caught.value.exit_code == 4
            assert same(list(numbers(game.player.state())), before)
            row.count()
    game.play(1)
    assert not same(list(numbers(game.player.state())), before)


def taught(max_bad: int) -> Teaching:
    """A supervised game on noise."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
    chance = np.random.default_rng(0)
    samples = [
        Sample(str(i), chance.integers(0, 256, (8, 8, 3), np.uint8), chance.integers(0, 3, (8, 8), np.uint8))
        for i in range(4)
    ]
    return Teaching(
        Player("network", network, partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True), ema_decay=0.9), samples, TrainTransform((8, 8), (1.0, 1.0), False, 0.0, [0.5] * 3, [0.5] * 3),
        Objective("cross_entropy", 2.0, None), batch=2, seed=0, passes=Passes(), refusals=Refusals(max_bad),
    )  # fmt: skip
