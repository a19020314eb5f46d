"""Agreement of two networks: a share of pixels, counted by hand, that disturbs nobody."""

import numpy as np
import pytest
import torch
from torch import nn

from segkd.data.classes import listed
from segkd.data.samples import Sample
from segkd.evaluation.agreement import agreement, compare
from segkd.evaluation.evaluate import Shown
from segkd.foundation.errors import DataError, NumbersError


class Fixed(nn.Module):
    """Logits whose argmax is the first channel of the image, shifted by `add`; in train mode it would say so."""

    def __init__(self, add=0, classes=4):
        super().__init__()
        self.add, self.classes = add, classes
        self.normal = nn.BatchNorm2d(3)
        self.modes = []

    def forward(self, images):
        self.modes.append(self.training)
        self.normal(images)
        ids = (images[:, 0].long() + self.add) % self.classes
        return nn.functional.one_hot(ids, self.classes).permute(0, 3, 1, 2).float()


def batches(*counts):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 4, (n, 3, 5, 7), generator=generator).float() for n in counts]


def test_the_extremes():
    assert agreement(Fixed(), Fixed(), batches(2, 3)) == 1.0
    assert agreement(Fixed(), Fixed(add=1), batches(2, 3)) == 0.0


def test_the_share_is_over_all_pixels_not_over_batches():
    first, second = batches(1, 3)

    class Half(Fixed):
        def forward(self, images):
            return super().forward(images if len(images) == 3 else (images + 1))

    assert agreement(Half(), Fixed(), [first, second]) == 0.75


def test_a_part_of_an_image_counts_by_its_pixels():
    class Left(Fixed):
        def forward(self, images):
            logits = super().forward(images)
            logits[..., :2] = logits[..., :2].roll(1, dims=1)
            return logits

    assert agreement(Left(), Fixed(), batches(2)) == 5 / 7


def test_both_are_judged_in_eval_mode_and_nothing_is_disturbed():
    student, teacher = Fixed().train(), Fixed().eval()
    before = {key: value.clone() for key, value in student.state_dict().items()}
    state = torch.get_rng_state()
    agreement(student, teacher, batches(2, 2))
    assert student.modes == teacher.modes == [False, False]
    assert student.training and not teacher.training
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not Fixed().eval().training and agreement(student.eval(), teacher, batches(1)) == 1.0
    assert not student.training


def test_no_graph_is_built():
    student = nn.Conv2d(3, 4, 1)
    agreement(student, Fixed(), batches(1))
    assert all(p.grad is None for p in student.parameters())


def test_bf16():
    student = nn.Conv2d(3, 4, 1)
    outputs = []
    student.register_forward_hook(lambda module, given, output: outputs.append(output.dtype))
    assert 0 <= agreement(student, Fixed(), batches(1), bf16=True) <= 1
    assert outputs == [torch.bfloat16]


class Ids(nn.Module):
    """Class ids of the first byte of an image that is normalised by mean 0 and std 1; each add shifts them."""

    def __init__(self, add=0, classes=3):
        super().__init__()
        self.add, self.classes, self.sizes = add, classes, []

    def forward(self, images):
        self.sizes.append(tuple(images.shape[-2:]))
        ids = ((images[:, 0] * 255).round().long() + self.add) % self.classes
        return nn.functional.one_hot(ids, self.classes).permute(0, 3, 1, 2).float()


def shown(network):
    return Shown(network, (0.0,) * 3, (1.0,) * 3, "cpu", "fp32")


def pictures(*sizes):
    draw = np.random.default_rng(0)
    return [Sample(str(i), draw.integers(0, 2, (*size, 3), np.uint8), None) for i, size in enumerate(sizes)]


THREE = listed("three", ["a", "b", "c"])


def test_compare_counts_pixels_over_the_set():
    images = pictures((4, 5), (6, 5), (4, 5))
    told = []
    found = compare(
        shown(Ids()), shown(Ids()), images, THREE, size="original", batch=2, progress=lambda *a: told.append(a)
    )
    assert found["agreement"] == found["agreement_miou"] == 1.0 and found["agreement_absent"] == ["c"]
    assert found["agreement_per_class"] == {"a": 1.0, "b": 1.0, "c": None}
    assert found["images"] == 3 and found["size"] == "mixed" and told[-1] == (3, 3)
    other = compare(shown(Ids()), shown(Ids(1)), images, THREE, size="original")
    zeros = sum(int((one.image[..., 0] == 0).sum()) for one in images)
    assert other["agreement"] == 0.0 and other["agreement_absent"] == []
    # rows are the teacher's: it says 1 where the student says 0, and 2 where that says 1
    assert other["agreement_confusion"] == [[0, 0, 0], [zeros, 0, 0], [0, 70 - zeros, 0]]
    assert "miou" not in other and "per_class" not in other


def test_both_are_shown_one_size():
    networks = Ids(), Ids()
    compare(*map(shown, networks), pictures((40, 60)), THREE, size=20)
    assert networks[0].sizes == networks[1].sizes == [(20, 30)]


def test_what_cannot_be_compared():
    class Broken(Ids):
        def forward(self, images):
            return super().forward(images) * torch.nan

    with pytest.raises(NumbersError, match="not finite"):
        compare(shown(Ids()), shown(Broken()), pictures((4, 5)), THREE, size="original")
    with pytest.raises(DataError, match="knows 4 classes, not the 3 of three"):
        compare(shown(Ids()), shown(Ids(classes=4)), pictures((4, 5)), THREE, size="original")
    with pytest.raises(DataError, match="no image"):
        compare(shown(Ids()), shown(Ids()), [], THREE, size="original")
