"""Lines of text for a terminal or a pipe; from the standard library alone."""

from __future__ import annotations

import shutil
import sys
import textwrap


def broken(text: str, *, indent: int = 0) -> str:
    """Return a text for print: whole in a pipe, on a terminal broken between words.

    Args:
        text: One line.
        indent: Spaces in front of the lines after the first.
    """
    if not sys.stdout.isatty():
        return text
    return textwrap.fill(
        text,
        max(shutil.get_terminal_size().columns, 2 * indent),
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )
