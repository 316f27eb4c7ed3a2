"""The page of all commands, from their help; written when the site is built."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from qkd_qiskit.cli import main
from qkd_qiskit.cli.commands import COMMANDS

PAGE = Path(__file__).parent / "reference" / "command.md"
HEAD = """# The command

What `qkd COMMAND --help` prints.
"""
HIDDEN = ("bench",)  # an older name of sweep


def help_of(*words: str) -> str:
    """Return what a command's `--help` prints."""
    printed = io.StringIO()
    os.environ["COLUMNS"] = "88"
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return printed.getvalue().rstrip()


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for name, command in COMMANDS.items():
        if name in HIDDEN:
            continue
        parts.append(f"## qkd {name}\n\n```text\n{help_of(name)}\n```\n")
        for action in command.actions:
            parts.append(f"### qkd {name} {action}\n\n```text\n{help_of(name, action)}\n```\n")
    return "\n".join(parts)


def write() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
