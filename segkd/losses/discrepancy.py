"""How far student and teacher are apart: pixel by pixel, or class by class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from segkd.machine.precision import upcast

KINDS = ("l1", "kl", "l1+kl")
STEEPEST = 1e3
"""The gap of two logits from which on `l2` rises in a straight line: squares of larger ones may not be finite."""


def l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of logits (N,C,H,W), over N, C, H and W. Source: arXiv:1912.11006."""
    return (upcast(student) - upcast(teacher)).abs().mean()


def l2(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of logits (N,C,H,W), over N, C, H and W. Source: arXiv:1312.6184."""
    return 2 * huber_loss(upcast(student), upcast(teacher), delta=STEEPEST)


def kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """tau^2 KL(teacher || student) of logits (N,C,H,W) over C, in nats, averaged over N, H and W.

    Source: arXiv:1503.02531, at every pixel.
    """
    log_q = torch.log_softmax(upcast(student) / temperature, dim=1)
    log_p = torch.log_softmax(upcast(teacher) / temperature, dim=1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()


def agreed_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of logits (N,C,H,W) over C, in nats, where both give a pixel the same class, and else 0.

    Averaged over N, H and W, all of them. Whoever raises it asks for pixels that are hard and yet not lost: where they
    disagree already, nothing pulls. Source: arXiv:2105.08584 (L_dec, with the sign of a loss of the generator).
    """
    student, teacher = upcast(student), upcast(teacher)
    log_q, log_p = torch.log_softmax(student, dim=1), torch.log_softmax(teacher, dim=1)
    agree = student.argmax(1) == teacher.argmax(1)
    return ((log_p.exp() * (log_p - log_q)).sum(1) * agree).mean()


def channel_wise(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """tau^2 KL(teacher || student) of logits (N,C,H,W) over the H*W places of a class, in nats, averaged over N and C.

    Each class says where in the image it is most at home, a rare one as loudly as a frequent one; a shift of all its
    logits counts for nothing. Source: arXiv:2011.13256.
    """
    log_q = torch.log_softmax(upcast(student).flatten(2) / temperature, dim=2)
    log_p = torch.log_softmax(upcast(teacher).flatten(2) / temperature, dim=2)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=2).mean()


def jensen_shannon(student: Tensor, teacher: Tensor, temperature: float = 3.0) -> Tensor:
    """Jensen-Shannon divergence of logits (N,C,H,W) over C, in nats, averaged over N, H and W: how far they disagree.

    Of their softmax at `temperature`, cut to [0.01, 0.99] as in the authors' code: so it is 0 to log 2 of two classes, and
    more or less than that of many. Source: arXiv:1912.08795 (R_compete), at every pixel.
    """
    p, q = (torch.softmax(upcast(logits) / temperature, dim=1).clamp(0.01, 0.99) for logits in (teacher, student))
    middle = torch.log((p + q) / 2)
    return ((p * (p.log() - middle) + q * (q.log() - middle)) / 2).sum(dim=1).mean()


def discrepancy(student: Tensor, teacher: Tensor, kind: str = "l1", temperature: float = 1.0) -> Tensor:
    """`l1`, `kl` or their sum of logits (N,C,H,W): a scalar >= 0, and 0 for equal logits."""
    if kind not in KINDS:
        raise ValueError(f"discrepancy {kind!r}: expected one of {', '.join(KINDS)}")
    terms = [l1(student, teacher)] if "l1" in kind else []
    if "kl" in kind:
        terms.append(kl(student, teacher, temperature))
    return sum(terms[1:], terms[0])
