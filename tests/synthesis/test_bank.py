"""The replay bank: the newest batches, images and logits mirrored together, all of it restored."""

import math

import pytest
import torch

from segkd.synthesis.bank import Replay
from segkd.synthesis.source import Batch


def keep(bank, images, logits, unless=None):
    bank.keep(Batch(images), logits, unless=unless)


def draw(bank, count):
    batch, logits = bank.draw(count)
    return batch.images, logits


def batch(value, size=(4, 6), count=2):
    """Images that all hold `value` but for a ramp along the width, and logits with the same ramp."""
    ramp = torch.linspace(0, 0.5, size[1])
    images = (value + ramp).expand(count, 3, *size)
    return images.clone(), (10 * value + ramp).expand(count, 5, *size).clone()


def filled(capacity=3, batches=3, dtype=torch.float32, flip=False):
    bank = Replay(capacity, dtype, flip)
    for value in range(batches):
        keep(bank, *batch(float(value)))
    return bank


def held(bank):
    return [int(images[0, 0, 0, 0]) for images in bank.images]


@pytest.mark.parametrize(
    ("batches", "values"), [(0, []), (2, [0, 1]), (3, [0, 1, 2]), (4, [3, 1, 2]), (5, [3, 4, 2]), (7, [6, 4, 5])]
)
def test_the_oldest_batch_is_overwritten_first(batches, values):
    bank = filled(batches=batches)
    assert held(bank) == values and len(bank) == min(batches, 3)


def test_a_bank_of_one_batch_holds_the_newest():
    assert held(filled(capacity=1, batches=4)) == [3]


def test_what_is_kept_is_a_copy_without_graph():
    bank = Replay(2, torch.float32, False)
    images, logits = batch(1.0)
    keep(bank, images.requires_grad_(), logits * images.mean())
    assert not bank.images[0].requires_grad and not bank.logits[0].requires_grad
    before = [bank.images[0].clone(), bank.logits[0].clone()]
    images.detach().zero_()
    logits.zero_()
    assert torch.equal(bank.images[0], before[0]) and torch.equal(bank.logits[0], before[1])


def test_what_is_kept_lies_apart_from_what_comes_and_goes():
    """Else the memory that the process keeps for its next tensors is broken up by the bank, and grows to its double."""
    bank = filled(batches=1)
    (place,) = {images.data_ptr() % 4096 for images in (bank.images[0], bank.logits[0])}
    assert place == 0


@pytest.mark.parametrize("flip", [False, True])
def test_images_are_drawn_with_their_own_logits(flip):
    bank = filled(flip=flip)
    torch.manual_seed(0)
    images, logits = draw(bank, 64)
    assert images.shape == (64, 3, 4, 6) and logits.shape == (64, 5, 4, 6)
    ramp = torch.linspace(0, 0.5, 6)
    values = images[..., 0].amin((1, 2)).floor()
    assert set(values.tolist()) == {0.0, 1.0, 2.0}
    # What is left without the batch's value is the ramp, mirrored in both or in neither.
    slopes = images[:, 0, 0] - values[:, None]
    assert torch.allclose(logits[:, 0, 0] - 10 * values[:, None], slopes, atol=1e-5)
    mirrored = torch.isclose(slopes, ramp.flip(0), atol=1e-5).all(1)
    assert torch.isclose(slopes[~mirrored], ramp, atol=1e-5).all()
    assert 16 < mirrored.sum() < 48 if flip else not mirrored.any()


def test_draws_follow_the_global_seed():
    bank = filled(flip=True)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(draw(bank, 8))
    assert all(torch.equal(a, b) for a, b in zip(drawn[0], drawn[1], strict=True))
    assert not torch.equal(drawn[0][0], drawn[2][0])


def test_one_draw_is_of_one_size():
    bank = Replay(4, torch.float32, False)
    for value, size in enumerate([(4, 6), (8, 2), (4, 6), (8, 2)]):
        keep(bank, *batch(float(value), size))
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        images, logits = draw(bank, 6)
        assert images.shape[-2:] == logits.shape[-2:]
        wanted = {(4, 6): {0.0, 2.0}, (8, 2): {1.0, 3.0}}[tuple(images.shape[-2:])]
        assert set(images[:, 0, 0, 0].floor().tolist()) <= wanted
        seen.add(tuple(images.shape[-2:]))
    assert seen == {(4, 6), (8, 2)}


