"""The kinds of values that the keys of a recipe take, and what each of them refuses."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from segkd.foundation.channels import MOST_CHANNELS
from segkd.recipe import datasets, messages, networks

MOST_CLASSES = 254
"""As many as `data.classes.Classes` holds: masks are bytes, and one id is kept for void."""

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALE_255 = "these are on the scale 0..255, segkd wants 0..1: divide mean and std by 255"

MOST_NAME, MOST_PATH = 230, 3800
"""Bytes of a file's name and of a whole path; file systems take 255 and 4096, and temporary files have longer ones."""

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _classes(value: Any) -> Any:
    if isinstance(value, str):
        if value in datasets.class_lists():
            return value
    elif isinstance(value, list | tuple):
        names = [name for name in value if isinstance(name, str) and name]
        if 2 <= len(value) <= MOST_CLASSES and len(names) == len(value) == len(set(names)):
            return tuple(value)
    elif type(value) is int and 2 <= value <= MOST_CLASSES:
        return value
    if (value == 1 and value is not True) or (isinstance(value, list | tuple) and len(value) == 1):
        raise ValueError("a network of one logit (sigmoid) has two classes: name both, as [background, lesion]")
    named = ", ".join(datasets.class_lists())
    raise ValueError(f"expected one of {named}, a list of 2 to {MOST_CLASSES} different names, or their number")


def _student_classes(value: Any) -> Any:
    """A mapping as a list of its entries, in order: as lists two maps differ where only their order does."""
    entries = [{name: made_of} for name, made_of in value.items()] if isinstance(value, dict) else value
    if not isinstance(entries, list | tuple) or not all(isinstance(one, dict) and len(one) == 1 for one in entries):
        raise ValueError("expected a mapping from each class of the student to one or a list of the teacher's")
    found: dict[str, tuple[str, ...]] = {}
    used: dict[str, str] = {}
    for name, made_of in (item for one in entries for item in one.items()):
        members = (made_of,) if isinstance(made_of, str) else made_of
        if not isinstance(members, list | tuple) or not members or not all(type(one) is str for one in members):
            raise ValueError(f"{messages.shown(name)}: expected a class of the teacher, or a list of them")
        if name in found or name == "":
            raise ValueError(f"{messages.shown(name)}: each class of the student needs a name of its own")
        found[name] = tuple(members)
        for one in members:
            if one in used:
                raise ValueError(f"{messages.shown(one)} of the teacher goes into {used[one]} and into {name}")
            used[one] = name
    if len(found) < 2:
        raise ValueError("a student tells two classes apart, or more")
    return tuple({name: members} for name, members in found.items())


def wrong_classes(student: Iterable[Mapping[str, Sequence[str]]], teacher: Sequence[str]) -> str | None:
    """What speaks against a student's classes, each with those of the teacher that it is made of, where the teacher's are these."""
    for name, members in (item for entry in student for item in entry.items()):
        for one in members:
            if one not in teacher:
                near, more = messages.nearest(one, teacher), ", ..." if len(teacher) > 30 else ""
                hint = f", did you mean {near!r}?" if near else f" (known: {', '.join(teacher[:30])}{more})"
                return f"unknown class of the teacher {messages.shown(one)}{hint}"
        if name in teacher and name not in members:
            return f"{messages.shown(name)} is a class of the teacher's, and would be made of others: call it otherwise"
    return None


def _data_set(value: Any) -> Any:
    known = datasets.data_sets()
    if isinstance(value, str) and value not in known:
        raise ValueError(f"unknown value {messages.shown(value)}{messages.suggestion(value, known)}")
    if not isinstance(value, str):
        raise ValueError(f"expected one of {', '.join(known)}")
    return value


