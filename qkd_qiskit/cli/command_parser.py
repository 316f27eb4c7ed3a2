"""Parse the words of one command: flags anywhere, and one line for what is wrong."""

from __future__ import annotations

import re
import textwrap
from argparse import (
    SUPPRESS,
    Action,
    ArgumentError,
    ArgumentParser,
    ArgumentTypeError,
    HelpFormatter,
    Namespace,
)
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qkd_qiskit.errors import InputError, nearest

TARGETS = "@targets"
"""Among the values of a flag: the names of all targets, which take a moment to collect."""
CIRCUITS = "@circuits"
"""Among them: the names of the reference circuits."""

_READ: dict[type, tuple[Callable[[str], Any], str]] = {
    int: (int, "a whole number"),
    float: (float, "a number"),
}


class _Formatter(HelpFormatter):
    """Wraps each line of a text by itself; of those that begin with spaces, under their text."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = []
        for line in text.splitlines():
            head = re.match(r" +\S+ {2,}", line)
            if head is None:
                lines.append(super()._fill_text(line, width, indent))
            else:
                under = " " * head.end()
                lines += textwrap.wrap(
                    line,
                    width,
                    subsequent_indent=under,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
        return "\n".join(lines)


class CommandParser(ArgumentParser):
    """A parser that says what is wrong as an InputError of one line.

    Attributes:
        unknown_flag: What is said of a flag that the command does not have.
        values: What can stand after a flag, or as the argument of a name, where it is a choice.
    """

    def __init__(self, name: str, *, description: str, usage: str | None = None) -> None:
        super().__init__(
            prog=f"qkd {name}".strip(),
            usage=usage,
            description=description,
            allow_abbrev=False,
            exit_on_error=False,
            formatter_class=_Formatter,
        )
        self.values: dict[str, tuple[str, ...]] = {}
        self.unknown_flag: Callable[[str], str] = self._unknown_flag
        self._needed: list[Action] = []

    def add_argument(
        self, *names: Any, values: Sequence[str] | None = None, **options: Any
    ) -> Action:
        """Add an option; one of type int or float has the text of other refused numbers.

        Args:
            names: As for argparse.
            values: What can be given, for the completion in a shell; all is accepted.
            options: As for argparse.
        """
        if values is not None:
            self.values[names[0]] = tuple(values)
        if options.get("type") in _READ:
            options["type"] = _reader(options["type"])
        action = super().add_argument(*names, **options)
        if action.required:
            # Checked after parsing, so that all that is missing is named at once.
            self._needed.append(action)
            action.required = False
        return action

    def _unknown_flag(self, flag: str) -> str:
        known = [name for action in self._actions for name in action.option_strings]
        hint = nearest(f"--{flag}", known).strip()
        return f"--{flag} is not an option" + (f"; {hint}" if hint else "")

    @property
    def options(self) -> list[Action]:
        """Its arguments and flags, those in groups too; argparse has no public list of them."""
        return self._actions

    def read(self, words: Sequence[str]) -> Namespace:
        """Return the options that the words give.

        Raises:
            InputError: A flag is unknown, a value is missing or not accepted, or a word too many.
        """
        try:
            options, extras = self.parse_known_intermixed_args(list(words))
        except ArgumentError as error:
            raise InputError(f"{error.argument_name}: {error.message}") from None
        flags = [word for word in extras if word.startswith("--")]
        if flags:
            raise InputError(self.unknown_flag(flags[0].partition("=")[0].removeprefix("--")))
        if extras:
            raise InputError(f"unrecognized arguments: {' '.join(extras)}")
        missing = [action.dest for action in self._needed if getattr(options, action.dest) is None]
        if missing:
            raise InputError(f"{' and '.join(missing)} missing; see `{self.prog} --help`")
        return options


def _reader(kind: type) -> Callable[[str], Any]:
    read, wanted = _READ[kind]

    def number(text: str) -> Any:
        try:
            return read(text)
        except ValueError:
            raise ArgumentTypeError(f"{text!r} is not accepted; give {wanted}") from None

    return number


def help_of_commands(name: str, commands: Mapping[str, str], *, description: str) -> CommandParser:
    """Return the parser that prints what the commands, or the actions of one, are.

    Args:
        name: The command, empty for `qkd` itself.
        commands: What each of them does.
        description: What they have in common.
    """
    parser = CommandParser(name, description=description)
    word = "ACTION" if name else "COMMAND"
    parser.usage = f"{parser.prog} [-h]{'' if name else ' [--version]'} {word} ..."
    if not name:
        parser.add_argument("--version", action="store_true", help="print the version")
    group = parser.add_argument_group("actions" if name else "commands")
    for command, text in commands.items():
        group.add_argument(command, nargs="?", help=text.replace("%", "%%"), default=SUPPRESS)
    return parser


def unknown_command(word: str, known: Sequence[str]) -> InputError:
    """Return the error for a word that is none of the commands."""
    choices = ", ".join(map(repr, known))
    return InputError(f"{word[:100]!r} is no command; {nearest(word, known)}choose from {choices}")
