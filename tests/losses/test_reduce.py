"""Means over two processes, of which the other one's numbers are known; tests/machine/test_ranks.py has real ones."""

import pytest
import torch
import torch.distributed as dist

from segkd.losses.reduce import mean_over_ranks, moments_over_ranks
from segkd.machine import ranks


@pytest.fixture
def other(monkeypatch):
    """What the other process brings to each exchange: put it here, and take from here what this one has sent."""
    brings, sent = [], []

    def all_reduce(tensor):
        assert tensor.is_contiguous()
        sent.append(tensor.clone())
        tensor += brings.pop(0)

    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    return brings, sent


def test_one_process_has_its_own_mean(monkeypatch):
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: pytest.fail("nobody is there to ask"))
    value, moments = torch.randn(3), [(torch.randn(2), torch.rand(2))]
    assert mean_over_ranks(value) is value and moments_over_ranks(moments, [torch.zeros(2)]) is moments


def test_the_mean_and_the_mean_of_its_gradients(other):
    brings, sent = other
    brings += [torch.tensor([5.0, 7.0]), torch.tensor([10.0, 100.0])]
    value = torch.tensor([1.0, 2.0], requires_grad=True)
    before = value.detach().clone()
    mean = mean_over_ranks(value)
    assert torch.equal(mean, torch.tensor([3.0, 4.5])) and torch.equal(value.detach(), before)
    slope = torch.tensor([2.0, 4.0])
    assert torch.equal(torch.autograd.grad(mean, value, slope)[0], torch.tensor([6.0, 52.0]))
    assert torch.equal(sent[1], slope) and not brings


def test_maps_that_lie_otherwise_in_memory_are_sent_in_one_order(other):
    brings, _ = other
    value = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    brings.append(torch.ones(2, 3, 4, 5))
    torch.testing.assert_close(mean_over_ranks(value), (value + 1) / 2)


def test_a_gradient_of_the_gradient_is_refused(other):
    brings, _ = other
    brings += [torch.zeros(1)] * 2
    value = torch.ones(1, requires_grad=True)
    (slope,) = torch.autograd.grad(mean_over_ranks(value).square().sum(), value, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_moments_are_those_of_both_batches_in_one_exchange(other):
    brings, sent = other
    torch.manual_seed(0)
    near = [torch.tensor([1e4, -3.0]), torch.tensor([0.5, 2.0, 1.0])]
    ours, theirs = (
        [base.double() + torch.randn(50, len(base), dtype=torch.float64) for base in near] for _ in range(2)
    )
    own = [
        torch.cat([x.mean(0), x.var(0, correction=0) + (x.mean(0) - base).square()])
        for x, base in zip(theirs, near, strict=True)
    ]
    brings.append(torch.cat(own))
    moments = [(x.mean(0), x.var(0, correction=0)) for x in ours]
    found = moments_over_ranks(moments, [base.double() for base in near])
    assert len(sent) == 1 and len(found) == 2
    for (mean, var), mine, other_ones in zip(found, ours, theirs, strict=True):
        whole = torch.cat([mine, other_ones])
        torch.testing.assert_close(mean, whole.mean(0), rtol=0, atol=1e-9)
        torch.testing.assert_close(var, whole.var(0, correction=0), rtol=0, atol=1e-9)


def test_moments_keep_their_digits_far_from_zero(other):
    """In fp32 the squares of ten thousand have no room for a variance of one; those of differences do."""
    brings, _ = other
    torch.manual_seed(0)
    near, x = torch.tensor([1e4]), 1e4 + torch.randn(200, 1)
    brings.append(torch.cat([x.mean(0), x.var(0, correction=0) + (x.mean(0) - near).square()]))
    ((_, var),) = moments_over_ranks([(x.mean(0), x.var(0, correction=0))], [near])
    torch.testing.assert_close(var, x.var(0, correction=0), rtol=1e-3, atol=0)
