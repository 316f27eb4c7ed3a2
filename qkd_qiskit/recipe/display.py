"""What objects look like at a prompt and in a notebook: short, without their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from html import escape
from reprlib import Repr
from typing import Any

# Borders and fonts are those of the page, and so are the colours, light or dark.
_TABLE, _CELL = 'style="color: inherit"', 'style="text-align: left"'
_CAPTION = 'style="caption-side: bottom; text-align: left; color: inherit"'


class _Short(Repr):
    """Values in a line: tensors by their shape, what is long cut."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = self.maxdict = 4
        self.maxlist = self.maxtuple = 12
        self.maxstring = self.maxlong = 160
        self.maxother = 1000  # of a specification in a recipe

    def repr_Tensor(self, value: Any, level: int) -> str:
        """Return the type and the shape of a tensor."""
        return f"{type(value).__name__}{tuple(value.shape)}"

    repr_Parameter = repr_Tensor


_SHORT = _Short()


@dataclass(frozen=True, kw_only=True)
class Style:
    """How an arm is drawn.

    Attributes:
        colour: Its colour in every figure.
        line: Line style of matplotlib; None = that of the figure.
        marker: Marker of matplotlib.
    """

    colour: str = "#009e73"
    line: str | tuple[float, tuple[float, ...]] | None = None
    marker: str = "D"


def short_repr(instance: Any) -> str:
    """Return the repr of a dataclass: the fields that are not as by default, in short.

    Of what has no tensors and nothing long it is an expression that gives an equal object.
    """
    changed = (
        f"{field.name}={_SHORT.repr(getattr(instance, field.name))}"
        for field in fields(instance)
        if field.repr and getattr(instance, field.name) != _default(field)
    )
    return f"{type(instance).__name__}({', '.join(changed)})"


def changed_settings(instance: Any) -> str:
    """Return the fields of a specification that are not as by default, in words.

    Its name or kind, which says what it is about, is left out.
    """
    return ", ".join(
        f"{field.name} {_plain(getattr(instance, field.name))}"
        for field in fields(instance)
        if field.name not in ("name", "kind") and getattr(instance, field.name) != _default(field)
    )


def html_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str | None = None
) -> str:
    """Return an HTML table, its texts escaped.

    Args:
        heads: Names of the columns; none for a table without a head.
        rows: Their cells.
        caption: Below the table.
    """

    def line(cells: Sequence[str], tag: str) -> str:
        row = (f"<{tag} {_CELL}>{escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{''.join(row)}</tr>"

    below = "" if caption is None else f"<caption {_CAPTION}>{escape(caption)}</caption>"
    head = f"<thead>{line(heads, 'th')}</thead>" if heads else ""
    body = "".join(line(row, "td") for row in rows)
    return f"<table {_TABLE}>{below}{head}<tbody>{body}</tbody></table>"


def html_pairs(entries: Mapping[str, str], *, title: str) -> str:
    """Return a table of names and what they are, without those that are empty."""
    rows = [[name, value] for name, value in entries.items() if value]
    return f"<p><strong>{escape(title)}</strong></p>{html_table([], rows)}"


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _plain(value: object) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
