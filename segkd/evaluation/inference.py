"""How a network is shown an image: whole or by windows, once or at several scales and mirrored.

Each way is a network again, from normalised images (N,3,H,W) to scores (N,C,H,W), so that they stack, and whatever
takes a network takes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.foundation.errors import UsageError

SIDES = (32, 8192)  # pixels: a smaller window shows a network nothing to recognise
SCALES = (0.1, 8.0)
MOST_SCALES = 16


class Sliding(nn.Module):
    """The logits of overlapping windows, averaged where they overlap.

    Windows of `window` (height, width) stand two thirds of their size apart, the last ones at the image's border. Where
    an image is lower or narrower than the window, the window is cut to the image: padding would show the network what
    is not there, and change what it says of the rest.

    Logits are averaged, not probabilities: that is the geometric mean of the windows' probabilities, in which a window
    that is unsure of a pixel, as near its own border, counts little; and what comes out is logits again, those of the
    network itself where there is one window.

    Attributes:
        cut: whether a window had to be cut, so far.
    """

    def __init__(self, network: nn.Module, window: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.window, self.cut = network, window, False

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N,C,H,W), float32, of images (N,K,H,W)."""
        size, whole = images.shape[-2:], None
        for top, logits in self.bands(size, lambda top, bottom: images[..., top:bottom, :]):
            whole = logits.new_empty(*logits.shape[:2], *size) if whole is None else whole
            whole[..., top : top + logits.shape[2], :] = logits
        assert whole is not None
        return whole

    def bands(self, size: Sequence[int], rows: Callable[[int, int], Tensor]) -> Iterator[tuple[int, Tensor]]:
        """The same of images of a `size` (H,W) that need not be whole in memory, from the top to the bottom.

        `rows(top, bottom)` gives these rows of the images, (N,K,bottom-top,W). Yields rows of logits (N,C,h,W), float32, that no
        further window touches, and where they begin. What is summed is as high as one window, and the next step writes over it.
        """
        (height, width), asked = size, self.window
        high, wide = min(height, asked[0]), min(width, asked[1])
        self.cut |= (high, wide) != asked
        tops, down, across, total = starts(height, high), _windows_over(height, high), _windows_over(width, wide), None
        for top, after in zip(tops, [*tops[1:], height], strict=True):
            shown, done = rows(top, top + high), after - top
            for left in starts(width, wide):
                logits = self.network(shown[..., left : left + wide]).float()
                total = logits.new_zeros(*logits.shape[:2], high, width) if total is None else total
                total[..., left : left + wide] += logits
            assert total is not None
            windows = down[top:after, None] * across
            yield top, total[:, :, :done].div_(windows.to(total.device))
            for row in range(done, high, done):  # up by `done` rows; as many at a time, for they must not overlap
                moved = total[:, :, row : row + done]
                total[:, :, row - done : row - done + moved.shape[2]] = moved
            total[:, :, high - done :] = 0


def starts(length: int, window: int) -> list[int]:
    """Where windows begin along a side of `length` >= `window`: two thirds of a window apart, the last at the border."""
    stride = max(2 * window // 3, 1)
    return [*range(0, length - window, stride), length - window]


def _windows_over(length: int, window: int) -> Tensor:
    """How many windows hold each pixel of a side, (length,)."""
    windows = torch.zeros(length)
    for start in starts(length, window):
        windows[start : start + window] += 1
    return windows


class Averaged(nn.Module):
    """The mean of softmax probabilities over scales of the image, and over each with its mirror image (`flip`).

    The image's sides are scaled and rounded to pixels; the logits are brought to the image's size before the softmax.
    Both are resized bilinearly, antialiased where they shrink.
    """

    def __init__(self, network: nn.Module, scales: Sequence[float] = (1.0,), flip: bool = False) -> None:
        super().__init__()
        self.network, self.scales, self.flip = network, tuple(scales), flip

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (N,C,H,W), float32, of images (N,3,H,W)."""
        size, total = tuple(images.shape[-2:]), images.new_zeros(())
        for scale in self.scales:
            scaled = _resized(images, tuple(max(1, round(scale * side)) for side in size))
            total = total + self._vote(scaled, size)
            if self.flip:
                total = total + self._vote(scaled.flip(-1), size).flip(-1)
        return total / (len(self.scales) * (1 + self.flip))

    def _vote(self, images: Tensor, size: tuple[int, ...]) -> Tensor:
        return _resized(self.network(images).float(), size).softmax(1)


def _resized(images: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


@dataclass(frozen=True)
class Inference:
    """What a caller may choose; the default shows the whole image once.

    Attributes:
        slide: height and width of a window, 32 to 8192 pixels each; None: the whole image.
        scales: 1 to 16 different factors from 0.1 to 8.
        flip: also mirrored left and right.

    Raises:
        UsageError: a value out of these ranges.
    """

    slide: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if self.slide is not None and not (len(self.slide) == 2 and all(_side(side) for side in self.slide)):
            shown, low, high = "x".join(map(str, self.slide)), *SIDES
            raise UsageError(f"slide {shown}: a window is HxW with sides of {low} to {high} pixels, as 256x256")
        good = all(SCALES[0] <= scale <= SCALES[1] for scale in self.scales)
        if not good or not 1 <= len(self.scales) <= MOST_SCALES or len(set(self.scales)) < len(self.scales):
            shown, low, high = ",".join(f"{scale:g}" for scale in self.scales), *SCALES
            expected = f"1 to {MOST_SCALES} different factors of {low:g} to {high:g}"
            raise UsageError(f"scales {shown}: expected {expected}, as 0.75,1,1.25")

    @classmethod
    def parsed(cls, slide: str | None, scales: str | None, flip: bool) -> Inference:
        """The same from a command line: `slide` as "256x256", `scales` as "0.75,1,1.25"."""
        window = None if slide is None else re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", slide)
        if slide is not None and window is None:
            raise UsageError(f"slide {slide}: expected HxW in pixels, as 256x256")
        try:
            factors = (1.0,) if scales is None else tuple(float(word) for word in scales.split(","))
        except ValueError:
            raise UsageError(f"scales {scales}: expected numbers with commas between them, as 0.75,1,1.25") from None
        return cls(None if window is None else (int(window[1]), int(window[2])), factors, flip)

    def of(self, network: nn.Module) -> nn.Module:
        """The network, shown its images so."""
        if self.slide is not None:
            network = Sliding(network, self.slide)
        return network if self.scales == (1.0,) and not self.flip else Averaged(network, self.scales, self.flip)

    def notes(self, network: nn.Module) -> list[str]:
        """What `of(...)` did to images otherwise than was asked, in lines."""
        if not any(module.cut for module in network.modules() if isinstance(module, Sliding)):
            return []
        return [f"slide {self.slide[0]}x{self.slide[1]}: larger than images (at a scale); windows were cut to them"]

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        window = None if self.slide is None else list(self.slide)
        return {"slide": window, "scales": list(self.scales), "flip": self.flip}


def _side(side: object) -> bool:
    return isinstance(side, int) and SIDES[0] <= side <= SIDES[1]
