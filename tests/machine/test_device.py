"""A machine in words."""

import os

import pytest

from segkd.machine import device

CPUINFO = """processor\t: {0}
model name\t: AMD EPYC
flags\t\t: fpu sse {1}

"""


@pytest.mark.parametrize(
    ("flags", "units"),
    [
        ("", None),
        ("avx avx2", "AVX2"),
        ("avx2 avx512f avx512dq", "AVX-512"),
        ("avx2 avx512f avx512_bf16", "AVX-512 bf16"),
        ("avx2 avx512f avx512_bf16 amx_tile amx_bf16", "AMX"),
    ],
)
def test_processors_of_one_name_are_told_apart_by_their_vector_units(tmp_path, monkeypatch, flags, units):
    (tmp_path / "cpuinfo").write_text("".join(CPUINFO.format(number, flags) for number in range(2)))
    monkeypatch.setattr(device, "Path", lambda path: tmp_path / "cpuinfo")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: False)
    assert device.vector_units() == units
    assert device.machine() == f"AMD EPYC{f' ({units})' if units else ''}, 2 cores"


def test_one_core_is_one(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    assert ", 1 core" in device.machine() and "cores" not in device.machine()


def test_a_system_without_such_a_file_has_a_machine_too(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "Path", lambda path: tmp_path / "missing")
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: False)
    assert device.vector_units() is None and device.machine().startswith("unknown CPU, ")
