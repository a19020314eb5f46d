"""`dataset.yaml`: what a folder of one's own says about its images and masks, typed and strict as a recipe is."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator

from segkd.data.classes import IGNORE, UNKNOWN, Classes, listed
from segkd.data.image_files import MAX_PIXELS
from segkd.data.pairing import NAME, SPLIT, whole
from segkd.data.splits import Layout
from segkd.foundation.errors import DataError, RecipeError
from segkd.recipe.blocks import Block
from segkd.recipe.messages import error_line, explain, shown
from segkd.recipe.strict_yaml import MAX_BYTES, parse, plain

FILE = "dataset.yaml"
IMAGES, MASKS, _ = Layout()

Colour = tuple[int, int, int]
_TO_IGNORE = "ignore"


def _colour(value: Any) -> Colour | None:
    if isinstance(value, list) and len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value):
        return value[0], value[1], value[2]
    return None


def _colours(value: Any) -> tuple[Colour, ...]:
    """One colour, or a list of them; empty where it is neither."""
    found = [_colour(value)] if _colour(value) else [_colour(item) for item in value] if isinstance(value, list) else []
    return tuple(colour for colour in found if colour) if all(found) else ()


def _classes(value: Any) -> dict[str, tuple[Colour, ...]]:
    """Names in the order of their ids, with their colours where these are given; the first is drawn."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        found: dict[str, tuple[Colour, ...]] = dict.fromkeys(value, ())
        twice = next((name for name in found if value.count(name) > 1), None)
    elif isinstance(value, dict) and all(_colours(colours) for colours in value.values()):
        found = {name: _colours(colours) for name, colours in value.items()}
        every = [colour for colours in found.values() for colour in colours]
        twice = next((name for name, colours in found.items() if any(every.count(c) > 1 for c in colours)), None)
    else:
        raise ValueError(
            "expected a list of names, or NAME: [red, green, blue] with 0 to 255 for each class, or a list of these"
        )
    if twice is not None:
        raise ValueError(f"'{twice}', or its colour, stands twice")
    if not 2 <= len(found) <= UNKNOWN or "" in found or _TO_IGNORE in found:
        raise ValueError(f"expected 2 to {UNKNOWN} classes, none of them called '' or '{_TO_IGNORE}'")
    return found


def _ignored(value: Any) -> tuple[int | Colour, ...] | None:
    """Ids, or colours; one id may stand without its list."""
    if value is None:
        return None
    items = value if isinstance(value, list) else [value]
    found = tuple(_colour(item) or item for item in items)
    if not all(isinstance(item, tuple) or (type(item) is int and 0 <= item <= 65535) for item in found):
        raise ValueError("expected ids (0 to 65535), or [red, green, blue] where labels are colours")
    return found


def _remap(value: Any) -> dict[int, int | str]:
    ids = isinstance(value, dict) and all(re.fullmatch("0|[1-9][0-9]{0,4}", key) and int(key) < 65536 for key in value)
    if not ids:
        raise ValueError("expected ID: CLASS with the ids of the files, 0 to 65535")
    return {int(key): target for key, target in value.items()}


def _pattern(value: Any) -> str:
    """Paths below the root, with `{split}`, `{name}` and `*` at most."""
    if not isinstance(value, str) or not value or re.search(r"[{}\\]", re.sub(r"\{(split|name)\}", "", value)):
        raise ValueError(f"expected a folder or a path such as {IMAGES}/{NAME}.jpg, with {SPLIT}, {NAME} and * at most")
    if PurePosixPath(value).is_absolute() or ".." in PurePosixPath(value).parts:
        raise ValueError("expected a path below the folder of dataset.yaml")
    return value


def _list(value: Any) -> str:
    if NAME in (path := _pattern(value)) or "*" in path:
        raise ValueError(f"expected the path of a text file, with {SPLIT} at most")
    return path


def _range(value: Any) -> tuple[int, int]:
    if (
        not isinstance(value, list)
        or [type(part) for part in value] != [int, int]
        or not 0 <= value[0] < value[1] < 65536
    ):
        raise ValueError("expected [black, white], two values of 0 to 65535")
    return value[0], value[1]


