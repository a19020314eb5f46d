"""Teacher and student each run in the precision in which they are quicker: measured once, and nothing moved by it."""

import pytest
import torch

from segkd.runs import place


@pytest.fixture(autouse=True)
def unknown(monkeypatch, tmp_path):
    """Every test measures anew, and leaves nothing of it to others."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("slow", [(), ("teacher",), ("student",), ("teacher", "student")])
def test_networks_that_bf16_slows_down_are_named_and_asked_once(tiny, monkeypatch, slow):
    game, asked = tiny.game(bf16=True), []

    def seconds(work, device):
        network = work.args[0]
        name = "teacher" if network is game.teacher else "student"
        asked.append(name)
        return 2.0 if network.in_fp32 == (name not in slow) else 1.0

    monkeypatch.setattr(place, "seconds_of", seconds)
    assert place.quicker_in_fp32(game) == set(slow)
    assert set(asked) == {"teacher", "student"}
    asked.clear()
    assert place.quicker_in_fp32(game) == set(slow) and not asked
    place.quicker_in_fp32(tiny.game("ddad.segkd", "run.batch=4", bf16=True))
    assert asked  # another batch: anew


@pytest.mark.parametrize("checkpointing", ["true", "false"])
def test_measuring_moves_nothing(tiny, checkpointing):
    game = tiny.game("ddad.segkd", f"run.checkpointing={checkpointing}", bf16=True)
    before, random = tiny.hash(game.state()), torch.get_rng_state()
    assert place.quicker_in_fp32(game) <= {"teacher", "student"}
    assert tiny.hash(game.state()) == before and torch.equal(torch.get_rng_state(), random)
    assert not game.teacher.in_fp32 and not game.student.network.in_fp32
    assert all(p.grad is None for p in game.student.network.parameters())


def test_what_is_kept_in_fp32_is_computed_in_it(tiny):
    game = tiny.game("ddad.segkd", "student.ema=0.9", bf16=True)
    images = torch.randn(2, 3, 32, 64)
    networks = {"teacher": game.teacher, "student": game.student.network, "average": game.student.ema_or_live}
    with torch.no_grad():
        plain = {name: network.eval()(images) for name, network in networks.items()}
        with torch.autocast("cpu", torch.bfloat16):
            coarse = {name: network(images) for name, network in networks.items()}
        for names in ({"teacher"}, {"student"}, set()):
            place.keep_in_fp32(game, names)
            assert game.precision == ", ".join(["bf16", *(f"{name} in fp32" for name in names)])
            with torch.autocast("cpu", torch.bfloat16):
                for name, network in networks.items():
                    wanted = plain if {"average": "student"}.get(name, name) in names else coarse
                    assert torch.equal(network(images), wanted[name])
    assert not any(torch.equal(plain[name], coarse[name]) for name in networks)
    assert tiny.game().precision == "fp32"
