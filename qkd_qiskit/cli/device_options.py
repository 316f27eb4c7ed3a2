"""Options of how circuits run on a device: those of a recipe's runtime that change counts."""

from __future__ import annotations

from argparse import Namespace
from typing import Any, get_args

from qkd_qiskit.cli.command_parser import CommandParser
from qkd_qiskit.errors import InputError
from qkd_qiskit.recipe import Decoupling

TWIRLING = {
    "none": (False, False),
    "gates": (True, False),
    "measurements": (False, True),
    "all": (True, True),
}


def add_device_options(parser: CommandParser) -> None:
    """Let a command take the options; what is left out is as the recipe says."""
    parser.add_argument(
        "--twirling",
        type=str,
        values=list(TWIRLING),
        help="randomise gates, measurements or all of them by Paulis, or none; shots are rounded "
        "up; default for these options: the recipe's runtime",
    )
    parser.add_argument(
        "--dynamical-decoupling",
        type=str,
        values=get_args(Decoupling),
        help="pulses while a qubit idles: none, XX, XpXm, XY4",
    )
    parser.add_argument(
        "--layout", type=str, help="physical qubits of the circuit's qubits 0, 1, ..., as 3,5,8,2"
    )
    parser.add_argument("--optimization-level", type=int, help="of the transpiler, 0 to 3")
    parser.add_argument(
        "--fractional",
        action="store_true",
        default=None,
        help="ask for the device with its gates rx and rzz of any angle",
    )
    parser.add_argument(
        "--mitigate-readout",
        action="store_true",
        default=None,
        help="measure the readout errors in two circuits more of each job, and take them back",
    )


def device_options(options: Namespace) -> dict[str, Any]:
    """Return fields of `RuntimeSpec` for the options that were given.

    Raises:
        InputError: One is not accepted.
    """
    given: dict[str, Any] = {}
    if options.twirling is not None:
        if options.twirling not in TWIRLING:
            raise InputError(
                f"--twirling: {options.twirling!r} is not accepted; give {', '.join(TWIRLING)}"
            )
        given["twirl_gates"], given["twirl_measure"] = TWIRLING[options.twirling]
    if options.dynamical_decoupling is not None:
        given["dynamical_decoupling"] = _sequence(options.dynamical_decoupling)
    if options.layout is not None:
        given["layout"] = _layout(options.layout)
    if options.optimization_level is not None:
        if not 0 <= options.optimization_level <= 3:
            raise InputError(
                f"--optimization-level: {options.optimization_level} is not accepted; give 0 to 3"
            )
        given["optimization_level"] = options.optimization_level
    if options.fractional:
        given["fractional"] = True
    if options.mitigate_readout:
        if getattr(options, "train", None) is not None:
            raise InputError(
                "--mitigate-readout is for an evaluation; a training learns the readout as it is: "
                "leave it or --train out"
            )
        given["readout_mitigation"] = True
    return given


def _sequence(text: str) -> str:
    known: dict[str, str] = {name.lower(): name for name in get_args(Decoupling)}
    if text.lower() not in known:
        accepted = ", ".join(known.values())
        raise InputError(f"--dynamical-decoupling: {text!r} is not accepted; give {accepted}")
    return known[text.lower()]


def _layout(text: str) -> tuple[int, ...]:
    try:
        qubits = tuple(int(part) for part in text.strip("[]").split(","))
    except ValueError:
        qubits = ()
    if not qubits or len(set(qubits)) != len(qubits) or min(qubits) < 0:
        raise InputError(
            f"--layout: {text!r} is not accepted; give distinct qubits of the device, as in "
            "--layout 3,5,8,2"
        )
    return qubits


def device_words(options: Namespace) -> list[str]:
    """Return the options that were given as words of a command."""
    words: list[str] = []
    for name in ("twirling", "dynamical_decoupling", "layout", "optimization_level"):
        value = getattr(options, name)
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    for name in ("fractional", "mitigate_readout"):
        words += [f"--{name.replace('_', '-')}"] if getattr(options, name) else []
    return words
