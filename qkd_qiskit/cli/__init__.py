"""The `qkd` command.

Exit status: 0 done, 2 bad input, 1 a failure, 128 + the signal interrupted (130 for Ctrl-C).
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence

from qkd_qiskit.cli.command_parser import CommandParser, help_of_commands, unknown_command
from qkd_qiskit.cli.commands import COMMANDS
from qkd_qiskit.cli.error_messages import discard_output, fail
from qkd_qiskit.cli.interrupts import as_interrupts
from qkd_qiskit.errors import InputError, QKDError

DESCRIPTION = (
    "Distil a classical teacher into a quantum circuit that runs on IBM hardware, and know whether "
    "it helped."
)
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    with as_interrupts() as interrupts:
        status = _main(arguments)
    return interrupts.status if status == _INTERRUPTED else status


def _main(arguments: Sequence[str] | None) -> int:
    _open_closed_streams()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("qkd_qiskit.simulator").setLevel(logging.INFO)  # what takes seconds is said
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(words)
        sys.stdout.flush()
    except InputError as error:
        return fail(str(error), status=2)
    except QKDError as error:
        return fail(str(error), status=1)
    except KeyboardInterrupt:
        return fail("interrupted", status=_INTERRUPTED)
    except BrokenPipeError:  # the reader has seen enough, as `head` does
        discard_output()
        return 0
    except OSError as error:
        discard_output()
        where = f" {error.filename}" if error.filename else ""
        return fail(f"cannot read or write{where}: {error.strerror or error}", status=1)
    return status


def _open_closed_streams() -> None:
    """Give what is written somewhere to go where a stream was closed, as by `>&-`."""
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()


def _run(words: Sequence[str]) -> int:
    broken = next((word for word in words if "\0" in word), None)
    if broken is not None:
        raise InputError(f"{broken[:100]!r} is not accepted; give words without null bytes")
    if not words:
        raise InputError(f"a command is missing; give one of {', '.join(COMMANDS)}: `qkd --help`")
    name = words[0]
    if name in ("-h", "--help"):
        texts = {
            name: f"{command.help}{': ' + ', '.join(command.actions) if command.actions else ''}"
            for name, command in COMMANDS.items()
        }
        _show_help(help_of_commands("", texts, description=DESCRIPTION))
    if name == "--version":
        print(f"qkd {_version()}")
        return 0
    if name.startswith("-"):
        raise InputError(f"{name[:100]} is not an option; give a command first: `qkd --help`")
    if name not in COMMANDS:
        raise unknown_command(name, list(COMMANDS))
    command, rest, action = COMMANDS[name], list(words[1:]), ""
    if command.actions:
        if rest[:1] in (["-h"], ["--help"]):
            text = f"{command.help[0].upper()}{command.help[1:]}."
            _show_help(help_of_commands(name, command.actions, description=text))
        if rest and not rest[0].startswith("-"):
            action = rest.pop(0)
            if action not in command.actions:
                raise unknown_command(action, list(command.actions))
    options = command.parser(rest, f"{name} {action}".strip()).read(rest)
    options.action = action
    return command.run(options, words)


def _show_help(parser: CommandParser) -> None:
    parser.print_help()
    raise SystemExit(0)


def _version() -> str:
    from importlib.metadata import version

    return version("qkd-qiskit")
