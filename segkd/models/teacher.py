"""The teacher: any segmentation network, frozen, with its normalisation, size rule and class names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from segkd.foundation.errors import TeacherError, one_line
from segkd.foundation.memory import out_of_memory
from segkd.foundation.tensors import load_pickled, load_safetensors
from segkd.models.adapters import Adapter


class Teacher(Adapter):
    """A frozen network in eval mode that maps normalised images (N,3,H,W) to logits (N,C,H,W).

    Its input is RGB in [0,1] less `mean`, divided by `std`. It stays in eval mode whatever `train()` says, and its
    parameters ask for no gradient; gradients still flow through it to the images.
    """

    def __init__(
        self,
        network: nn.Module,
        names: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        stride: int | None = None,
    ) -> None:
        super().__init__(network, classes=len(names), stride=stride)
        self.names = tuple(names)
        self.mean, self.std = tuple(mean), tuple(std)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        """Keep eval mode: batch statistics in the teacher would change what it teaches."""
        return super().train(False)


def input_range(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Lowest and highest value (3,) that an image in [0,1] takes after normalisation: the range of a synthesiser."""
    mean_, std_ = torch.tensor(mean), torch.tensor(std)
    return -mean_ / std_, (1 - mean_) / std_


def read_state(path: Path, made_by: str | None = None, trust_pickle: bool = False) -> dict[str, Tensor]:
    """The tensors of a weights file: safetensors, or a torch checkpoint without pickled code.

    Args:
        made_by: the recipe that makes this file, for the error message of a missing one.
        trust_pickle: also load files that need pickle; it runs whatever code they hold.

    Raises:
        TeacherError: no such file, not readable, or it needs pickle.
    """
    if not os.path.isfile(path):
        hint = f"make it with: segkd teach {made_by}" if made_by else "check the path in the recipe"
        raise TeacherError(f"{path}: no such weights file; {hint}")
    if path.suffix == ".safetensors":
        try:
            return load_safetensors(path)
        except (ValueError, OSError) as error:
            reason = one_line(error)
            raise TeacherError(f"{path}: not a valid safetensors file ({reason}); fetch or train it again") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=False) if trust_pickle else load_pickled(path)
    except Exception as error:  # with trust, torch raises many kinds for a damaged file
        if out_of_memory(error):
            raise
        raise TeacherError(
            f"{path}: not loadable without pickle ({one_line(error)});"
            " save a state_dict as .safetensors, or pass --trust-pickle if you trust its source"
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise TeacherError(f"{path}: holds no state_dict of tensors; save model.state_dict()")
    return {key.removeprefix("module."): value for key, value in state.items()}