def test_batches_of_other_counts_lie_beside_each_other():
    bank = Replay(4, torch.float32, False)
    for value, count in enumerate((2, 3, 1)):
        images, logits = batch(float(value), count=count)
        offsets = 0.1 * torch.arange(count).view(-1, 1, 1, 1)  # which image of its batch
        keep(bank, images + offsets, logits + offsets)
    torch.manual_seed(0)
    images, logits = draw(bank, 400)
    found = {(int(x[0, 0, 0]), round(float(x[0, 0, 0] % 1), 1)) for x in images}
    assert (
        {(0, 0.0), (0, 0.1), (1, 0.0), (1, 0.1), (2, 0.0)}
        <= found
        <= {(0, 0.0), (0, 0.1), *((1, i / 10) for i in range(3)), (2, 0.0)}
    )
    values = images[:, 0, 0, 0].floor()
    torch.testing.assert_close(logits[:, 0, 0, 0] - 10 * values, images[:, 0, 0, 0] - values, atol=1e-4, rtol=0)


def test_a_bank_in_bf16_gives_fp32():
    bank = filled(dtype=torch.bfloat16)
    images, logits = draw(bank, 2)
    assert bank.images[0].dtype == bank.logits[0].dtype == torch.bfloat16
    assert images.dtype == logits.dtype == torch.float32


def test_a_bank_in_8_bits_gives_what_was_kept_up_to_half_a_level():
    bank, generator = Replay(3, torch.float32, False, uint8=True), torch.Generator().manual_seed(0)
    images = 3 * torch.randn(2, 3, 8, 12, generator=generator)
    images[0, 1] = -0.25  # a channel without contrast
    logits = 20 * torch.randn(2, 5, 4, 6, generator=generator)
    keep(bank, images, logits)
    assert bank.images[0].dtype == bank.logits[0].dtype == torch.uint8
    drawn, labelled = draw(bank, 32)
    nearest = (drawn[:, None] - images).abs().sum((2, 3, 4)).argmin(1)
    assert set(nearest.tolist()) == {0, 1} and (drawn[nearest == 0, 1] == -0.25).all()
    for found, kept in ((drawn, images), (labelled, logits)):
        half = (kept.amax((2, 3), keepdim=True) - kept.amin((2, 3), keepdim=True)) / 510
        assert ((found - kept[nearest]).abs() - half[nearest] < 1e-5).all()
    assert drawn.dtype == labelled.dtype == torch.float32
    assert drawn.is_contiguous(memory_format=torch.channels_last)


def test_a_bank_in_8_bits_takes_a_quarter():
    size = {}
    for uint8 in (False, True):
        bank = Replay(2, torch.float32, False, uint8)
        keep(bank, torch.rand(2, 3, 64, 64), torch.rand(2, 11, 16, 16))
        size[uint8] = sum(kind[0].numel() * kind[0].element_size() for kind in bank.held)
    assert 0.25 < size[True] / size[False] < 0.26


