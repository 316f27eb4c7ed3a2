"""Tables for a narrow terminal: closer columns, and what does not fit goes into another table."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.table import Column, Table

_NAMES = 3  # the first column takes at most this part of the width, where it may wrap


def fitted(table: Table, *, width: int) -> list[Table]:
    """Return a table as it is where it fits, else one or several without lines between columns.

    The headings of these are wrapped to the width of their cells, and each has the first column.

    Args:
        table: What is to be printed; its cells are text.
        width: Columns of the terminal.
    """
    cells = [_least(column) for column in table.columns]
    heads = [_length(column.header) for column in table.columns]
    if not table.columns[0].no_wrap:  # names in words may take several lines
        cells[0] = min(cells[0], width // _NAMES)
    if sum(map(max, cells, heads)) + 3 * len(cells) + 1 <= width:
        return [table]
    wrapped = [
        _wrapped(str(column.header), size)
        for column, size in zip(table.columns, cells, strict=True)
    ]
    sizes = [max(size, _length(head)) + 2 for size, head in zip(cells, wrapped, strict=True)]
    groups: list[list[int]] = []
    for number in range(1, len(sizes)):
        wider = [0, *(groups[-1][1:] if groups else []), number]
        if groups and sum(sizes[it] for it in wider) + 1 <= width:
            groups[-1] = wider
        else:
            groups.append([0, number])
    parts = [_part(table, group, wrapped) for group in groups]
    parts[0].title = table.title
    parts[-1].caption = table.caption
    return parts


def _part(table: Table, columns: Sequence[int], heads: Sequence[str]) -> Table:
    """Return a table of some columns."""
    part = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number in columns:
        column = table.columns[number]
        part.add_column(
            heads[number],
            justify=column.justify,
            no_wrap=column.no_wrap,
            overflow=column.overflow,
        )
    rows = zip(*(column.cells for column in table.columns), strict=True)
    for row, cells in zip(table.rows, rows, strict=True):
        shown = [cells[number] for number in columns]
        if any(shown[1:]) or not any(cells[1:]):
            part.add_row(*shown, style=row.style, end_section=row.end_section)
        elif row.end_section and part.rows:  # all that the row says is in another part
            part.add_section()
    return part


def _least(column: Column) -> int:
    """Return the width that a column takes: of its longest line, or word where words may wrap."""
    words = column.overflow == "fold" and column.justify == "left" and not column.no_wrap
    texts = [piece for cell in column.cells for piece in (str(cell).split() if words else [cell])]
    return max(map(_length, texts), default=0)


def _wrapped(text: str, width: int) -> str:
    lines = text.split("\n")
    longest = max((len(word) for line in lines for word in line.split()), default=1)
    size = max(width, longest)
    return "\n".join(piece for line in lines for piece in textwrap.wrap(line, size) or [""])


def _length(text: object) -> int:
    return max(map(cell_len, str(text).split("\n")))
