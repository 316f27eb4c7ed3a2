"""`qkd recipes`, `qkd circuits` and `qkd targets`: what there is to use."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence

from qkd_qiskit.cli.command_parser import CIRCUITS as ALL_CIRCUITS
from qkd_qiskit.cli.command_parser import CommandParser
from qkd_qiskit.cli.commands import CIRCUITS, RECIPES, TARGETS
from qkd_qiskit.cli.emulate import rehearse_parser, run_rehearse
from qkd_qiskit.cli.line_breaks import broken
from qkd_qiskit.cli.output import print_columns
from qkd_qiskit.errors import InputError
from qkd_qiskit.recipe.parsing import dump_recipe, list_recipes, load_recipe
from qkd_qiskit.recipe.schema import recipe_schema

_ARGUMENTS = {
    "recipes show": {"recipe": "name of a built-in recipe, or path of a YAML file"},
    "circuits show": {"circuit": "name of a reference circuit"},
    "circuits export": {"directory": "folder for the OpenQASM 3 files, drawings and table"},
    "targets snapshot": {
        "device": "a device of your account, such as ibm_torino",
        "file": "JSON file for its calibration; as a target, its name is that file",
    },
}


def listing_parser(words: Sequence[str], name: str) -> CommandParser:
    """Return the parser of an action of `qkd recipes`, `qkd circuits` or `qkd targets`."""
    if name == "targets rehearse":
        return rehearse_parser(name)
    group, _, action = name.partition(" ")
    texts = {"recipes": RECIPES, "circuits": CIRCUITS, "targets": TARGETS}[group]
    parser = CommandParser(name, description=texts[action or "list"])
    for argument, text in _ARGUMENTS.get(name, {}).items():
        parser.add_argument(argument, values=_values(argument), help=text)
    if name == "targets snapshot":
        parser.add_argument(
            "--history",
            type=str,
            help="calibrations of so many days back, as 30d; FILE is then a folder, with a "
            "snapshot of each",
        )
    return parser


def _values(argument: str) -> list[str] | None:
    """Return what a shell offers for an argument."""
    return {"recipe": list(list_recipes()), "circuit": [ALL_CIRCUITS]}.get(argument)


def run_recipes(options: Namespace, words: Sequence[str]) -> int:
    """List the built-in recipes, show one or their schema; returns the exit status."""
    if options.action == "show":
        print(dump_recipe(load_recipe(options.recipe)), end="")
    elif options.action == "schema":
        print(json.dumps(recipe_schema(), indent=2))
    else:
        print_columns(list_recipes())
    return 0


def run_circuits(options: Namespace, words: Sequence[str]) -> int:
    """List, show or export the reference circuits; returns the exit status."""
    from qkd_qiskit.report.reference_circuits import (
        export_reference_circuits,
        list_reference_circuits,
        reference_circuit,
    )

    if options.action == "show":
        print(reference_circuit(options.circuit).circuit.draw("text", fold=100))
    elif options.action == "export":
        for path in export_reference_circuits(options.directory):
            print(path)
    else:
        print_columns(
            {name: entry.description for name, entry in list_reference_circuits().items()}
        )
    return 0


def run_targets(options: Namespace, words: Sequence[str]) -> int:
    """List the targets, save a device's calibration, or rehearse; returns the exit status."""
    from qkd_qiskit.targets import list_targets
    from qkd_qiskit.targets.names import DEVICE_OPTIONS

    if options.action == "snapshot":
        return _snapshot(options.device, options.file, history=options.history)
    if options.action == "rehearse":
        return run_rehearse(options)

    rows = {"exact": "ideal probabilities, no shots", "aer": "ideal, sampled"}
    for target in list_targets():
        if target.num_qubits is not None:
            gate = target.two_qubit_gate or "no two-qubit gate"
            rows[target.name] = (
                f"{target.num_qubits:4d} qubits, {gate}, calibrated {target.calibration_date}"
            )
    print_columns(rows)
    print()
    print(broken(f"A device takes options after its name: {'; '.join(DEVICE_OPTIONS.values())}."))
    return 0


def _snapshot(device: str, file: str, *, history: str | None) -> int:
    from qkd_qiskit.targets.calibration_files import save_history, save_snapshot
    from qkd_qiskit.targets.ibm.connection import real_backend
    from qkd_qiskit.targets.snapshots import fake_backend

    backend = fake_backend(device) if device.startswith("fake_") else real_backend(device)
    if history is not None:
        days = history.removesuffix("d")
        if not days.isdecimal() or not 1 <= int(days) <= 3650:
            raise InputError(f"--history: {history!r} is not accepted; give days, as in 30d")
        for path in save_history(backend, file, days=int(days)):
            print(path)
        return 0
    save_snapshot(backend, file)
    print(f"calibration of {device} written to {file}; evaluate on it with --target {file}")
    return 0
