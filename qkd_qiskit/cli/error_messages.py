"""What the command says on standard error."""

from __future__ import annotations

import contextlib
import os
import sys


def fail(message: str, *, status: int) -> int:
    """Print the message in one line; returns the exit status."""
    print(f"qkd: {' '.join(message.split())}", file=sys.stderr)
    return status


def discard_output() -> None:
    """Let nothing more be written to standard output."""
    # What is still buffered cannot be written either: Python would complain when it exits.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