@pytest.mark.parametrize("uint8", [False, True])
@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_a_batch_that_is_refused_leaves_the_bank_as_it_is(before, uint8):
    """Also where the next one would be the first, or would overwrite another."""
    bank, plain = (Replay(2, torch.float32, False, uint8) for _ in range(2))
    for value in range(before):
        keep(plain, *batch(float(value)))
        keep(bank, *batch(float(value)), unless=torch.tensor(False))
    keep(bank, *batch(math.nan), unless=torch.tensor(True))
    keep(bank, *batch(math.nan, (8, 2)), unless=torch.tensor(True))
    assert bank.next == plain.next and len(bank) == len(plain) == min(before, 2)
    assert all(torch.equal(a, b) for x, y in zip(bank.held, plain.held, strict=True) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("uint8", [False, True])
def test_a_full_bank_waits_for_no_verdict_of_another_device(uint8):
    """On "meta" a look at a number raises; where the place is of another size, or empty, there is no way but to look."""
    with torch.device("meta"):
        bank, refused = Replay(2, torch.float32, False, uint8), torch.zeros((), dtype=torch.bool)
        small, tall = ((torch.empty(2, 3, *size), torch.empty(2, 5, *size)) for size in ((4, 6), (8, 2)))
        with pytest.raises(RuntimeError, match="meta"):
            keep(bank, *small, unless=refused)
        for _ in range(2):
            keep(bank, *small)
        keep(bank, *small, unless=refused)
        assert bank.next == 1
        with pytest.raises(RuntimeError, match="meta"):
            keep(bank, *tall, unless=refused)
    assert bank.next == 1 and all(images.device.type == "meta" for images in bank.images)


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_a_bank_goes_on_in_8_bits_or_without_them(before, after):
    bank, again = (Replay(3, torch.float32, False, uint8) for uint8 in (before, after))
    for value in range(5):
        keep(bank, *batch(float(value)))
    again.restore(bank.state(), torch.device("cpu"))
    assert [images.dtype == torch.uint8 for images in again.images] == [after] * 3
    keep(again, *batch(9.0))
    images, logits = draw(again, 64)
    values = (images[:, 0, 0, 0] + 0.01).floor()
    assert set(values.tolist()) == {3.0, 4.0, 9.0}
    assert (images - values.view(-1, 1, 1, 1) - torch.linspace(0, 0.5, 6)).abs().max() < 0.5 / 510 + 1e-6
    assert ((logits[:, 0, 0, 0] / 10).round() == values).all()


@pytest.mark.parametrize("uint8", [False, True])
@pytest.mark.parametrize("batches", [0, 2, 5])
def test_a_restored_bank_draws_and_overwrites_as_before(batches, uint8):
    bank, again = (Replay(3, torch.float32, True, uint8) for _ in range(2))
    torch.manual_seed(0)
    for value in range(batches):
        keep(bank, *(part + torch.randn_like(part) for part in batch(float(value))))
    again.restore(bank.state(), torch.device("cpu"))
    for one in (bank, again):
        keep(one, *batch(9.0))
    assert again.next == bank.next
    assert all(torch.equal(a, b) for x, y in zip(again.held, bank.held, strict=True) for a, b in zip(x, y, strict=True))
    torch.manual_seed(1)
    drawn = draw(bank, 8)
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(drawn, draw(again, 8), strict=True))


