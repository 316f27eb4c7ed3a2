"""`qkd completion bash|zsh|fish`: what completes the command in a shell, made from its parsers.

The script asks nothing of Python while it completes: it holds every command, flag and choice.
"""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib.resources import files

from qkd_qiskit.cli.command_parser import CIRCUITS, TARGETS, CommandParser
from qkd_qiskit.cli.commands import COMMANDS
from qkd_qiskit.errors import InputError

SHELLS = ("bash", "zsh", "fish")
_FREE = "@"  # a flag with a value that is not a choice
_HELP = """Print the script that completes qkd in a shell: commands, flags, recipes, arms, targets.

  bash  qkd completion bash > ~/.local/share/bash-completion/completions/qkd
  zsh   qkd completion zsh > "${fpath[1]}/_qkd"
  fish  qkd completion fish > ~/.config/fish/completions/qkd.fish
In this shell alone, bash or zsh: source <(qkd completion bash)"""


def completion_parser(words: Sequence[str], name: str) -> CommandParser:
    """Return the parser of `qkd completion`."""
    parser = CommandParser(name, description=_HELP)
    parser.add_argument("shell", type=str, values=SHELLS, help="bash, zsh or fish")
    return parser


def run_completion(options: Namespace, words: Sequence[str]) -> int:
    """Print the script of a shell; return the exit status."""
    if options.shell not in SHELLS:
        raise InputError(f"shell: {options.shell!r} is not accepted; give {', '.join(SHELLS)}")
    print(script(options.shell), end="")
    return 0


def script(shell: str) -> str:
    """Return the script of a shell: the table, as a function, in the frame of the shell."""
    frame = files("qkd_qiskit.cli").joinpath(f"completion.{shell}").read_text(encoding="utf-8")
    rows = {key: " ".join(values) for key, values in completions().items()}
    if shell == "fish":
        lines = [
            f"        case {shlex.quote(key)}\n            echo {shlex.quote(text)}"
            for key, text in rows.items()
        ]
    else:
        lines = [
            f"    {shlex.quote(key)}) echo {shlex.quote(text)} ;;" for key, text in rows.items()
        ]
    return frame.replace("@TABLE@", "\n".join(lines))


def completions() -> dict[str, tuple[str, ...]]:
    """Return what can stand where.

    `""` has the commands, `runs` the actions or arguments of a command, `runs list -` its flags and
    `distill --track` the choices of a flag; `@` stands for a value that is not a choice.
    """
    table: dict[str, tuple[str, ...]] = {"": tuple(COMMANDS), " -": ("--help", "--version")}
    named: dict[str, tuple[str, ...]] = {}
    for name, command in COMMANDS.items():
        for action in ("", *command.actions):
            path = f"{name} {action}".strip()
            parser = command.parser([], path)
            _add(table, path, parser, named)
            if command.actions and not action:
                table[path] = tuple(command.actions)
    return table


def _add(
    table: dict[str, tuple[str, ...]],
    path: str,
    parser: CommandParser,
    named: dict[str, tuple[str, ...]],
) -> None:
    values = {flag: _named(choices, named) for flag, choices in parser.values.items()}
    table[path] = tuple(
        value for flag, choices in values.items() if not flag.startswith("-") for value in choices
    )
    flags = [action for action in parser.options if action.option_strings]
    table[f"{path} -"] = tuple(action.option_strings[-1] for action in flags)
    for action in flags:
        if action.nargs != 0:
            flag = action.option_strings[-1]
            table[f"{path} {flag}"] = values.get(flag) or (_FREE,)


def _named(values: Sequence[str], named: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the values, with all names in the place of what stands for them."""
    if not named and {TARGETS, CIRCUITS} & set(values):
        named |= _names()
    return tuple(name for value in values for name in named.get(value, (value,)))


def _names() -> Mapping[str, tuple[str, ...]]:
    from qkd_qiskit.report.reference_circuits import list_reference_circuits
    from qkd_qiskit.targets import list_targets

    targets = tuple(target.name for target in list_targets())
    return {TARGETS: targets, CIRCUITS: tuple(list_reference_circuits())}
