"""Any network that somebody brings himself (`--teacher-file`): nothing is known of it but what `Family` supposes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from segkd.models.family import Builder, Family

NAMES = ("module",)
"""What a recipe calls it."""
ONLY_TEACHERS = True


class Modules(Family):
    """Networks without a family, which a recipe can only name."""

    def architectures(self) -> Mapping[str, Builder]:
        return dict.fromkeys(NAMES, nn.Module)

    def build(self, kind: Builder, encoder: str | None, classes: int, options: Mapping[str, object]) -> nn.Module:
        raise ValueError("its code comes with --teacher-file FILE.py:FUNCTION")

    def owns(self, network: nn.Module) -> bool:
        return False


FAMILY = Modules()
