"""Bytes of tensors are counted as they come and go, and the counting changes nothing."""

import torch
from torch import nn

from segkd.machine.allocations import Allocations

KB = 1024
SIZE = 256  # numbers in a tensor of 1 KB


def test_what_is_made_is_counted_until_it_is_gone():
    with Allocations() as seen:
        one = torch.ones(SIZE)
        two = one + 1
        assert (seen.now, seen.peak) == (2 * KB, 2 * KB)
        del one
        view = two.view(16, 16)[0]
        two.mul_(2)
        assert (seen.now, seen.peak) == (KB, 2 * KB)
        del two
        assert seen.now == KB
        del view
        assert seen.now == 0
        for _ in range(5):
            torch.ones(4 * SIZE)
    assert (seen.now, seen.peak) == (0, 4 * KB)


def test_what_was_there_before_is_not():
    before = torch.ones(SIZE)
    with Allocations() as seen:
        before.add_(1)
        same = before.view(16, 16)
        assert (seen.now, seen.peak) == (0, 0)
    assert same.sum() == 2 * SIZE


def test_what_autograd_keeps_counts_and_gradients_are_the_same():
    torch.manual_seed(0)
    network, x = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(8))), torch.randn(2, 4, 8, 8)

    def gradients() -> list[torch.Tensor]:
        return list(torch.autograd.grad(network(x).square().sum(), list(network.parameters())))

    plain = gradients()
    with Allocations() as seen:
        counted = gradients()
    assert all(torch.equal(a, b) for a, b in zip(plain, counted, strict=True))
    kept = 8 * x.untyped_storage().nbytes()
    assert kept <= seen.peak < 2 * kept
    assert seen.now == sum(g.untyped_storage().nbytes() for g in counted)
