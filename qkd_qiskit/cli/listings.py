"""`qkd recipes`, `qkd circuits` and `qkd targets`: what there is to use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from qkd_qiskit.cli.emulate import rehearse_parser, run_rehearse
from qkd_qiskit.cli.output import print_columns
from qkd_qiskit.recipe.parsing import dump_recipe, list_recipes, load_recipe

_GROUPS: dict[str, tuple[str, dict[str, list[str]]]] = {
    "recipes": ("the built-in recipes", {"list": [], "show": ["recipe"]}),
    "circuits": (
        "the zoo of reference circuits",
        {"list": [], "show": ["circuit"], "export": ["directory"]},
    ),
    "targets": ("simulators and devices", {"list": [], "snapshot": ["device", "file"]}),
}
_ARGUMENT_HELP = {
    "recipe": "name of a built-in recipe, or path of a YAML file",
    "circuit": "name of a reference circuit",
    "directory": "folder for the OpenQASM 3 files, drawings and table",
    "device": "a device of your account, such as ibm_torino",
    "file": "JSON file for its calibration; as a target, its name is that file",
}


def add_listings(commands: Any) -> None:
    """Add the groups and their actions to the commands."""
    for name, (text, actions) in _GROUPS.items():
        group = ArgumentParser(description=text, exit_on_error=False)
        listed = [*actions, *(["rehearse"] if name == "targets" else [])]
        commands.add_subcommand(name, group, help=f"{text}: {', '.join(listed)}")
        nested = group.add_subcommands(dest="action", metavar="ACTION", required=False)
        for action, arguments in actions.items():
            leaf = ArgumentParser(exit_on_error=False)
            for argument in arguments:
                leaf.add_argument(argument, type=str, help=_ARGUMENT_HELP[argument])
            nested.add_subcommand(action, leaf, help=f"{action} {' '.join(arguments).upper()}")
        if name == "targets":
            nested.add_subcommand(
                "rehearse", rehearse_parser(), help="serve a device here, to submit to unpaid"
            )


def run_recipes(options: Namespace, words: Sequence[str]) -> int:
    """List the built-in recipes, or show one; returns the exit status."""
    if options.action == "show":
        print(dump_recipe(load_recipe(options.show.recipe)), end="")
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
        print(reference_circuit(options.show.circuit).circuit.draw("text", fold=100))
    elif options.action == "export":
        for path in export_reference_circuits(options.export.directory):
            print(path)
    else:
        print_columns(
            {name: entry.description for name, entry in list_reference_circuits().items()}
        )
    return 0


def run_targets(options: Namespace, words: Sequence[str]) -> int:
    """List the targets, save a device's calibration, or rehearse; returns the exit status."""
    from qkd_qiskit.targets import list_targets

    if options.action == "snapshot":
        return _snapshot(options.snapshot.device, options.snapshot.file)
    if options.action == "rehearse":
        return run_rehearse(options.rehearse)

    rows = {"exact": "ideal probabilities, no shots", "aer": "ideal, sampled"}
    for target in list_targets():
        if target.num_qubits is not None:
            gate = target.two_qubit_gate or "no two-qubit gate"
            rows[target.name] = (
                f"{target.num_qubits:4d} qubits, {gate}, calibrated {target.calibration_date}"
            )
    print_columns(rows)
    return 0


def _snapshot(device: str, file: str) -> int:
    from qkd_qiskit.targets.calibration_files import save_snapshot
    from qkd_qiskit.targets.ibm.connection import real_backend
    from qkd_qiskit.targets.snapshots import fake_backend

    backend = fake_backend(device) if device.startswith("fake_") else real_backend(device)
    save_snapshot(backend, file)
    print(f"calibration of {device} written to {file}; evaluate on it with --target {file}")
    return 0
