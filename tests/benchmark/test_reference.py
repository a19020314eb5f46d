"""The plain loop is the published one: fresh images for each move, five against one, and a gap that each side pulls at."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from segkd.benchmark import pair
from segkd.benchmark.reference import Reference
from segkd.foundation.errors import UsageError

CPU = torch.device("cpu")


class Painter(nn.Module):
    """Latents (N,4) to images (N,3,4,4)."""

    def __init__(self) -> None:
        super().__init__()
        self.paint = nn.Linear(4, 48)

    def forward(self, z, size):
        return self.paint(z).view(-1, 3, 4, 4)


@pytest.fixture
def loop() -> Reference:
    torch.manual_seed(0)
    return Reference(nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1), Painter(), latent=4, size=(4, 4), batch=8, device=CPU)


def test_five_moves_on_fresh_images_and_one_of_the_generator(loop, tiny):
    before = [parameter.clone() for parameter in loop.teacher.parameters()]
    with tiny.calls(loop.teacher) as seen, tiny.calls(loop.student) as studied:
        loop.play()
    assert len(seen) == len(studied) == 6
    assert all(torch.equal(x, y) for x, y in zip(seen, studied, strict=True))
    assert not any(torch.equal(seen[0], x) for x in seen[1:])
    assert all(torch.equal(old, new) for old, new in zip(before, loop.teacher.parameters(), strict=True))


def test_the_first_move_is_that_of_sgd_on_the_mean_absolute_gap(loop, monkeypatch):
    """Against the gradient by hand: sign of the difference, times the image, averaged over everything."""
    images = torch.randn(8, 3, 4, 4)
    weight, bias = loop.student.weight.detach().clone(), loop.student.bias.detach().clone()
    with torch.no_grad():
        sign = torch.sign(F.conv2d(images, weight, bias) - loop.teacher(images)) / (8 * 2 * 4 * 4)
    slope = torch.einsum("nohw,nihw->oi", sign, images).view_as(weight)
    steps = []
    monkeypatch.setattr(loop, "images", lambda: images)
    step = loop.student_optimizer.step
    monkeypatch.setattr(
        loop.student_optimizer, "step", lambda: (step(), steps.append(loop.student.weight.detach().clone()))
    )
    monkeypatch.setattr(loop.generator_optimizer, "step", lambda: None)
    images.requires_grad_()  # as images of a generator that learns
    loop.play()
    torch.testing.assert_close(steps[0], weight - 0.1 * (slope + 5e-4 * weight))


def test_the_generator_widens_the_gap_and_the_student_closes_it(loop):
    torch.manual_seed(1)
    z = torch.randn(64, 4)

    def gap() -> float:
        with torch.no_grad():
            images = loop.generator(z, (4, 4))
            return float(F.l1_loss(loop.student(images), loop.teacher(images)))

    start = gap()
    step, loop.generator_optimizer.step = loop.generator_optimizer.step, lambda: None
    loop.play()
    closer = gap()
    loop.generator_optimizer.step, loop.student_optimizer.step = step, lambda: None
    loop.play()
    assert closer < start and gap() > closer


@pytest.mark.parametrize("case", ["ddad.segkd", "dfad"])
def test_it_plays_a_recipes_own_networks(tiny, case):
    recipe = tiny.recipe(case)
    plain, game = pair.reference(recipe, CPU), pair.distiller(recipe, CPU, bf16=False)
    plain.play()
    game.play(1)
    for own, ours in ((plain.teacher.network, game.teacher.network), (plain.student, game.student.network.network)):
        assert {k: v.shape for k, v in own.state_dict().items()} == {k: v.shape for k, v in ours.state_dict().items()}
    assert not any(type(module).__name__.startswith("Quick") for module in plain.teacher.modules())
    assert (game.bank is None) == (case == "dfad") and (game.bank is None or len(game.bank) == game.bank.capacity)


@pytest.mark.parametrize(
    ("case", "override", "said"),
    [
        ("noise", "run.steps=2", "synth.kind: noise"),
        ("dfad", "synth.size=[30, 62]", "must be a multiple of 16"),
        ("dfad", "teacher.student_classes={sky: sky, road: road}", "the plain loop merges no classes"),
        ("dfad", "synth.kind=unet", "unet changes pictures"),
        ("dfad", "synth.kind=conditional", "conditional paints maps of classes"),
        ("dfad", "teacher.size=[32, 64]", "the plain loop resamples no images"),
        ("dfad", "teacher.output=probabilities", "the plain loop makes no logits"),
    ],
)
def test_what_cannot_be_compared_is_said(tiny, case, override, said):
    with pytest.raises(UsageError, match=said):
        pair.reference(tiny.recipe(case, override, "game.logits=full"), CPU)


def test_a_missing_teacher_is_a_random_one(tiny):
    found = pair.trained(tiny.recipe("dfad", "teacher.weights=nowhere.safetensors"))
    assert found.random and not pair.trained(tiny.recipe("dfad")).random
    assert any(
        (layer.running_mean != 0).any() for layer in found.network.modules() if isinstance(layer, nn.BatchNorm2d)
    )


def test_a_teacher_is_benched_as_it_is_distilled(tiny, tmp_path):
    recipe = tiny.recipe("dfad", "teacher.multiple=32")
    state = load_file(recipe.teacher.weights)
    torch.save({"live": {key: value + 1 for key, value in state.items()}, "averaged": state}, tmp_path / "two.pt")
    recipe = tiny.recipe(
        "dfad", "teacher.multiple=32", f"teacher.weights={tmp_path / 'two.pt'}", "teacher.weights_key=averaged"
    )
    found = pair.trained(recipe).network.state_dict()
    assert not pair.trained(recipe).random and all(torch.equal(found[key], value) for key, value in state.items())
    assert pair.distiller(recipe, CPU, bf16=False).teacher.stride == 32
    with pytest.raises(UsageError, match="must be a multiple of 32"):
        pair.reference(tiny.recipe("dfad", "teacher.multiple=32", "synth.size=[16, 48]"), CPU)


class Ahead(nn.Module):
    """Logits of half the size, in a dict."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": images[..., ::2, ::2]}


def test_the_plain_loop_compares_logits_at_the_images_size():
    images = torch.ones(2, 3, 4, 6)
    assert torch.equal(pair.Logits(Ahead())(images), images)
