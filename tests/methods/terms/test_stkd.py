"""Mixed images pixel by pixel, and what student and teacher are asked about them."""

import pytest
import torch

from segkd.losses.discrepancy import kl
from segkd.methods.base import View
from segkd.methods.terms.stkd import STKD

N, SIZE = 5, (12, 16)
IMAGES = torch.eye(N).view(N, N, 1, 1).expand(N, N, *SIZE)
"""Image i has 1 in channel i alone: what it is mixed with, and how much of it, can be read off."""


def view(logits=None, x=IMAGES):
    return View({"x": x, "t": logits}, lambda images: images * 2, lambda images: images * 3)


def mixed(seed=0, logits=None, **options):
    torch.manual_seed(seed)
    return STKD(options).mixed(view(logits))


def shares(images):
    """The share (N,N,H,W) that each image has of each, and each one's partner; it has nothing of any other."""
    assert torch.allclose(images.sum(1), torch.ones(N, *SIZE)) and images.min() >= 0
    others = images.clone()
    others[range(N), range(N)] = 0
    partners = others.amax((2, 3)).argmax(1)
    assert torch.allclose(others.sum(1), others[range(N), partners])
    return images, partners


@pytest.mark.parametrize("seed", range(4))
def test_mixup_has_one_share_an_image_and_another_partner_for_each(seed):
    images, partners = shares(mixed(seed, alpha=5.0))
    own = images[range(N), range(N)]
    assert torch.equal(own, own[:, :1, :1].expand_as(own)) and len(own[:, 0, 0].unique()) == N
    assert sorted(partners.tolist()) == list(range(N)) and not (partners == torch.arange(N)).any()
    assert mixed(seed, alpha=5.0).equal(images) and not mixed(seed + 1, alpha=5.0).equal(images)


def test_the_shares_are_those_of_the_beta_distribution():
    spread = {alpha: torch.cat([mixed(seed, alpha=alpha)[range(N), range(N), 0, 0] for seed in range(60)]).var()
              for alpha in (0.2, 1.0, 20.0)}  # fmt: skip
    for alpha, found in spread.items():
        assert found.item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.25)


def test_cutmix_pastes_a_box_as_large_as_its_share():
    areas = []
    for seed in range(20):
        images, _ = shares(mixed(seed, mix="cutmix", alpha=1e6))
        pasted = images[range(N), range(N)] == 0
        assert ((images == 0) | (images == 1)).all()
        rows, columns = pasted.any(2), pasted.any(1)
        assert torch.equal(pasted, rows[:, :, None] & columns[:, None, :])
        for line in (*rows.int(), *columns.int()):
            assert line.diff().abs().sum() <= 2  # in one piece
        areas += pasted.float().mean((1, 2)).tolist()
    assert max(areas) == pytest.approx(0.5, abs=0.1) and min(areas) < 0.3, (
        "half of an image, less what is outside of it"
    )


@pytest.mark.parametrize("stride", [1, 4])
def test_classmix_pastes_half_of_a_partners_classes_where_it_has_them(stride):
    torch.manual_seed(1)
    classes = torch.randint(0, 5, (N, SIZE[0] // stride, SIZE[1] // stride)) + 1
    classes[0], classes[1] = 3, torch.where(classes[1] > 2, 4, 1)  # one class, and two
    logits = torch.nn.functional.one_hot(classes, 7).movedim(3, 1).float()
    full = classes.repeat_interleave(stride, 1).repeat_interleave(stride, 2)
    found = {0: set(), 1: set(), 2: set()}
    for seed in range(8):
        images = mixed(seed, logits, mix="classmix")
        assert ((images == 0) | (images == 1)).all()
        for n in range(N):
            for other in set(range(N)) - {n}:
                if not (pasted := images[n, other] == 1).any():
                    continue
                taken, there = set(full[other][pasted].tolist()), set(full[other].unique().tolist())
                assert len(taken) == len(there) // 2
                assert torch.equal(pasted, torch.isin(full[other], torch.tensor(sorted(taken))))
                found[min(other, 2)] |= taken
    assert found[0] == set() and found[1] == {1, 4} and found[2] == {1, 2, 3, 4, 5}


def test_both_networks_are_asked_about_the_mixed_images():
    torch.manual_seed(3)
    x = torch.randn(N, 4, *SIZE)
    value = STKD({"temperature": 2.0})(v := view(x=x))
    torch.manual_seed(3)
    torch.randn(N, 4, *SIZE)
    images = STKD().mixed(v)
    assert value.item() == kl(images * 3, images * 2, 2.0).item() > 0
    assert v.touched == {"x", "teacher"}
