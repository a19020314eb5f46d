"""Two methods, a distil and a teach recipe, and a writer of recipe files."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from segkd.foundation.errors import RecipeError
from segkd.recipe import Terms, load, method_terms
from segkd.recipe.strict_yaml import dump

OPTIONS = {name: terms.options for name, terms in method_terms().items()}
METHODS = {
    "ddad": Terms(
        ("kd",), ("adv", "bn", "balance"), {"kd": 1.0, "adv": 1.0, "bn": 1.0, "balance": 0.0}, options=OPTIONS["ddad"]
    ),
    "dfad": Terms(("kd",), ("adv",), {"kd": 1.0, "adv": 1.0}, options=OPTIONS["dfad"]),
}
DISTILL: dict[str, Any] = {
    "method": "ddad",
    "variant": "segkd",
    "weights": {"kd": 1.0, "adv": 0.5, "bn": 1.0},
    "options": {"discrepancy": "l1", "temperature": 2.0, "log": True},
    "game": {"student_moves": 5, "synth_moves": 1},
    "teacher": {"arch": "Unet", "encoder": "resnet18", "classes": "camvid", "weights": "/t.safetensors",
                "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "options": {"decoder_channels": [64, 32]}},
    "student": {"arch": "Unet", "encoder": "mobilenet_v2", "weights": "none", "ema": 0.99,
                "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0005},
                "schedule": {"name": "cosine", "power": 0.9, "warmup": 10}},
    "synth": {"kind": "dcgan", "latent": 256, "size": [128, 160], "sizes": [[96, 96]], "augment": ["flip"],
              "replay": 10, "optimizer": {"name": "adam", "lr": 0.001, "betas": [0.5, 0.999], "clip": 5.0}},
    "data": {"name": "camvid", "root": "data/camvid", "watch": None, "final": "test", "size": "protocol"},
    "run": {"steps": 100, "batch": 8, "seed": 1, "save_every": 50, "keep": 2, "headline": "ema",
            "precision": "bf16", "threads": 2, "device": "cpu"},
}  # fmt: skip
TEACH: dict[str, Any] = {
    "model": {"arch": "Unet", "encoder": "resnet18", "classes": 11},
    "train": {"loss": "focal", "crop": [128, 128], "scale": [0.5, 2.0], "flip": True, "colour": 0.2,
              "optimizer": {"name": "adamw", "lr": 0.0001}},
    "data": {"name": "scenes"},
    "run": {"budget": "25m", "batch": 8},
}  # fmt: skip


@pytest.fixture
def methods() -> dict[str, Terms]:
    return deepcopy(METHODS)


@pytest.fixture
def distill() -> dict[str, Any]:
    return deepcopy(DISTILL)


@pytest.fixture
def teach() -> dict[str, Any]:
    return deepcopy(TEACH)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(here: Path) -> Callable[..., Path]:
    """Writes a recipe (text or data) below the working directory, and returns its path."""

    def writer(content: str | dict[str, Any], name: str = "recipe.yaml") -> Path:
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else dump(content))
        return path

    return writer


@pytest.fixture
def errors_of(write: Callable[..., Path]) -> Callable[..., list[str]]:
    """The error lines of a recipe that must be refused; each is one printable line."""

    def reader(content: str | dict[str, Any], *overrides: str, kind: Any = None) -> list[str]:
        path = write(content)
        with pytest.raises(RecipeError) as caught:
            load(path, overrides, kind, METHODS)
        assert caught.value.exit_code == 2
        assert caught.value.errors
        assert all(line.isprintable() and len(line) < 600 for line in caught.value.errors)
        return caught.value.errors

    return reader
