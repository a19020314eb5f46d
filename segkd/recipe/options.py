"""Further arguments of an architecture, as a recipe gives them: scalars and lists, and none that no network can be told."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError

_REFUSED = {
    "activation": "leave it out: segkd compares logits, and the weights are the same without it",
    "aux_params": "leave it out: a head that names whole images has no part in segmentation",
    "classes": "set `classes` of the block itself; a student has its teacher's",
    "encoder_name": "set `encoder` of the block itself",
    "encoder_weights": "leave it out: nothing is downloaded; `weights` of the block itself names a file",
    "checkpoint_path": "leave it out: `weights` of the block itself names a file",
    "pretrained": "leave it out: nothing is downloaded; `weights` of the block itself names a file",
}
NOT_OPTIONS = (*_REFUSED, "in_channels")
"""Arguments of networks that other keys of a recipe stand for, or none."""
_IDLE = {"activation": "identity", "pretrained": False}
"""Values that change nothing."""


_SCALARS = (bool, int, float, str, type(None))


def scalar(value: Any) -> Any:
    """The value; ValueError unless it is a scalar."""
    if type(value) in _SCALARS:
        return value
    raise ValueError("expected a scalar")


def scalar_or_list(value: Any) -> Any:
    """The value; ValueError unless it is a scalar or a list of scalars."""
    if type(value) in _SCALARS or (isinstance(value, list) and all(type(item) in _SCALARS for item in value)):
        return value
    raise ValueError("expected a scalar or a list of scalars")


def can_be_said(value: Any) -> bool:
    """Whether an option can have a value."""
    try:
        scalar_or_list(value)
    except ValueError:
        return False
    return True


def _possible(options: Any) -> Any:
    """The options, unless some are such that no network could be used: an error at the key of each."""
    if not isinstance(options, dict):
        return options
    refuse({
        (key,): (why, options[key]) for key, why in _REFUSED.items()
        if options.get(key) is not None and not (key in _IDLE and options[key] == _IDLE[key])
    })  # fmt: skip
    return options


Wrong = dict[tuple[str, ...], tuple[str, Any]]
"""Keys within a block, why each cannot be, and what it is."""


def refuse(wrong: Wrong) -> None:
    """An error at each key."""
    if wrong:
        raise ValidationError.from_exception_data("recipe", [
            {"type": PydanticCustomError("option", "{why}", {"why": why}), "loc": key, "input": given}
            for key, (why, given) in wrong.items()
        ])  # fmt: skip


Options = Annotated[dict[str, Annotated[Any, BeforeValidator(scalar_or_list)]], BeforeValidator(_possible)]
