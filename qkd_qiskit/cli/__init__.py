"""The `qkd` command. Exit status: 0 done, 2 bad input, 1 a failure, 130 interrupted."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from qkd_qiskit.cli import recipe_options as keys
from qkd_qiskit.cli.distill import distill_parser, run_distill
from qkd_qiskit.cli.error_messages import argument_message, discard_output, fail
from qkd_qiskit.cli.evaluate import evaluate_parser, run_evaluate
from qkd_qiskit.cli.listings import add_listings, run_circuits, run_recipes, run_targets
from qkd_qiskit.cli.study import run_study, study_parser
from qkd_qiskit.cli.submit import collect_parser, run_collect, run_submit, submit_parser
from qkd_qiskit.cli.sweep import add_sweep, run_sweep
from qkd_qiskit.errors import InputError, QKDError

DESCRIPTION = """Distil a classical teacher into a quantum circuit that runs on IBM hardware, and
know whether it helped."""
_COMMANDS: dict[str, Callable[[Namespace, Sequence[str]], int]] = {
    "distill": run_distill,
    "study": run_study,
    "evaluate": run_evaluate,
    "submit": run_submit,
    "collect": run_collect,
    "sweep": run_sweep,
    "bench": run_sweep,
    "recipes": run_recipes,
    "circuits": run_circuits,
    "targets": run_targets,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = _parse(words)
        status = _COMMANDS[parsed.command](parsed[parsed.command], words)
        sys.stdout.flush()
    except ArgumentError as error:
        return fail(argument_message(error, words, commands=list(_COMMANDS)), status=2)
    except InputError as error:
        return fail(str(error), status=2)
    except QKDError as error:
        return fail(str(error), status=1)
    except KeyboardInterrupt:
        return fail("interrupted", status=130)
    except BrokenPipeError:  # the reader has seen enough, as `head` does
        discard_output()
        return 0
    except OSError as error:
        discard_output()
        where = f" {error.filename}" if error.filename else ""
        return fail(f"cannot read or write{where}: {error.strerror or error}", status=1)
    return status


def _parse(words: Sequence[str]) -> Namespace:
    """The options; keys that are not given have the values of the recipe, wherever it is named."""
    listed = keys.bracket_lists(words)
    if not words or words[0] not in keys.COMMANDS:
        return _parser(None).parse_args(listed)
    named = len(words) > 1 and not words[1].startswith("-")
    recipe = words[1] if named else keys.DEFAULT_RECIPE
    parsed = _parser(recipe).parse_args(listed)
    given = parsed[words[0]].recipe
    return parsed if given in (None, recipe) else _parser(given).parse_args(listed)


def _parser(recipe: str | None) -> ArgumentParser:
    """The parser; the keys of a recipe have the values of this one."""
    parser = ArgumentParser(
        prog="qkd", description=DESCRIPTION, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"qkd {_version()}")
    commands = parser.add_subcommands(dest="command", title="commands", metavar="COMMAND")
    commands.add_subcommand(
        "distill", distill_parser(recipe), help="train a student from a teacher, and compare"
    )
    commands.add_subcommand(
        "study", study_parser(recipe), help="is the gain real? paired seeds, controls, statistics"
    )
    commands.add_subcommand(
        "evaluate", evaluate_parser(), help="evaluate a trained run on another target"
    )
    commands.add_subcommand(
        "submit", submit_parser(), help="evaluate a trained run on a device of IBM Quantum"
    )
    commands.add_subcommand("collect", collect_parser(), help="finish what was submitted")
    add_sweep(commands)
    add_listings(commands)
    return parser


def _version() -> str:
    from importlib.metadata import version

    return version("qkd-qiskit")