class Description(Block):
    """A data set in a folder."""

    classes: Annotated[dict[str, Any], BeforeValidator(_classes)] = Field(
        description="names in the order of their ids; or NAME: [r, g, b], or a list of colours for one class"
    )
    labels: Literal["ids", "colours"] = Field("ids", description="what the masks hold")
    remap: Annotated[dict[int, Any], BeforeValidator(_remap)] = Field(
        {}, description="class (its name, its id, or ignore) of each id in the files; other ids become errors"
    )
    ignore: Annotated[tuple[Any, ...] | None, BeforeValidator(_ignored)] = Field(
        None, description="ids (or colours) that are neither trained on nor measured; default: 255, or no colour"
    )
    images: Annotated[str, BeforeValidator(_pattern)] = Field(
        IMAGES, description="a split's images: their folder, or their paths with {name} for what a mask's path shares"
    )
    masks: Annotated[str, BeforeValidator(_pattern)] = Field(
        MASKS, description="a split's masks, in the same way", validate_default=True
    )
    list: Annotated[str | None, BeforeValidator(_list)] = Field(
        None,
        description="text file that lists a split's images; default: {split}.txt, if it is there and images has no {split}",
    )
    range: Annotated[tuple[int, int] | None, BeforeValidator(_range)] = Field(
        None,
        description="values of images in 16 bits that are black and white, as [0, 4095]; default: their upper 8 bits",
    )
    megapixels: int = Field(
        MAX_PIXELS // 1_000_000, ge=1, le=4000, description="an image or mask that declares more is refused"
    )

    @field_validator("labels")
    @classmethod
    def _coloured(cls, labels: str, info: ValidationInfo) -> str:
        if labels == "colours" and () in info.data.get("classes", {}).values():
            raise ValueError("the classes have no colours: write NAME: [red, green, blue] for each")
        return labels

    @field_validator("remap")
    @classmethod
    def _to_classes(cls, remap: dict[int, Any], info: ValidationInfo) -> dict[int, Any]:
        if remap and info.data.get("labels") == "colours":
            raise ValueError("remap is for ids, and labels are colours, which stand beside their classes")
        names = list(info.data.get("classes", {}))
        for key, target in remap.items():
            known = target in (*names, _TO_IGNORE) or (type(target) is int and 0 <= target < len(names))
            if names and not known:
                raise ValueError(f"{key}: expected a class by its name or id (0 to {len(names) - 1}), or ignore")
        return remap

    @field_validator("ignore")
    @classmethod
    def _not_a_class(cls, ignore: tuple[Any, ...] | None, info: ValidationInfo) -> tuple[Any, ...] | None:
        classes, labels, remap = (info.data.get(key) for key in ("classes", "labels", "remap"))
        if ignore is None or classes is None or labels is None or remap is None:
            return ignore
        if any(isinstance(item, tuple) != (labels == "colours") for item in ignore):
            raise ValueError(
                f"labels are {labels}: expected {'[red, green, blue] each' if labels == 'colours' else 'ids'}"
            )
        coloured = {colour for colours in classes.values() for colour in colours}
        taken = coloured if labels == "colours" else remap.keys() if remap else set(range(len(classes)))
        if both := [item for item in ignore if item in taken]:
            raise ValueError(
                f"{shown(both[0])} is a class; remap says which ids are classes, where these are not from 0"
            )
        return ignore

    @field_validator("masks")
    @classmethod
    def _as_images(cls, masks: str, info: ValidationInfo) -> str:
        images = info.data.get("images")
        if images is None:
            return masks
        if SPLIT in masks and SPLIT not in images:
            raise ValueError("{split} must stand in both of images and masks, or not in masks")
        if whole(masks) == whole(images):
            raise ValueError("images and masks must be in two folders, or differ in their names")
        return masks

    @property
    def most_pixels(self) -> int:
        """What `megapixels` comes to."""
        return self.megapixels * 1_000_000

    def class_list(self, name: str) -> Classes:
        """The classes, drawn in their declared colours or in generated ones."""
        colours = tuple(colours[0] for colours in self.classes.values() if colours)
        return Classes(name, tuple(self.classes), colours) if colours else listed(name, list(self.classes))

    def id_table(self) -> np.ndarray:
        """(65536,) uint8: the class, `IGNORE` or `UNKNOWN` for each id that a mask can hold."""
        table = np.full(65536, UNKNOWN, np.uint8)
        table[[IGNORE] if self.ignore is None else list(self.ignore)] = IGNORE
        places = {name: place for place, name in enumerate(self.classes)} | {_TO_IGNORE: IGNORE}
        for key, target in (self.remap or dict(enumerate(self.classes))).items():
            table[key] = places.get(target, target)
        return table

    def colour_map(self) -> dict[Colour, int] | None:
        """The class or `IGNORE` of each declared colour; None where masks hold ids."""
        if self.labels == "ids":
            return None
        places = {colour: place for place, colours in enumerate(self.classes.values()) for colour in colours}
        return places | dict.fromkeys(self.ignore or (), IGNORE)


def read_description(root: Path) -> Description:
    """The description in a folder.

    Raises:
        DataError: none there, unreadable, or with mistakes; each with its line: `dataset.yaml:3: ignore: ...`.
    """
    path = root / FILE
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: larger than {MAX_BYTES} bytes")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; it lists the classes of the folder (see docs/data.md)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    try:
        tree, errors = parse(text, lambda line: f"{path}:{line}", number_keys=True)
    except RecipeError as error:
        raise DataError("\n".join(error.errors)) from error
    if not isinstance(tree.value, dict):
        raise DataError(f"{tree.where}: expected a mapping with the key classes")
    try:
        description = Description.model_validate(plain(tree))
    except ValidationError as error:
        found = [explain(item, Description) for item in error.errors()]
        errors += [error_line(tree, place[:1], message) for place, message in found]
    if errors:
        raise DataError("\n".join(errors))
    return description
