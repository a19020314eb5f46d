"""Files of tensors that are written; what is read from anybody is tried in tests/faults/test_weights.py."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import safe_open

from segkd.models.tensors import to_safetensors


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
