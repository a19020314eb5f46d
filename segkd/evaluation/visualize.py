"""Masks made visible: colours, overlays, and labelled panels. Images are (H,W,3) uint8 RGB, masks (H,W) class ids."""

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from segkd.data.classes import IGNORE, Classes
from segkd.data.photos import DRAWN
from segkd.foundation.errors import StorageError
from segkd.foundation.files import atomic_write

_PAPER, _INK, _FRAME = (255, 255, 255), (34, 34, 34), (208, 208, 208)
_STRONG, _OTHERS = ((255, 0, 255), (255, 0, 0)), ((0, 255, 255), (0, 0, 128))
_ALIKE = 60  # distance between two colours that look alike
Entry = tuple[str, tuple[int, int, int]]
PLAIN, BOLD = cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX
GAP, _MARGIN = 6, 14
SMALLEST, LARGEST = 240, 768  # pixels: a shown image is at least so high, and its longer side at most so long


def colourise(mask: np.ndarray, classes: Classes) -> np.ndarray:
    """The mask in the classes' palette, (H,W,3) uint8 RGB; ignored pixels are black."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes.palette)] = classes.palette
    palette[IGNORE] = 0
    return palette[mask]


def overlay(image: np.ndarray, mask: np.ndarray, classes: Classes, alpha: float = 0.5) -> np.ndarray:
    """The image tinted by its mask; `alpha` in [0, 1] is the share of the mask. Ignored pixels keep the image."""
    blended = cv2.addWeighted(image, 1 - alpha, colourise(mask, classes), alpha, 0)
    return np.where((mask == IGNORE)[..., None], image, blended)


def disagreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(H,W) bool: where two masks differ; never where either of them is ignored."""
    return (first != second) & (first != IGNORE) & (second != IGNORE)


def difference_colour(classes: Classes) -> tuple[int, int, int]:
    """What pixels are drawn in where masks differ: magenta or red, whichever looks less like a class; else cyan or navy."""
    palette = np.array(classes.palette, float)

    def distance(colour: tuple[int, int, int]) -> float:
        return np.linalg.norm(palette - colour, axis=1).min()

    strong = max(_STRONG, key=distance)
    return strong if distance(strong) > _ALIKE else max(_OTHERS, key=distance)


