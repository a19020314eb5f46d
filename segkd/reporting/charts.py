"""Curves as SVG, alike on every page: a panel for each group of lines, told apart without colour, too."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Panel = TypeVar("Panel")
STYLES = ("-", "--", "-.", ":")


def drawn(panels: Sequence[Panel], size: tuple[float, float], draw: Callable[[Any, Panel], object]) -> str:
    """The panels one below the other, each of `size` in inches; `draw` is given axes and a panel. The same bytes each time."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.style import context

    matplotlib.set_loglevel("error")  # it tells of its cache of fonts, which is nobody's matter

    width, height = size
    with context(["default", "tableau-colorblind10", {"svg.hashsalt": "segkd", "svg.fonttype": "none"}]):
        figure = Figure((width, height * len(panels)), layout="constrained")
        for axes, panel in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
            draw(axes, panel)
            axes.grid(alpha=0.3)
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def look_of(at: int) -> dict[str, str]:
    """Dashes and colour of a panel's line of such a number."""
    return {"linestyle": STYLES[at % len(STYLES)], "color": f"C{at % 10}"}


def inline(svg: str) -> str:
    """The same to stand within a page."""
    return svg[svg.index("<svg") :]