def seconds_of(value: Any) -> float | None:
    """Seconds from a time such as `"25m"`, `"1500s"`, `"2h"` or `"1d"`; None where it is none."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([smhd])", value) if isinstance(value, str) else None
    return float(match[1]) * _UNIT_SECONDS[match[2]] if match else None


def _rhythm(value: Any) -> Any:
    """A number of steps, or a time as it was written: it becomes steps only when the run knows how long one takes."""
    if (type(value) is int and 1 <= value <= 10**9) or 0 < (seconds_of(value) or 0) <= 1e9:
        return value
    raise ValueError("expected a number of steps, or a time such as 3m, more than 0")


def _budget(value: Any) -> Any:
    """Seconds from a time or a plain number."""
    seconds = seconds_of(value)
    value = value if seconds is None else seconds
    if value is not None and (type(value) not in (int, float) or not 0 < value <= 1e9):
        raise ValueError("expected a time such as 1500s, 25m or 2h, or a number of seconds, more than 0")
    return value


def without_file(value: Any) -> Any:
    """null for `none`."""
    return None if value == "none" else value


def _place(path: str) -> str:
    """A file or folder that is to be written: its name, and names beside and in it, fit into a file system."""
    longest = max(len(os.fsencode(part)) for part in path.split("/"))
    if longest > MOST_NAME:
        raise ValueError(f"a name of {longest} bytes: at most {MOST_NAME}")
    if len(os.fsencode(os.path.abspath(path))) > MOST_PATH:
        raise ValueError(f"a path of more than {MOST_PATH} bytes")
    return path


def _architecture(name: str) -> str:
    if wrong := networks.unknown_architecture(name):
        raise ValueError(wrong)
    return name


def without_nulls(value: Any) -> Any:
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


def _with_weights(value: Any) -> Any:
    """Further terms: a number alone is a weight."""
    value = without_nulls(value)
    return (
        {key: item if isinstance(item, dict) else {"weight": item} for key, item in value.items()}
        if isinstance(value, dict)
        else value
    )


Text = Annotated[str, Field(min_length=1, max_length=4096)]
Place = Annotated[Text, AfterValidator(_place)]
Architecture = Annotated[Text, AfterValidator(_architecture)]
Count = Annotated[int, Field(ge=1, le=10**9)]
CountOrZero = Annotated[int, Field(ge=0, le=10**9)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Pixels = Annotated[int, Field(ge=1, le=8192)]
# YAML knows lists only; everything inside a tuple stays strict.
Size = Annotated[tuple[Pixels, Pixels], Field(strict=False)]
Betas = Annotated[tuple[Decay, Decay], Field(strict=False)]
Names = Annotated[tuple[Text, ...], Field(strict=False)]
Scale = Annotated[float, Field(ge=0.05, le=20)]
Range = Annotated[tuple[Scale, Scale], Field(strict=False)]
Channels = Annotated[tuple[float, ...], Field(strict=False, min_length=1, max_length=MOST_CHANNELS)]
Deviation = Annotated[float, Field(ge=0.001)]
Spread = Annotated[tuple[Deviation, ...], Field(strict=False, min_length=1, max_length=MOST_CHANNELS)]
ClassNames = Annotated[
    str | tuple[str, ...] | int,
    BeforeValidator(_classes),
    datasets.Schema(lambda: {"words": f"{', '.join(datasets.class_lists())}, list of names, or their number"}),
]
StudentClasses = Annotated[
    tuple[dict[str, tuple[str, ...]], ...],
    BeforeValidator(_student_classes),
    WithJsonSchema({"words": "mapping of names to one or a list"}),
]
DataName = Annotated[str, BeforeValidator(_data_set), datasets.Schema(lambda: {"enum": datasets.data_sets()})]
Weights = Annotated[dict[str, NotNegative], BeforeValidator(without_nulls)]
FurtherTerms = Annotated[dict[str, dict[str, Any]], BeforeValidator(_with_weights)]
Rhythm = Annotated[int | str, BeforeValidator(_rhythm), WithJsonSchema({"words": "whole number, or time such as 3m"})]
Budget = Annotated[
    float | None,
    BeforeValidator(_budget),
    WithJsonSchema({"words": "time such as 25m or 2h, number of seconds, or null"}),
]
