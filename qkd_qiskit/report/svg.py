"""Drawing one SVG element of a page: its style, its colours as variables, what of a file goes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING

from qkd_qiskit.recipe.arms import ARMS
from qkd_qiskit.recipe.display import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, RULE, PAPER = "#1d1f21", "#62676c", "#dddfe1", "#ffffff"
OTHER_COLOUR = Style().colour
ARM_COLOURS = {
    name: arm.style.colour for name, arm in ARMS.items() if arm.style.colour != OTHER_COLOUR
}
INPUT_COLOUR, TRAINED_COLOUR = "#00795a", "#5b4b9a"
VARIABLES = {
    INK: "ink",
    SOFT: "soft",
    RULE: "rule",
    PAPER: "paper",
    OTHER_COLOUR: "other",
    INPUT_COLOUR: "input",
    TRAINED_COLOUR: "trained",
    **{colour: arm.replace("_", "-") for arm, colour in ARM_COLOURS.items()},
}

_SETTINGS: dict[str, object] = {
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $x$
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.unicode_minus": True,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "figure.facecolor": "none",
    "svg.fonttype": "none",
}


def inline_svg(text: str, *, name: str, title: str) -> str:
    """Return an SVG file as an element that can stand in a page beside others.

    Colours of `VARIABLES` become variables of the page's style sheet, identifiers get a prefix or
    go where nothing refers to them, and what only a file needs (namespaces, styles) goes as well.
    """
    text = text[text.index("<svg") :]
    text = re.sub(
        r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.S
    )
    text = re.sub(r'\s+(xmlns(:xlink)?|version)="[^"]*"', "", text).replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(
        r'\s+id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text
    )
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    # A hundredth of a point is enough for a position; scales, which are below 1, keep all digits.
    text = re.sub(r"\b([1-9]\d*\.\d\d)\d+", r"\1", text)
    text = re.sub(r"\n\s*", "\n", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Give a figure of this size in inches, and its axes, in the style of a report."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(_SETTINGS):
        canvas = FigureCanvasSVG(Figure(figsize=(width, height)))
        yield canvas.figure, canvas.figure.subplots()


def svg_element(figure: Figure, *, name: str, title: str) -> str:
    """Return a figure as an element of a page; see `inline_svg`."""
    from matplotlib import rc_context
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # A figure that has a layout engine would be drawn twice, once for the engine alone.
    ConstrainedLayoutEngine().execute(figure)
    text = io.StringIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return inline_svg(text.getvalue(), name=name, title=title)
