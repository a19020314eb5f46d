"""Several sources as one."""

import pytest
import torch

from segkd.foundation.errors import RecipeError
from segkd.machine import ranks
from segkd.synthesis.mixed import Mixed
from segkd.synthesis.noise import Noise
from segkd.synthesis.source import Move

LOW, HIGH = -torch.ones(3), torch.ones(3)


def test_each_source_gives_its_share_of_a_batch_and_draws_numbers_of_its_own():
    mixed = Mixed(Noise(LOW, HIGH), {"noise": (Noise(LOW, HIGH), 0.3), "rest": (Noise(2 * LOW, HIGH), 0.2)})
    move = Move(0, 3, 1, 0.5)
    images = mixed.draw(10, (4, 6), move).images
    assert mixed.counts(10) == {"noise": 3, "rest": 2} and images.shape == (10, 3, 4, 6)
    assert torch.equal(images[:5], Noise(LOW, HIGH).draw(5, (4, 6), move).images)
    assert images[:8].min() >= -1 > images[8:].min()
    assert len({tuple(image.flatten().tolist()) for image in images}) == 10
    assert torch.equal(images, mixed.draw(10, (4, 6), move).images)
    assert len(mixed.draw(2, (4, 6), move).images) == 2 and mixed.counts(2) == {"noise": 0, "rest": 0}


def test_shares_are_alike_in_all_processes_and_one_of_no_image_is_not_asked(monkeypatch):
    class Asked(Noise):
        def draw(self, batch, *given):
            assert batch
            return super().draw(batch, *given)

    mixed = Mixed(Noise(LOW, HIGH), {"noise": (Asked(LOW, HIGH), 0.3)})
    assert mixed.draw(3, (4, 6), Move(0, 0, 0)).images.shape == (3, 3, 4, 6)
    monkeypatch.setattr(ranks, "size", lambda: 2)
    assert [mixed.counts(batch)["noise"] for batch in (6, 8, 12, 14, 20)] == [0, 2, 2, 4, 6]


@pytest.mark.parametrize("refine", [0, 1])
def test_a_generator_learns_and_its_images_alone_are_refined(tiny, refine):
    overrides = ["run.batch=4", "synth.mix={noise: 0.25}", "game.keep_moves=1", f"synth.refine={refine}"]
    game = tiny.game("ddad.segkd", *overrides)
    before = tiny.hash(game.source.player.network)
    game.play(0)
    assert tiny.hash(game.source.player.network) != before and not game.notes
    kept = game.bank.images[-1]
    noise = Noise(*ends(game), game.source.main.augment or game.source.main.start.augment)
    move = Move(0, 0, 1, 0.0).of("noise")
    assert torch.equal(kept[3:].float(), noise.draw(1, (32, 64), move).images) and len(kept) == 4
    assert len(game.bank.images) == (1 if refine else 2)


def ends(game):
    span = game.source.others["noise"].range
    return (span.centre - span.reach).flatten(), (span.centre + span.reach).flatten()


def test_a_run_with_a_mixed_source_resumes_to_the_same_bytes(tiny):
    whole, first, again = (tiny.game("ddad.segkd", "run.batch=4", "synth.mix={noise: 0.5}") for _ in range(3))
    for step in range(2):
        whole.play(step)
    first.play(0)
    again.restore(first.state())
    again.play(1)
    assert tiny.hash(again.state()) == tiny.hash(whole.state())


def test_images_of_a_set_are_counted(tiny):
    assert tiny.game("kd", "synth.kind=noise", "run.batch=4", "synth.mix={images: 0.5}").source.real == 4


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "synth.mix={noise: 0.2}",
            "synth.mix: noise: 0.2 of a batch of 2 is no image a process; raise it, or run.batch",
        ),
        ("synth.mix={noise: 1}", "synth.mix"),
        ("synth.mix={dcgan: 0.5}", "synth.mix"),
        ("synth.mix={noise: 0.5, images: 0.5}", "synth.mix: the shares leave nothing of a batch to the main source"),
    ],
)
def test_shares_that_cannot_be_are_one_line(tiny, override, line):
    with pytest.raises(RecipeError, match=line) as caught:
        tiny.game("ddad.segkd", override)
    assert len(caught.value.errors) == 1


def test_a_source_is_not_mixed_with_itself(tiny):
    with pytest.raises(RecipeError, match="synth.mix: noise is the main source already: name others"):
        tiny.game("noise", "synth.mix={noise: 0.5}")
