"""Which precision a processor is quicker in is measured, not read off its flags."""

import pytest
import torch

from segkd.machine import device, precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def unknown(monkeypatch, tmp_path):
    """Every test measures anew, and leaves nothing of it to others."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    measured = precision.measured
    measured.cache_clear()
    yield
    measured.cache_clear()


@pytest.mark.parametrize(("bf16", "fp32", "chosen"), [(1.0, 2.0, True), (2.0, 1.0, False)])
def test_the_quicker_precision_is_chosen(monkeypatch, bf16, fp32, chosen):
    seconds = {torch.bfloat16: bf16, torch.float32: fp32}
    monkeypatch.setattr(precision, "seconds_of", lambda maps, kernel: seconds[maps.dtype])
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert precision.bf16_of("auto", CPU) is chosen
    assert precision.bf16_of("bf16", CPU) and not precision.bf16_of("fp32", CPU)


@pytest.mark.parametrize(("bf16", "fp32"), [(1.0, 2.0), (2.0, 1.0)])
def test_who_asks_for_the_slower_precision_is_told(monkeypatch, capsys, bf16, fp32):
    monkeypatch.setattr(
        precision, "seconds_of", lambda maps, kernel: {torch.bfloat16: bf16, torch.float32: fp32}[maps.dtype]
    )
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    precision.bf16_of("auto", CPU), precision.bf16_of("fp32", CPU)
    assert not capsys.readouterr().err
    precision.bf16_of("bf16", CPU, "--precision")
    slower = "warning: --precision: this processor computes bf16 more slowly than fp32; set --precision=auto\n"
    assert capsys.readouterr().err == (slower if bf16 > fp32 else "")


def test_a_processor_without_bf16_is_not_asked(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(precision, "seconds_of", lambda *_: pytest.fail("measured"))
    assert not precision.bf16_of("auto", CPU)


def test_measuring_draws_no_random_numbers():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    precision.quicker_in_bf16()
    assert torch.equal(torch.rand(3), expected)


def test_the_least_of_the_trials_counts_after_one_that_warms_up(monkeypatch):
    """By a clock that only convolutions turn, each by what it is told to take."""
    maps, kernel = torch.randn(2, 3, 4, 4), torch.randn(5, 3, 3, 3)
    now, taken, true = [100.0], [], torch.conv2d

    def conv2d(*given, **options):
        now[0] += taken.pop(0)
        return true(*given, **options)

    monkeypatch.setattr(torch, "conv2d", conv2d)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: now[0])
    taken += [1, 7, 5, 6]
    assert precision.seconds_of(maps, kernel, trials=3) == 5
    taken += [4]
    assert device.seconds_of(lambda: torch.conv2d(maps, kernel), CPU) == 4


@pytest.fixture
def measuring(monkeypatch):
    """A machine on which the next measurement says `answers[0]`."""
    answers: list[bool] = []
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(precision, "measured", lambda: answers.pop(0))
    return answers


@pytest.mark.parametrize("first", [True, False])
def test_what_was_measured_first_holds_for_this_machine(measuring, monkeypatch, tmp_path, first):
    measuring += [first, not first]
    assert [precision.quicker_in_bf16() for _ in range(3)] == [first] * 3
    monkeypatch.setattr(precision, "machine", lambda: "another processor, 2 cores")
    assert precision.quicker_in_bf16() is not first
    assert {path.read_text() for path in (tmp_path / "cache" / "segkd").iterdir()} == {"fp32", "bf16"}


def test_of_two_processes_that_measure_at_once_both_take_what_the_first_has_found(measuring, monkeypatch, tmp_path):
    def meanwhile():
        monkeypatch.setattr(precision, "measured", lambda: True)
        assert precision.quicker_in_bf16() is True
        return False

    monkeypatch.setattr(precision, "measured", meanwhile)
    assert precision.quicker_in_bf16() is True
    assert len(list((tmp_path / "cache" / "segkd").iterdir())) == 1


@pytest.mark.parametrize("fault", ["a file in its place", "damaged", "no home"])
def test_without_a_cache_it_is_measured_each_time(measuring, monkeypatch, tmp_path, fault):
    measuring += [True, False, True]
    if fault == "a file in its place":
        (tmp_path / "cache").write_text("precious")
    elif fault == "damaged":
        assert precision.quicker_in_bf16() is True
        next((tmp_path / "cache" / "segkd").iterdir()).write_text("")
        measuring.insert(0, True)
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(precision.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert [precision.quicker_in_bf16() for _ in range(3)] == [True, False, True]


def test_a_torch_without_onednn_computes_in_fp32(monkeypatch):
    """As Apple's: `precision: auto` must not ask it for what it does not have."""
    from types import SimpleNamespace

    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert not precision.bf16_of("auto", CPU) and precision.bf16_of("bf16", CPU)
    assert not precision.bf16_of("auto", torch.device("mps"))
