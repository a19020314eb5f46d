"""Files of tensors that are written; what is read from anybody is tried in tests/faults/test_weights.py."""

import argparse
import collections
import pathlib
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from segkd.models.tensors import LeftOut, load_pickled, to_safetensors


def test_a_file_is_the_same_each_time_and_says_what_it_was_given(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).view(2, 3).t(), "a": torch.ones(2, dtype=torch.float16)}
    files = set()
    for _ in range(12):  # each thread orders its maps by chance of its own
        with ThreadPoolExecutor(1) as thread:
            files.add(thread.submit(to_safetensors, tensors, format="pt", recipe="ä b").result())
    assert len(files) == 1
    (tmp_path / "x.safetensors").write_bytes(files.pop())
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "recipe": "ä b"}
        assert all(torch.equal(file.get_tensor(name), value) for name, value in tensors.items())


def test_what_training_scripts_write_beside_weights_is_read_without_being_made(tmp_path: Path, monkeypatch) -> None:
    easy = type("EasyDict", (dict,), {"__module__": "easydict"})
    monkeypatch.setitem(sys.modules, "easydict", types.SimpleNamespace(EasyDict=easy))
    history = collections.defaultdict(list, {"miou": [0.5]})
    left = {"args": argparse.Namespace(lr=0.1, out=pathlib.Path("out")), "best": np.float64(0.5), "iou": np.arange(5.0)}
    torch.save({"model": {"a": torch.ones(2)}, "cfg": easy(lr=0.1), "history": history, **left}, tmp_path / "x.pth")
    monkeypatch.delitem(sys.modules, "easydict")
    found = load_pickled(tmp_path / "x.pth")
    assert torch.equal(found["model"]["a"], torch.ones(2))
    assert all(type(found[key]) is LeftOut and not vars(found[key]) for key in left)
    assert found["cfg"] == {"lr": 0.1} and found["history"] == {"miou": [0.5]} and "easydict" not in sys.modules