@pytest.mark.parametrize(("capacity", "values"), [(1, [9]), (2, [9, 4]), (5, [2, 3, 4, 9])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_bank_of_another_capacity_goes_on_with_the_newest(capacity, values, dtype):
    again = Replay(capacity, dtype, False)
    again.restore(filled(capacity=3, batches=5).state(), torch.device("cpu"))
    keep(again, *batch(9.0))
    assert held(again) == values and all(x.dtype == dtype for x in (*again.images, *again.logits))
    assert draw(again, 4)[0].shape == (4, 3, 4, 6)
    for value in range(10, 10 + capacity):
        keep(again, *batch(float(value)))
    assert sorted(held(again)) == sorted(range(10, 10 + capacity))


@pytest.mark.parametrize("uint8", [False, True])
def test_labels_are_kept_with_their_images_and_mirrored_with_them(uint8):
    bank = Replay(2, torch.float32, flip=True, uint8=uint8)
    for value in range(3):
        columns = torch.arange(6).expand(2, 4, 6)
        images = (columns + value)[:, None].repeat(1, 3, 1, 1).float()
        bank.keep(Batch(images, columns + 100 * value), torch.zeros(2, 5, 2, 3))
    again = Replay(2, torch.float32, flip=True, uint8=uint8)
    again.restore(bank.state(), torch.device("cpu"))
    drawn, _ = again.draw(32)
    value = drawn.labels.min().item() // 100 * 100
    assert drawn.labels.dtype == torch.int64 and set(range(value, value + 3)) <= set(drawn.labels.flatten().tolist())
    mirrored = drawn.labels[:, 0, 0] % 100 > 0
    assert mirrored.any() and not mirrored.all()
    torch.testing.assert_close(drawn.images[:, 0], drawn.labels // 100 + drawn.labels % 100.0, rtol=0.01, atol=0.05)


def logits_of(*masks):
    """Logits (N,C,h,w) of three classes by which the teacher is sure of masks (N,h,w)."""
    return 9.0 * torch.nn.functional.one_hot(torch.tensor(masks), 3).permute(0, 3, 1, 2)


def uneven(balance, uint8=False):
    """A bank of eight images of class 0, one half of class 1, and one with a quarter of class 2."""
    bank = Replay(5, torch.float32, False, uint8, balance)
    zero = [[0, 0], [0, 0]]
    for at, masks in enumerate([(zero, zero)] * 4 + [([[0, 1], [0, 1]], [[0, 0], [0, 2]])]):
        images = torch.full((2, 3, 4, 4), 2.0 * at) + torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
        keep(bank, images, logits_of(*masks))
    return bank


@pytest.mark.parametrize("balance", [0.5, 1.0, 2.0])
def test_images_of_rare_classes_are_drawn_more_often(balance):
    """By the mean over an image's pixels of the share of their class in the bank, to minus the power."""
    shares = {0: (8 + 0.5 + 0.75) / 10, 1: 0.05, 2: 0.025}
    worth = {k: (share + 0.005) ** -balance for k, share in shares.items()}
    chances = [worth[0]] * 8 + [(worth[0] + worth[1]) / 2, (3 * worth[0] + worth[2]) / 4]
    torch.manual_seed(0)
    images, _ = draw(uneven(balance), 20_000)
    found = torch.bincount(images[:, 0, 0, 0].long(), minlength=10) / len(images)
    expected = torch.tensor(chances) / sum(chances)
    assert ((found - expected).abs() < 5 * (expected / len(images)).sqrt()).all()


def test_what_was_overwritten_counts_no_more():
    bank = uneven(1.0)
    for value in range(5):
        keep(bank, *(part[:, :3] for part in batch(float(value), (4, 4))))
    torch.manual_seed(0)
    images, _ = draw(bank, 500)
    assert set(images[:, 0, 0, 0].tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}


@pytest.mark.parametrize("uint8", [False, True])
@pytest.mark.parametrize("kept", [True, False])
def test_a_restored_bank_knows_the_shares_of_classes(uint8, kept):
    """Also where it was saved by a run that did not ask for them."""
    bank, again = uneven(1.0 if kept else 0.0, uint8), Replay(5, torch.float32, False, uint8, 1.0)
    state = bank.state()
    assert ("shares" in state) is kept
    again.restore(state, torch.device("cpu"))
    newest = torch.full((2, 3, 4, 4), 90.0), logits_of([[1, 1], [1, 1]], [[0, 0], [0, 0]])
    keep(again, *newest)
    bank = uneven(1.0, uint8)
    keep(bank, *newest)
    drawn = []
    for one in (bank, again):
        torch.manual_seed(3)
        drawn.append(draw(one, 64))
    assert all(torch.equal(a, b) for a, b in zip(*drawn, strict=True))


def test_a_restored_bank_keeps_the_shares_that_it_had_and_none_that_it_does_not_need():
    """In bf16 both classes are the same number, and the shares are those of the logits as they were."""
    bank, again = (Replay(2, torch.bfloat16, False, balance=1.0) for _ in range(2))
    logits = torch.ones(2, 3, 2, 2)
    logits[:, 1] += 1e-3
    keep(bank, torch.zeros(2, 3, 4, 4), logits)
    again.restore(bank.state(), torch.device("cpu"))
    assert again.shares[0].tolist() == bank.shares[0].tolist() == [[0.0, 1.0, 0.0]] * 2
    plain = Replay(2, torch.bfloat16, False)
    plain.restore(bank.state(), torch.device("cpu"))
    assert not plain.shares and "shares" not in plain.state()


def test_the_version_counts_what_may_have_changed_it():
    bank = filled(batches=0)
    versions = [bank.version]
    for value in range(2):
        keep(bank, *batch(float(value)))
        versions.append(bank.version)
    bank.draw(2)
    bank.restore(bank.state(), torch.device("cpu"))
    assert [*versions, bank.version] == [0, 1, 2, 3]
