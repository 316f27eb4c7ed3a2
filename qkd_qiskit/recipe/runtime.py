"""How jobs are sent to IBM Quantum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qkd_qiskit.recipe.display import short_repr
from qkd_qiskit.recipe.validation import Count, check_fields

Mode = Literal["session", "batch", "job"]
Decoupling = Literal["none", "XX", "XpXm", "XY4"]


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
    """

    mode: Mode = "batch"
    twirl_gates: bool = False
    twirl_measure: bool = False
    dynamical_decoupling: Decoupling = "none"
    max_execution_time: Count | None = None
    session_max_time: Count | None = None
    max_executions: Count = 10_000_000

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self, "runtime")

    @property
    def twirled(self) -> bool:
        """Say whether anything is twirled."""
        return self.twirl_gates or self.twirl_measure
