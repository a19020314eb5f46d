"""Which precision a processor is quicker in is measured, not read off its flags."""

import pytest
import torch

from segkd import build
from segkd.foundation import machine

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def unknown():
    """Every test measures anew, and leaves nothing of it to others."""
    machine.quicker_in_bf16.cache_clear()
    yield
    machine.quicker_in_bf16.cache_clear()


@pytest.mark.parametrize(("bf16", "fp32", "chosen"), [(1.0, 2.0, True), (2.0, 1.0, False)])
def test_the_quicker_precision_is_chosen(monkeypatch, bf16, fp32, chosen):
    seconds = {torch.bfloat16: bf16, torch.float32: fp32}
    monkeypatch.setattr(machine, "_seconds", lambda maps, kernel: seconds[maps.dtype])
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert build.bf16_of("auto", CPU) is chosen
    assert build.bf16_of("bf16", CPU) and not build.bf16_of("fp32", CPU)


def test_a_processor_without_bf16_is_not_asked(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(machine, "_seconds", lambda *_: pytest.fail("measured"))
    assert not build.bf16_of("auto", CPU)


def test_measuring_draws_no_random_numbers():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    machine.quicker_in_bf16()
    assert torch.equal(torch.rand(3), expected)


def test_more_work_takes_longer():
    maps, kernel = torch.randn(2, 32, 16, 16), torch.randn(32, 32, 3, 3)
    assert 0 < machine._seconds(maps, kernel) < machine._seconds(maps.repeat(8, 1, 4, 4), kernel)
