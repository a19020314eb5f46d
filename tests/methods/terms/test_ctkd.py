"""The two parts of CTKD, each by itself and weighed."""

import pytest
import torch

from segkd.foundation.errors import UsageError
from segkd.losses.features import attention_distance
from segkd.methods.base import View
from segkd.methods.terms.ctkd import CTKD


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


X, S, F_S, F_T = drawn(2, 3, 8, 8), drawn(2, 5, 4, 4), [drawn(2, 6, 4, 4)], [drawn(2, 9, 4, 4)]
AVERAGE, FEATURES = {"x": X, "s": S}, {"s_features": F_S, "t_features": F_T}


def logits(x):
    return x[:, :1, :4, :4] * torch.ones(1, 5, 1, 1)


def value(values, network, **options):
    return CTKD(options)(View(values, logits, logits, network)).item()


def test_the_parts_add_up_by_their_shares():
    gap, attention = (S - logits(X)).square().mean().item(), attention_distance(F_S, F_T).item()
    assert value({**AVERAGE, **FEATURES}, logits) == pytest.approx(gap + attention)
    assert value({**AVERAGE, **FEATURES}, logits, average=0.5, attention=3) == pytest.approx(gap / 2 + 3 * attention)


def test_a_part_without_a_share_is_not_even_looked_at():
    assert value(AVERAGE, logits, attention=0) > 0  # there are no features
    assert value(FEATURES, None, average=0.0) > 0  # there is no average


def test_nothing_to_ask_is_told():
    with pytest.raises(UsageError, match="terms.ctkd: average and attention are both 0; raise one, or leave"):
        CTKD({"average": 0.0, "attention": 0})


def test_the_plan_of_a_move_follows_the_shares(tiny):
    def needs(*overrides):
        return tiny.game("noise", "terms.ctkd.weight=1", *overrides).needs["student"]

    features = {"s_features", "t_features"}
    assert {"average", *features} <= needs()
    assert not features & needs("terms.ctkd.attention=0") and "average" not in needs("terms.ctkd.average=0")
