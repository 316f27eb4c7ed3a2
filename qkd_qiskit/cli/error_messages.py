"""What the command says on standard error."""

from __future__ import annotations

import contextlib
import os
import sys

_LONGEST = 1000  # characters; what is longer quotes something endless that was given


def fail(message: str, *, status: int) -> int:
    """Print the message in one line and return the exit status."""
    line = " ".join(message.split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"qkd: {line}", file=sys.stderr)
    return status


def discard_output() -> None:
    """Let nothing more be written to standard output."""
    # What is still buffered cannot be written either: Python would complain when it exits.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
