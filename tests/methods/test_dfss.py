"""DFSS: whose images weigh how much, and when."""

from types import SimpleNamespace

import pytest
import torch

from segkd.losses.discrepancy import l1


def view(near, seed=0):
    """Of images whose one statistic lies so far from the teacher's."""
    torch.manual_seed(seed)
    means = torch.tensor(near).view(-1, 1)
    layer = SimpleNamespace(
        images=(means, torch.ones_like(means)), running_mean=torch.zeros(1), running_var=torch.ones(1)
    )
    s = torch.randn(len(near), 3, 4, 5, requires_grad=True)
    return SimpleNamespace(s=s, t=torch.randn(len(near), 3, 4, 5), statistics=[layer])


@pytest.mark.parametrize(("step", "least"), [(0, 0.0), (2, 0.5), (4, 1.0), (7, 1.0)])
def test_near_images_weigh_more_until_all_weigh_alike(tiny, step, least):
    method = tiny.game("dfss", "run.steps=8", "options.until=0.5", "options.discrepancy=l1", "weights.adv=0").method
    seen = view([0.0, 4.0, 2.0])
    total, values = method.loss("student", seen, step)
    each = torch.stack([l1(s, t) for s, t in zip(seen.s, seen.t, strict=True)])
    weights = torch.tensor([1.0, least, (1 + least) / 2])
    wanted = (weights * each).sum() / weights.sum()
    torch.testing.assert_close(values["kd"], wanted)
    got, expected = (torch.autograd.grad(value, seen.s, retain_graph=True)[0] for value in (total, wanted))
    torch.testing.assert_close(got, expected)


def test_generated_images_and_pictures_are_weighed_by_the_teacher(tiny):
    game = tiny.game("dfss")
    assert "statistics" in game.needs["student"]
    seen, near = [], game.method.near
    game.method.near = lambda v: seen.append(near(v)) or seen[-1]
    game.play(0)
    assert all(sorted(w.tolist()) == [0.0, 1.0] for w in seen) and len(seen) == 2


def test_photos_of_a_folder_are_a_pool_too_and_told(tiny, tmp_path):
    game = tiny.game("dfss", "synth.mix={pictures: null, folder: 0.5}", f"synth.root={tiny.folder}/camvid/train")
    assert game.source.real == 4
