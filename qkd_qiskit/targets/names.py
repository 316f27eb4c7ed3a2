"""Names of targets: a base and its options, such as ``fake_torino:scale=2:exact``."""

import re
from collections.abc import Mapping
from typing import Any

from qkd_qiskit.errors import TargetError

DEVICE_OPTIONS = {
    "scale": "scale=2, the device's noise twice as strong",
    "mitigated": "mitigated, readout errors taken back (or mitigated=measured)",
    "exact": "exact, probabilities without shots",
    "readout": "readout=asymmetric, 1 read as 0 more often than 0 as 1, as the calibration has it",
    "overrotation": "overrotation=0.01, gates that turn 1 % too far",
    "zz": "zz=20kHz, crosstalk with neighbours during two-qubit gates",
    "day": "day=30, a synthetic drift so many days after the calibration (walk=1 for another)",
    "dead": "dead=1-2, a coupler that has failed",
    "aer": "aer, shots by Aer's density matrix in place of ours",
}
SYNTHETIC_NUMBERS = ("p1", "p2", "t1", "t2", "readout")
SYNTHETIC_WORDS = ("coupling", "two_qubit_gate")


def split_name(name: str) -> tuple[str, dict[str, str]]:
    """Return the base and its options; a flag such as ``exact`` has an empty value.

    Raises:
        TargetError: An option is named twice.
    """
    # A file's path may have colons of its own.
    head, is_file, rest = name.rpartition(".json")
    base, *parts = rest.split(":")
    options: dict[str, str] = {}
    for part in parts:
        key, _, value = part.partition("=")
        if key in options:
            raise TargetError(f"target {name!r}: option {key!r} is given twice")
        options[key] = value
    return head + is_file + base, options


def without_option(name: str, option: str) -> str:
    """Return a target's name without an option such as ``aer``."""
    base, options = split_name(name)
    kept = (f":{key}={value}" if value else f":{key}" for key, value in options.items())
    return base + "".join(text for key, text in zip(options, kept, strict=True) if key != option)


def device_options(name: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of a device's options, as far as a name has them.

    Raises:
        TargetError: An option is not known, or its value is not accepted.
    """
    if {"exact", "aer"} <= options.keys():
        raise TargetError(f"target {name!r}: exact has no shots for Aer to draw; give one of them")
    settings: dict[str, Any] = {}
    for key, value in options.items():
        if key == "scale":
            settings["scale"] = _number(name, key, value)
        elif key == "mitigated":
            settings["readout_mitigation"] = value or True
        elif key == "exact" and not value:
            settings["exact"] = True
        elif key == "readout" and value in ("asymmetric", "symmetric"):
            settings["asymmetric_readout"] = value == "asymmetric"
        elif key == "overrotation":
            settings["overrotation"] = _number(name, key, value)
        elif key == "zz":
            settings["zz_hz"] = _frequency(name, value)
        elif key in ("day", "walk") and value.isdecimal():
            settings[key] = int(value)
        elif key == "dead" and re.fullmatch(r"\d+-\d+", value):
            settings["dead"] = (frozenset(int(qubit) for qubit in value.split("-")),)
        elif key in ("day", "walk", "dead"):
            wanted = "a whole number" if key != "dead" else "two qubits, as in dead=1-2"
            raise TargetError(f"target {name!r}: {key} is {value!r}; give {wanted}")
        elif key == "readout":
            raise TargetError(
                f"target {name!r}: readout is {value!r}; give asymmetric or symmetric"
            )
        elif key == "aer" and not value:
            settings["simulator"] = "aer"
        else:
            accepted = "; ".join(DEVICE_OPTIONS.values())
            raise TargetError(f"target {name!r}: option {key!r} is not known; accepted: {accepted}")
    return settings


def synthetic_options(
    name: str, options: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings of synthetic noise, and the options that any device has.

    Raises:
        TargetError: The number of qubits is missing, or a number is none.
    """
    rest = dict(options)
    settings: dict[str, Any] = {
        key: _number(name, key, rest.pop(key)) for key in SYNTHETIC_NUMBERS if key in rest
    }
    settings |= {key: rest.pop(key) for key in SYNTHETIC_WORDS if key in rest}
    qubits = rest.pop("qubits", "")
    if not qubits.isdecimal() or len(qubits) > 9:
        raise TargetError(
            f"target {name!r}: give the number of qubits, as in synthetic:qubits=5:p2=0.01; also "
            f"accepted are {', '.join(SYNTHETIC_NUMBERS + SYNTHETIC_WORDS)}"
        )
    return settings | {"qubits": int(qubits)}, rest


def synthetic_name(settings: Mapping[str, Any]) -> str:
    """Return the name that gives these settings."""
    parts = [
        f"{key}={value:.12g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in settings.items()
    ]
    return ":".join(["synthetic", *parts])


def without_day(name: str) -> str:
    """Return the name of a target on the day of its calibration: what maps are kept under."""
    return re.sub(r":day=\d+", "", name)


def _frequency(name: str, value: str) -> float:
    """Return a frequency in Hz."""
    match = re.fullmatch(r"([-+.\d]+(?:e[-+]?\d+)?)(Hz|kHz|MHz)", value)
    if match is None:
        raise TargetError(
            f"target {name!r}: zz is {value!r}; give a frequency in Hz, kHz or MHz, as in zz=20kHz"
        )
    unit = {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6}[match[2]]
    return unit * _number(name, "zz", match[1])


def _number(name: str, key: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise TargetError(
            f"target {name!r}: {key} is {value!r}; give a number, as in {key}=0.5"
        ) from None
