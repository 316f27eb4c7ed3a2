"""A page of HTML from plain values: what is not markup already is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

_STYLE = Path(__file__).with_name("report.css")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, *content: object, **attributes: str) -> Markup:
    """Return an element around its content; `class_` gives the attribute `class`."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{given}>{join(content)}</{name}>")


def join(content: Iterable[object]) -> Markup:
    """Return pieces one after the other, escaped where they are not markup."""
    return Markup("".join(p if isinstance(p, Markup) else escape(str(p)) for p in content))


def section(title: str, *content: object) -> Markup:
    """Return a part of the page with its heading."""
    return Markup("\n" + element("section", element("h2", title), *content))


def table(
    header: Sequence[object], groups: Iterable[Sequence[Sequence[object]]], *, caption: object
) -> Markup:
    """Return a table whose rows come in groups; the first cell of each row is its heading.

    A row of one cell is the heading of its group. The table scrolls by itself where the page is
    narrow.
    """
    corner, *columns = header
    head = element("td", corner), *(element("th", name, scope="col") for name in columns)
    bodies = [
        element("tbody", *(_row(row, columns=len(header)) for row in group))
        for group in groups
        if len(group) > 0
    ]
    whole = element("table", element("thead", element("tr", *head)), *bodies)
    # Not a <caption>: that would scroll with the table.
    return element(
        "figure",
        element("div", whole, class_="wide", tabindex="0"),
        element("figcaption", caption),
    )


def panel(title: object, svg: str) -> Markup:
    """Return one figure under its heading, to stand in a row of `panels`."""
    return element("div", element("h3", title), Markup(svg), class_="panel")


def panels(*content: object, caption: object) -> Markup:
    """Return a row of panels, wrapped where the page is narrow, with one caption."""
    row = element("div", *content, class_="panels")
    return element("figure", row, element("figcaption", caption))


def definitions(entries: Mapping[str, str]) -> Markup:
    """Return names and what they are."""
    return element(
        "dl",
        *(join([element("dt", name), element("dd", value)]) for name, value in entries.items()),
    )


def halves(entries: Mapping[str, str]) -> Markup:
    """Return names and what they are, in two columns."""
    items = list(entries.items())
    middle = (len(items) + 1) // 2
    return columns(definitions(dict(items[:middle])), definitions(dict(items[middle:])))


def columns(*content: Markup) -> Markup:
    """Return contents side by side."""
    return element("div", *(element("div", part) for part in content), class_="columns")


def document(title: str, *content: object) -> str:
    """Return the whole page, which loads nothing."""
    head = element(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        element("title", title),
        element("style", Markup(_STYLE.read_text(encoding="utf-8"))),
    )
    body = element("body", element("main", *content))
    return f'<!DOCTYPE html>\n<html lang="en">{head}\n{body}</html>\n'


def _row(cells: Sequence[object], *, columns: int) -> Markup:
    heading, *values = cells
    if not values:
        span = element("th", heading, scope="rowgroup", colspan=str(columns))
        return element("tr", span, class_="group")
    return element(
        "tr", element("th", heading, scope="row"), *(element("td", value) for value in values)
    )
