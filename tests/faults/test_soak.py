"""A long run holds no more in its last tenth than in its second."""

from __future__ import annotations

from statistics import median

import pytest

from segkd.training import checkpoint
from segkd.training.log import read_lines
from tests.faults import toy

STEPS = 20_000


@pytest.mark.faults
@pytest.mark.row("P1", 1)
def test_soak(row, forks, tmp_path, request):
    steps = max(1000, int(STEPS * request.config.getoption("fault_share")))
    for _ in row:
        child = forks.context.Process(target=toy.soak, args=(tmp_path, steps))
        child.start()
        child.join()
        assert child.exitcode == 0
        meter = [tuple(map(int, line.split())) for line in (tmp_path / "meter").read_text().splitlines()]
        assert len(meter) == 100
        pages, descriptors, objects = zip(*meter, strict=True)
        grown = {name: median(x[90:]) / median(x[10:20]) - 1 for name, x in (("memory", pages), ("objects", objects))}
        print({name: f"{share:+.2%}" for name, share in grown.items()})
        assert all(share < 0.01 for share in grown.values()), grown
        assert len(set(descriptors)) == 1
        saved = {path.name for path in checkpoint.listed(tmp_path / "checkpoints")}
        left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
        assert left == {"meter", "metrics.jsonl"} | saved and len(saved) == 2
        lines = read_lines(tmp_path / "metrics.jsonl")
        assert [line["step"] for line in lines if "kd" in line] == list(range(10, steps + 1, 10))
