"""segkd: data-free distillation of semantic segmentation networks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from segkd.foundation.errors import SegkdError

if TYPE_CHECKING:
    from segkd.api import Progress, compress, distill, evaluate, load_student, teach, visualize

__version__ = "0.2.0"
__all__ = ["Progress", "SegkdError", "compress", "distill", "evaluate", "load_student", "teach", "visualize"]


def __getattr__(name: str) -> Any:
    """The names of `__all__`, imported when first asked for: `import segkd` alone loads no torch."""
    if name not in __all__:
        raise AttributeError(f"module 'segkd' has no attribute {name!r}")
    return getattr(importlib.import_module("segkd.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