def legend(classes: Classes, height: int, more: Sequence[Entry] = ()) -> np.ndarray:
    """Swatches with the names of the classes, and with `more` names: a strip (height, W, 3) on white.

    Takes as many columns as it needs to stay readable, so it is wide where the height is small.
    """
    text = int(np.clip(height // 22, 11, 16))
    line = text * 7 // 4
    entries = [*zip(classes.names, classes.palette, strict=True), *more]
    needed = -(-len(entries) // max(1, height // line))
    rows = -(-len(entries) // needed)
    columns = [entries[start : start + rows] for start in range(0, len(entries), rows)]
    drawn = [_legend_column(column, height, text, line) for column in columns]
    return np.hstack(drawn)


def panel(
    image: np.ndarray,
    truth: np.ndarray | None = None,
    teacher: np.ndarray | None = None,
    student: np.ndarray | None = None,
    *,
    classes: Classes,
) -> np.ndarray:
    """One image and its masks side by side: image | ground truth | teacher | student | disagreement, with a legend.

    Columns that were not given are left out. The disagreement is the student's with the teacher, or that of the one
    network with the ground truth; its title gives the share of pixels that differ. Small images are enlarged by
    a whole factor (masks without interpolation), large ones are reduced.
    """
    named = {"ground truth": truth, "teacher": teacher, "student": student}
    masks = {title: mask for title, mask in named.items() if mask is not None}
    titles, cells = ["image", *masks], [shown(image)]
    cells += [shown_mask(colourise(mask, classes)) for mask in masks.values()]
    if len(masks) >= 2:
        different = disagreement(*list(masks.values())[-2:])
        titles.append(_share(different.mean()))
        cells.append(shown_mask(_marked(image, different, classes)))
    return _sheet(titles, [cells], classes, _more(classes, list(masks.values()), len(masks) >= 2))


def sample_grid(
    images: Sequence[np.ndarray],
    teacher_masks: Sequence[np.ndarray],
    student_masks: Sequence[np.ndarray],
    classes: Classes,
) -> np.ndarray:
    """Images of one size, a row each: synthetic image | teacher mask | student mask | disagreement, with a legend."""
    rows, different = [], []
    for image, teacher, student in zip(images, teacher_masks, student_masks, strict=True):
        different.append(disagreement(teacher, student))
        masks = (colourise(teacher, classes), colourise(student, classes), _marked(image, different[-1], classes))
        rows.append([shown(image), *map(shown_mask, masks)])
    titles = ["synthetic image", "teacher", "student", _share(np.mean(different))]
    return _sheet(titles, rows, classes, _more(classes, [*teacher_masks, *student_masks], True))


def as_rgb(image: np.ndarray) -> np.ndarray:
    """An image (H,W,K) uint8 to be looked at, (H,W,3): as it is; its first channel as grey where it has one or two; else its first three."""
    return image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)


def save_png(path: str | Path, rgb: np.ndarray) -> None:
    """Write (H,W,3) uint8 RGB as a PNG, whole or not at all; raises `StorageError`."""
    done, encoded = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not done:
        raise StorageError(f"{path}: the image {rgb.shape} could not be encoded as PNG")
    atomic_write(Path(path), encoded.tobytes())


def as_png(picture: Image.Image) -> bytes:
    """A drawing's file, marked as one."""
    mark, buffer = PngInfo(), io.BytesIO()
    mark.add_text(*DRAWN)
    picture.save(buffer, "png", pnginfo=mark)
    return buffer.getvalue()


def _share(fraction: float) -> str:
    return f"disagreement {100 * fraction:.1f}%"


def _more(classes: Classes, masks: Sequence[np.ndarray], compared: bool) -> list[Entry]:
    """What a legend has beside the classes: the colours of disagreement and of ignored pixels, where they are shown."""
    ignored = any((mask == IGNORE).any() for mask in masks)
    return [("disagreement", difference_colour(classes))] * compared + [("ignored", (0, 0, 0))] * ignored


def _marked(image: np.ndarray, different: np.ndarray, classes: Classes) -> np.ndarray:
    """A pale grey image with the differing pixels in a strong colour."""
    pale = 255 - (255 - cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) // 2
    marked = np.repeat(pale[..., None], 3, axis=2)
    marked[different] = difference_colour(classes)
    return marked


def _shown_size(height: int, width: int) -> tuple[int, int]:
    """(width, height) on the sheet: a whole multiple of a small image, a large one reduced."""
    if max(height, width) > LARGEST:
        scale = LARGEST / max(height, width)
        return max(1, round(width * scale)), max(1, round(height * scale))
    factor = max(1, min(-(-SMALLEST // height), LARGEST // max(height, width)))
    return width * factor, height * factor


def shown(image: np.ndarray) -> np.ndarray:
    """An image (H,W,3) at its size on the sheet."""
    size = _shown_size(*image.shape[:2])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if size[0] < image.shape[1] else cv2.INTER_CUBIC)


def shown_mask(colours: np.ndarray) -> np.ndarray:
    """A mask in colours (H,W,3) at its size on the sheet; each pixel keeps a colour of the palette."""
    return cv2.resize(colours, _shown_size(*colours.shape[:2]), interpolation=cv2.INTER_NEAREST)


def _sheet(titles: list[str], rows: list[list[np.ndarray]], classes: Classes, more: Sequence[Entry]) -> np.ndarray:
    """Titles above the columns, the cells with small gaps, the legend to their right, a white margin around all."""
    height, width = rows[0][0].shape[:2]
    text = int(np.clip(height // 17, 15, 26))
    head = _beside([_title(title, width, text) for title in titles])
    grid = _below([_beside([_framed(cell) for cell in row]) for row in rows])
    key = legend(classes, grid.shape[0], more)
    corner = np.full((head.shape[0], key.shape[1], 3), 255, np.uint8)
    sheet = _below([_beside([head, corner], _MARGIN), _beside([grid, key], _MARGIN)], gap=0)
    return cv2.copyMakeBorder(sheet, _MARGIN // 2, _MARGIN, _MARGIN, _MARGIN, cv2.BORDER_CONSTANT, value=_PAPER)


def _framed(cell: np.ndarray) -> np.ndarray:
    """A hairline keeps white masks and pale images apart from the paper."""
    framed = cell.copy()
    cv2.rectangle(framed, (0, 0), (cell.shape[1] - 1, cell.shape[0] - 1), _FRAME, 1)
    return framed


def _beside(images: list[np.ndarray], gap: int = GAP) -> np.ndarray:
    space = np.full((images[0].shape[0], gap, 3), 255, np.uint8)
    return np.hstack([part for image in images for part in (image, space)][:-1])


def _below(images: list[np.ndarray], gap: int = GAP) -> np.ndarray:
    space = np.full((gap, images[0].shape[1], 3), 255, np.uint8)
    return np.vstack([part for image in images for part in (image, space)][:-1])


def _title(title: str, width: int, text: int) -> np.ndarray:
    strip = np.full((text * 2, width, 3), 255, np.uint8)
    scale = min(text_scale(BOLD, text), 0.96 * width / text_width(title, BOLD, 1.0))
    left = round((width - text_width(title, BOLD, scale)) / 2)
    cv2.putText(strip, title, (left, round(text * 1.4)), BOLD, scale, _INK, 1, cv2.LINE_AA)
    return strip


def _legend_column(
    entries: Sequence[tuple[str, tuple[int, int, int]]], height: int, text: int, line: int
) -> np.ndarray:
    scale = text_scale(PLAIN, text)
    left = text * 2
    width = left + max(round(text_width(name, PLAIN, scale)) for name, _ in entries) + text
    column = np.full((height, width, 3), 255, np.uint8)
    for row, (name, colour) in enumerate(entries):
        top = row * line + (line - text) // 2
        cv2.rectangle(column, (0, top), (text * 3 // 2, top + text), tuple(map(int, colour)), cv2.FILLED)
        cv2.rectangle(column, (0, top), (text * 3 // 2, top + text), _FRAME, 1)
        cv2.putText(column, name, (left, top + round(text * 0.85)), PLAIN, scale, _INK, 1, cv2.LINE_AA)
    return column


def text_scale(font: int, height: float) -> float:
    """The font scale at which capital letters with their ascenders are `height` pixels high."""
    return height / cv2.getTextSize("Ag", font, 1.0, 1)[0][1]


def text_width(text: str, font: int, scale: float) -> float:
    """Pixels."""
    return cv2.getTextSize(text, font, scale, 1)[0][0]
