"""How jobs are sent to IBM Quantum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from qkd_qiskit.recipe.display import short_repr
from qkd_qiskit.recipe.validation import Count, check_fields, require, whole_number

Mode = Literal["session", "batch", "job"]
Decoupling = Literal["none", "XX", "XpXm", "XY4"]
Qubit = Annotated[int, whole_number(least=0, most=100_000)]
Level = Annotated[int, whole_number(least=0, most=3)]
CHANGING = (
    "twirl_gates",
    "twirl_measure",
    "dynamical_decoupling",
    "layout",
    "optimization_level",
    "fractional",
    "readout_mitigation",
)
"""Fields that change what a device counts."""


@dataclass(frozen=True, kw_only=True)
class RuntimeSpec:
    """How jobs are submitted to a device of IBM Quantum; nothing else reads it.

    Attributes:
        mode: session (the device is held between jobs and the idle time is paid: for training),
            batch (jobs are queued together) or job (each on its own). Plans without sessions get
            a batch.
        twirl_gates: Randomise two-qubit gates with Paulis; shots are rounded up to whole
            randomisations.
        twirl_measure: Likewise measurements.
        dynamical_decoupling: Pulses while a qubit idles: none, XX, XpXm or XY4.
        max_execution_time: QPU seconds after which the service stops a job; null = its own limit.
        session_max_time: Seconds after which a session or batch closes, and another is opened;
            null = the service's own limit.
        max_executions: Circuits times shots of one job; what is larger is split.
        layout: Physical qubits of the circuit's qubits 0, 1, ...; null = what the transpiler finds.
        optimization_level: Of the transpiler, 0 to 3.
        fractional: Ask for the device with its gates rx and rzz of any angle; gates are not
            twirled then.
        readout_mitigation: Measure in each job how often each qubit is read wrongly, in two
            circuits more for each circuit, and take that back from its counts.
    """

    mode: Mode = "batch"
    twirl_gates: bool = False
    twirl_measure: bool = False
    dynamical_decoupling: Decoupling = "none"
    max_execution_time: Count | None = None
    session_max_time: Count | None = None
    max_executions: Count = 10_000_000
    layout: tuple[Qubit, ...] | None = None
    optimization_level: Level = 3
    fractional: bool = False
    readout_mitigation: bool = False

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self, "runtime")
        layout = self.layout
        require(
            layout is None or len(set(layout)) == len(layout) > 0,
            "runtime.layout",
            layout and list(layout),
            "null, or a list of distinct qubits of the device",
        )
        require(
            not (self.fractional and self.twirl_gates),
            "runtime.twirl_gates",
            True,
            "false where runtime.fractional is true: gates of any angle are not twirled",
        )

    @property
    def changes(self) -> dict[str, Any]:
        """Fields of `CHANGING` that are not as by default."""
        plain = {name: type(self).__dataclass_fields__[name].default for name in CHANGING}
        return {
            name: getattr(self, name) for name in CHANGING if getattr(self, name) != plain[name]
        }

    @property
    def twirled(self) -> bool:
        """Say whether anything is twirled."""
        return self.twirl_gates or self.twirl_measure

    def describe(self) -> str:
        """Return `changes` in words, such as `gates twirled, decoupling XY4`; "" for none."""
        return describe_changes(self.changes)


def describe_changes(changes: Mapping[str, object]) -> str:
    """Return what `RuntimeSpec.changes` gave in words."""
    layout = changes.get("layout")
    qubits = ", ".join(map(str, layout)) if isinstance(layout, list | tuple) else ""
    words = {
        "twirl_gates": "gates twirled",
        "twirl_measure": "measurements twirled",
        "dynamical_decoupling": f"decoupling {changes.get('dynamical_decoupling')}",
        "layout": f"on qubits {qubits}",
        "optimization_level": f"optimisation level {changes.get('optimization_level')}",
        "fractional": "fractional gates",
        "readout_mitigation": "readout errors mitigated",
    }
    return ", ".join(text for name, text in words.items() if name in changes)
