"""The `qkd` command. Exit status: 0 done, 2 bad input, 1 a failure, 130 interrupted."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from qkd_qiskit.bench.command import add_bench
from qkd_qiskit.errors import InputError, QKDError, StorageError
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipes import (
    dump_recipe,
    flat_recipe,
    list_recipes,
    load_recipe,
    recipe_from,
    recipe_keys,
    type_message,
    unknown_key,
)

if TYPE_CHECKING:
    from rich.console import Console

    from qkd_qiskit.console import Terminal
    from qkd_qiskit.runs import RunFolder

DESCRIPTION = """Distil a classical teacher into a quantum circuit that runs on IBM hardware, and
know whether it helped."""
DEFAULT_RECIPE = "digits"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = _parse(words)
        status = _COMMANDS[parsed.command](parsed[parsed.command], words)
        sys.stdout.flush()
    except ArgumentError as error:
        return _fail(_argument_message(error, words), status=2)
    except InputError as error:
        return _fail(str(error), status=2)
    except QKDError as error:
        return _fail(str(error), status=1)
    except KeyboardInterrupt:
        return _fail("interrupted", status=130)
    except BrokenPipeError:  # the reader has seen enough, as `head` does
        _discard_output()
        return 0
    except OSError as error:
        _discard_output()
        where = f" {error.filename}" if error.filename else ""
        return _fail(f"cannot read or write{where}: {error.strerror or error}", status=1)
    return status


def _parse(words: Sequence[str]) -> Namespace:
    """The options; keys that are not given have the values of the recipe, wherever it is named."""
    listed = _bracket_lists(words)
    named = words[:1] == ["distill"] and len(words) > 1 and not words[1].startswith("-")
    recipe = words[1] if named else DEFAULT_RECIPE
    parsed = _parser(recipe if words[:1] == ["distill"] else None).parse_args(listed)
    if parsed.command == "distill" and parsed.distill.recipe not in (None, recipe):
        parsed = _parser(parsed.distill.recipe).parse_args(listed)
    return parsed


def _parser(recipe: str | None) -> ArgumentParser:
    """The parser; the keys of `distill` have the values of the recipe."""
    parser = ArgumentParser(
        prog="qkd", description=DESCRIPTION, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"qkd {_version()}")
    commands = parser.add_subcommands(dest="command", title="commands", metavar="COMMAND")
    commands.add_subcommand(
        "distill", _distill_parser(recipe), help="train a student from a teacher, and compare"
    )
    commands.add_subcommand(
        "evaluate", _evaluate_parser(), help="evaluate a trained run on another target"
    )
    add_bench(commands)
    for name, help_text, actions in (
        ("recipes", "the built-in recipes", {"list": [], "show": ["recipe"]}),
        (
            "circuits",
            "the zoo of reference circuits",
            {"list": [], "show": ["circuit"], "export": ["directory"]},
        ),
        ("targets", "simulators and devices", {"list": [], "snapshot": ["device", "file"]}),
    ):
        group = ArgumentParser(description=help_text, exit_on_error=False)
        commands.add_subcommand(name, group, help=f"{help_text}: {', '.join(actions)}")
        nested = group.add_subcommands(dest="action", metavar="ACTION", required=False)
        for action, arguments in actions.items():
            leaf = ArgumentParser(exit_on_error=False)
            for argument in arguments:
                leaf.add_argument(argument, type=str, help=_ARGUMENT_HELP[argument])
            nested.add_subcommand(action, leaf, help=f"{action} {' '.join(arguments).upper()}")
    return parser


_ARGUMENT_HELP = {
    "recipe": "name of a built-in recipe, or path of a YAML file",
    "circuit": "name of a reference circuit",
    "directory": "folder for the OpenQASM 3 files, drawings and table",
    "device": "a device of your account, such as ibm_torino",
    "file": "JSON file for its calibration; as a target, its name is that file",
}


def _distill_parser(recipe: str | None) -> ArgumentParser:
    parser = ArgumentParser(
        usage="qkd distill [RECIPE] [--KEY VALUE ...] [--out DIR] [--quiet | --json]\n"
        "       qkd distill --resume DIR [--quiet | --json]",
        description="Train a teacher, then students with and without it, over paired seeds; "
        "evaluate them on the targets; write a run folder with a report. Every KEY of the recipe "
        "can be given: --student.qubits 6 --targets exact,aer.",
        exit_on_error=False,
    )
    parser.add_argument(
        "recipe",
        nargs="?",
        help="a built-in recipe (`qkd recipes` lists them), or path of a YAML file; "
        f"without one: {DEFAULT_RECIPE}",
    )
    parser.add_argument("--out", type=str, help="new run folder; default: runs/RECIPE")
    parser.add_argument("--resume", type=str, help="run folder to continue, with its own recipe")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print the result as JSON only")
    parser.add_class_arguments(Recipe)
    if recipe is not None:
        parser.set_defaults(flat_recipe(load_recipe(recipe)))
    return parser


def _evaluate_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Evaluate the students of a finished run on another target, and add the "
        "figures to its result.json and report.",
        exit_on_error=False,
    )
    parser.add_argument("run", type=str, help="run folder")
    parser.add_argument("--target", type=str, required=True, help="exact, aer or fake_<device>")
    parser.add_argument("--shots", type=int, help="shots per image; default: the recipe's")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print the result as JSON only")
    return parser


def _distill(options: Namespace, words: Sequence[str]) -> int:
    from qkd_qiskit.runs import RECIPE, RunFolder, new_folder

    if options.resume is None:
        recipe = recipe_from({key: options.as_dict()[key] for key in _nested_keys()})
        path = options.out or new_folder(options.recipe or DEFAULT_RECIPE)
        folder = RunFolder.create(path, recipe)
        try:
            return _run(folder, options, command=["qkd", *words])
        except InputError:
            folder.discard()
            raise
    keys = [f"--{key}" for key in (*recipe_keys(), *_nested_keys())]
    own = [*filter(None, [options.recipe]), *_given(words, ["--out", *keys])]
    if own:
        raise InputError(
            f"{own[0]} was given with --resume, which goes on with the recipe in "
            f"{options.resume}; leave it out, or start a new run"
        )
    folder = RunFolder.open(options.resume)
    # What repeats a run is its recipe: the command that started it is not known here.
    return _run(folder, options, command=["qkd", "distill", str(folder.path / RECIPE)])


def _run(folder: RunFolder, options: Namespace, *, command: Sequence[str]) -> int:
    from qkd_qiskit.report import write_report
    from qkd_qiskit.study import run

    resume = f"to continue: qkd distill --resume {shlex.quote(str(folder.path))}"
    try:
        with _terminal(options) as terminal:
            result = run(folder, observer=terminal, command=shlex.join(command))
            terminal.stage("report")
            write_report(folder)
    except KeyboardInterrupt:
        return _fail(f"interrupted; {resume}", status=130)
    except StorageError as error:
        return _fail(f"{error}; {resume}", status=1)
    return _show_result(folder, result, options)


def _evaluate(options: Namespace, words: Sequence[str]) -> int:
    from qkd_qiskit.report import write_report
    from qkd_qiskit.runs import RunFolder
    from qkd_qiskit.study import evaluate_run

    folder = RunFolder.open(options.run)
    with _terminal(options) as terminal:
        result = evaluate_run(folder, options.target, shots=options.shots, observer=terminal)
        terminal.stage("report")
        write_report(folder)
    return _show_result(folder, result, options)


def _bench(options: Namespace, words: Sequence[str]) -> int:
    from qkd_qiskit.bench.command import run_bench

    if options.action is None:
        raise InputError("what to bench is missing; give noise or shots, as in qkd bench noise RUN")
    given = options[options.action]
    try:
        with _terminal(given) as terminal:
            outcome = run_bench(options.action, given, observer=terminal)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from here", status=130)
    if given.json:
        print(json.dumps(outcome.summary, indent=2))
    elif not given.quiet:
        console = _console()
        console.print(outcome.table)
        for path in outcome.files:
            console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    return 0


def _recipes(options: Namespace, words: Sequence[str]) -> int:
    if options.action == "show":
        print(dump_recipe(load_recipe(options.show.recipe)), end="")
    else:
        _print_columns(list_recipes())
    return 0


def _circuits(options: Namespace, words: Sequence[str]) -> int:
    from qkd_qiskit.circuits.zoo import export_zoo, list_zoo, zoo_circuit

    if options.action == "show":
        print(zoo_circuit(options.show.circuit).circuit.draw("text", fold=100))
    elif options.action == "export":
        for path in export_zoo(options.export.directory):
            print(path)
    else:
        _print_columns({name: entry.description for name, entry in list_zoo().items()})
    return 0


def _targets(options: Namespace, words: Sequence[str]) -> int:
    from qkd_qiskit.hardware import list_targets

    if options.action == "snapshot":
        return _snapshot(options.snapshot.device, options.snapshot.file)

    rows = {"exact": "ideal probabilities, no shots", "aer": "ideal, sampled"}
    for target in list_targets():
        if target.num_qubits is not None:
            gate = target.two_qubit_gate or "no two-qubit gate"
            rows[target.name] = (
                f"{target.num_qubits:4d} qubits, {gate}, calibrated {target.calibration_date}"
            )
    _print_columns(rows)
    return 0


def _snapshot(device: str, file: str) -> int:
    from qkd_qiskit.hardware.calibration_files import save_snapshot
    from qkd_qiskit.hardware.runtime import real_backend
    from qkd_qiskit.hardware.snapshots import fake_backend

    backend = fake_backend(device) if device.startswith("fake_") else real_backend(device)
    save_snapshot(backend, file)
    print(f"calibration of {device} written to {file}; evaluate on it with --target {file}")
    return 0


_COMMANDS = {
    "distill": _distill,
    "evaluate": _evaluate,
    "bench": _bench,
    "recipes": _recipes,
    "circuits": _circuits,
    "targets": _targets,
}


def _show_result(folder: RunFolder, result: dict[str, Any], options: Namespace) -> int:
    from qkd_qiskit.console import summary_table
    from qkd_qiskit.runs import REPORT

    if options.json:
        print(json.dumps(result, indent=2))
    elif not options.quiet:
        console = _console()
        console.print(summary_table(result))
        for arm, failed in result["failed"].items():
            for seed, reason in failed.items():
                text = f"failed, left out: {arm}, seed {seed}: {reason}"
                console.print(text, markup=False, highlight=False, soft_wrap=True)
        for population, cost in result.get("training_cost", {}).items():
            circuits, executions = cost["circuits"], cost["executions"]
            text = f"training the {population}: {circuits:,} circuits, {executions:,} executions"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        path = folder.path / REPORT
        console.print(f"report: {path}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _terminal(options: Namespace) -> Terminal:
    from rich.console import Console

    from qkd_qiskit.console import Terminal

    return Terminal(Console(quiet=True) if options.quiet or options.json else _console())


def _console() -> Console:
    from rich.console import Console

    # A pipe has no width: 80 columns would cut the table.
    return Console(width=None if sys.stdout.isatty() else 120)


def _print_columns(rows: Mapping[str, str]) -> None:
    width = max(len(name) for name in rows)
    for name, text in rows.items():
        print(f"{name:<{width}}  {text}")


def _nested_keys() -> list[str]:
    return list(dict.fromkeys(key.partition(".")[0] for key in recipe_keys()))


def _given(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    return [word for word in words if word.partition("=")[0] in flags]


def _bracket_lists(words: Sequence[str]) -> list[str]:
    """Lets a list be written `a,b` or, where only a list is accepted, `a`."""
    result: list[str] = []
    for word in words:
        flag, equals, value = word.partition("=")
        if not equals and result and result[-1].startswith("--"):
            flag, value = result[-1], word
        kind = str(recipe_keys().get(flag.removeprefix("--"), ""))
        only_list = kind.startswith("tuple") and not value.startswith("-") and value != "null"
        if value and "tuple" in kind and value[0] != "[" and ("," in value or only_list):
            value = f"[{value}]"
            if equals:
                result.append(f"{flag}={value}")
            else:
                result.append(value)
        else:
            result.append(word)
    return result


def _argument_message(error: Exception, words: Sequence[str]) -> str:
    text = " ".join(str(error).split())
    if "but it was not provided" in text:
        return f"a command is missing; give one of {', '.join(_COMMANDS)}: `qkd --help`"
    missing = re.match(r"the following arguments are required: (.*)", text)
    if missing:
        names = [name.strip().rpartition(".")[2] for name in missing[1].split(",")]
        command = " ".join(missing[1].partition(",")[0].split(".")[:-1])
        return f"{' and '.join(names)} missing; see `qkd {command} --help`"
    unknown = re.match(r"unrecognized arguments: (\S+)", text)
    if unknown and unknown[1].startswith("--"):
        flag = unknown[1].partition("=")[0].removeprefix("--")
        return unknown_key(flag) if words[:1] == ["distill"] else f"--{flag} is not an option"
    group = re.match(r'Parser key "(\w+)"', text)
    if group and group[1] in _nested_keys() and group[1] not in recipe_keys():
        return f"--{group[1]} cannot be read; give its keys one by one, see `qkd distill --help`"
    given = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, equals, value = word.partition("=")
        given[flag.removeprefix("--")] = value if equals else following
    return type_message(error, given)


def _fail(message: str, *, status: int) -> int:
    print(f"qkd: {' '.join(message.split())}", file=sys.stderr)
    return status


def _discard_output() -> None:
    # What is still buffered cannot be written either: Python would complain when it exits.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version() -> str:
    from importlib.metadata import version

    return version("qkd-qiskit")
