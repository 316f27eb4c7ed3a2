"""The devices of a rehearsal: what the service says of them, and what runs their circuits."""

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import QuantumCircuit
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qkd_qiskit.errors import InputError, TargetError
from qkd_qiskit.targets import noise
from qkd_qiskit.targets.ibm.emulator.ledger import PubLoad
from qkd_qiskit.targets.ibm.emulator.programs import ExecutorProgram, ProgramItem, circuit_digest
from qkd_qiskit.targets.ibm.usage_model import Timing, device_timing
from qkd_qiskit.targets.sampling import make_simulator, sample_registers
from qkd_qiskit.targets.snapshots import fake_backend

STATUSES = ("active", "internal", "paused", "maintenance", "offline")
"""What a device's status may be; only an active one runs jobs, only an offline one is down."""
_CACHED_CIRCUITS = 64


@dataclass(frozen=True, eq=False)
class _Prepared:
    noisy: noise.NoisyCircuit
    simulator: Any


class EmulatedDevice:
    """A device snapshot under the name of the real device."""

    def __init__(self, fake_name: str, *, noisy: bool = True):
        """Take the name of a snapshot such as ``fake_torino``, and whether it has its noise.

        Raises:
            TargetError: There is no such snapshot.
        """
        if not fake_name.startswith("fake_"):
            raise TargetError(
                f"{fake_name!r} cannot be rehearsed; give a device snapshot such as fake_torino, "
                "`qkd targets list` shows them"
            )
        self.backend = fake_backend(fake_name)
        self.fake_name = fake_name
        self.name = f"ibm_{fake_name.removeprefix('fake_')}"
        """The name that it is served under."""
        self.noisy = noisy
        self.timing: Timing = device_timing(self.backend)
        self._status = "active"
        folder = Path(self.backend.dirname)
        self.configuration: dict[str, Any] = json.loads(
            (folder / self.backend.conf_filename).read_text(encoding="utf-8")
        ) | {"backend_name": self.name, "local": False, "simulator": False}
        """What ``GET /backends/NAME/configuration`` answers."""
        self.properties: dict[str, Any] = json.loads(
            (folder / self.backend.props_filename).read_text(encoding="utf-8")
        ) | {"backend_name": self.name}
        """What ``GET /backends/NAME/properties`` answers."""
        self._device = noise.calibrated_part(self.backend.target)
        self._prepared: OrderedDict[str, _Prepared] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def status(self) -> str:
        """One of `STATUSES`; jobs wait while it is not ``active``."""
        return self._status

    @status.setter
    def status(self, status: str) -> None:
        if status not in STATUSES:
            raise TargetError(
                f"status of {self.name} is {status!r}; accepted are {', '.join(STATUSES)}"
            )
        self._status = status

    def describe(self, queued: int) -> dict[str, Any]:
        """Return the entry of ``GET /backends``."""
        online = self._status == "active"
        return {
            "name": self.name,
            "status": {
                "name": "online" if online else "offline" if self.down else "paused",
                "reason": "available" if online else self._status,
            },
            "qubits": self.configuration["n_qubits"],
            "is_simulator": False,
            "queue_length": queued,
            "processor_type": self.configuration.get("processor_type"),
        }

    @property
    def down(self) -> bool:
        """Whether it is offline."""
        return self._status == "offline"

    def problem(self, program: ExecutorProgram) -> str | None:
        """Return why the device cannot run a program, or None."""
        from qiskit_ibm_runtime.exceptions import IBMInputValueError
        from qiskit_ibm_runtime.utils.validations import validate_isa_circuits, validate_rzz_pubs

        if program.meas_level != "classified":
            return f"measurement level {program.meas_level!r} is not simulated, only 'classified'"
        for pub in program.pubs:
            if pub.circuit.has_control_flow_op():
                return "circuits with control flow are not simulated"
            try:
                validate_isa_circuits([pub.circuit], self.backend.target)
                if pub.values is not None:
                    validate_rzz_pubs([SamplerPub.coerce((pub.circuit, pub.values, pub.shots))])
                self._prepare(pub.circuit)
            except (IBMInputValueError, InputError) as error:
                return " ".join(str(getattr(error, "message", error)).split())
        return None

    def load(self, pub: ProgramItem, *, runs: bool = True) -> PubLoad:
        """Return what a PUB asks of the device; its duration is None where it cannot run."""
        noisy = self._prepare(pub.circuit).noisy if runs else None
        return PubLoad(
            circuits=pub.circuits,
            shots=pub.shots,
            qubits=len(noise.used_qubits(pub.circuit) if noisy is None else noisy.qubits),
            two_qubit_gates=noise.count_two_qubit_gates(pub.circuit),
            duration_s=None if noisy is None else noisy.duration_s,
        )

    def program_timing(self, program: ExecutorProgram) -> Timing:
        """Return the times that each execution of a program pays."""
        rep_delay = program.rep_delay_s
        return Timing(
            rep_delay_s=self.timing.rep_delay_s if rep_delay is None else rep_delay,
            init_s=self.timing.init_s if program.init_qubits else 0.0,
        )

    def run(self, pub: ProgramItem, *, seed: int) -> dict[str, NDArray[Any]]:
        """Return the bits (*shape, shots, bits) of each register, bit 0 first."""
        prepared = self._prepare(pub.circuit)
        values, twirls = pub.sample_values(seed)
        registers = sample_registers(
            prepared.noisy.circuit,
            values,
            parameters=tuple(parameter.name for parameter in pub.circuit.parameters),
            simulator=prepared.simulator,
            shots=pub.shots,
            seed=seed,
        )
        measured = {
            name: bits.to_bool_array(order="little").reshape(*pub.shape, pub.shots, bits.num_bits)
            for name, bits in registers.items()
        }
        return {**{name: np.asarray(array) for name, array in twirls.items()}, **measured}

    def _prepare(self, circuit: QuantumCircuit) -> _Prepared:
        key = circuit_digest(circuit)
        with self._lock:
            prepared = self._prepared.get(key)
            if prepared is None:
                noisy = noise.with_noise(
                    _without_isolated(circuit), self._device, scale=1.0 if self.noisy else 0.0
                )
                simulator = make_simulator(len(noisy.qubits), noise_model=noisy.noise_model)
                prepared = self._prepared[key] = _Prepared(noisy, simulator)
            self._prepared.move_to_end(key)
            while len(self._prepared) > _CACHED_CIRCUITS:
                self._prepared.popitem(last=False)
        return prepared


def _without_isolated(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the circuit without gates on qubits that no other and no measurement depends on.

    Dynamical decoupling turns every idle qubit of a device back and forth.
    """
    joined = {
        qubit
        for instruction in circuit.data
        if instruction.operation.name != "barrier"
        and (len(instruction.qubits) > 1 or instruction.clbits)
        for qubit in instruction.qubits
    }
    kept = circuit.copy_empty_like()
    for instruction in circuit.data:
        if instruction.operation.name == "barrier" or joined.issuperset(instruction.qubits):
            kept.append(instruction)
    return kept
