"""What the command says on standard error."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Sequence

from qkd_qiskit.cli.recipe_options import COMMANDS, sections
from qkd_qiskit.recipe.parsing import recipe_keys, type_message, unknown_key

_NUMBERS = {"int": "a whole number", "float": "a number"}


def argument_message(error: Exception, words: Sequence[str], *, commands: Sequence[str]) -> str:
    """One line for options that the parser refuses."""
    text = " ".join(str(error).split())
    if "but it was not provided" in text:
        return f"a command is missing; give one of {', '.join(commands)}: `qkd --help`"
    missing = re.match(r"the following arguments are required: (.*)", text)
    if missing:
        names = [name.strip().rpartition(".")[2] for name in missing[1].split(",")]
        command = " ".join(missing[1].partition(",")[0].split(".")[:-1])
        return f"{' and '.join(names)} missing; see `qkd {command} --help`"
    unknown = re.match(r"unrecognized arguments: (\S+)", text)
    if unknown and unknown[1].startswith("--"):
        flag = unknown[1].partition("=")[0].removeprefix("--")
        return unknown_key(flag) if words[0] in COMMANDS else f"--{flag} is not an option"
    typed = re.match(r'Parser key "([\w.]+)": Expected a <class \'(\w+)\'>\. Got value: (.*)', text)
    if typed and typed[2] in _NUMBERS and typed[1] not in recipe_keys():
        flag = typed[1].rpartition(".")[2].replace("_", "-")
        return f"--{flag}: {typed[3]!r} is not accepted; give {_NUMBERS[typed[2]]}"
    group = re.match(r'Parser key "(\w+)"', text)
    if group and group[1] in sections() and group[1] not in recipe_keys():
        return f"--{group[1]} cannot be read; give its keys one by one, see `qkd {words[0]} --help`"
    given = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, equals, value = word.partition("=")
        given[flag.removeprefix("--")] = value if equals else following
    return type_message(error, given)


def fail(message: str, *, status: int) -> int:
    """Print the message in one line; returns the exit status."""
    print(f"qkd: {' '.join(message.split())}", file=sys.stderr)
    return status


def discard_output() -> None:
    """Let nothing more be written to standard output."""
    # What is still buffered cannot be written either: Python would complain when it exits.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
