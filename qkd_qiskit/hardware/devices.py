"""The noisy targets: a device's basis, coupling and noise, simulated by Aer."""

import copy
import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import QuantumCircuit
from qiskit.transpiler import generate_preset_pass_manager
from qiskit.transpiler.exceptions import TranspilerError

from qkd_qiskit.errors import TargetError
from qkd_qiskit.hardware import noise
from qkd_qiskit.hardware.compiled import (
    CompiledCircuit,
    content_digest,
    measure_all_qubits,
    parameter_names,
)
from qkd_qiskit.hardware.described import DescribedBackend, synthetic_device
from qkd_qiskit.hardware.names import synthetic_name
from qkd_qiskit.hardware.sampling import make_simulator, sample_probabilities
from qkd_qiskit.hardware.targets import Target

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class DeviceProgram:
    """What a `DeviceTarget` runs: a circuit, its noise model and the simulator that has both."""

    noisy: noise.NoisyCircuit
    """Circuit on the used qubits with its noise model."""
    simulator: Any
    """`AerSimulator` with that noise model."""


class DeviceTarget(Target):
    """A device's basis, coupling and noise, simulated: a best case, without crosstalk or drift.

    The noise is that of `NoiseModel.from_backend`: depolarising and relaxation errors per gate,
    relaxation while a qubit idles, readout errors. `scale` strengthens or weakens all of it
    (see `described.scaled_device`); the circuit stays the same.
    """

    def __init__(
        self,
        backend: Any,
        *,
        name: str | None = None,
        shots: int | None = 4096,
        seed: int = 0,
        num_transpilations: int = 10,
        scale: float = 1.0,
    ):
        """Take a `BackendV2` with a calibrated `target`.

        Args:
            backend: a device snapshot, or any backend whose `target` has errors and durations.
            name: name of the target; the backend's by default.
            shots: shots per row of a batch; None for exact probabilities under the noise, on at
                most 8 used qubits.
            seed: seed that transpiler and shot seeds derive from.
            num_transpilations: transpiler seeds tried per circuit, the best is kept.
            scale: what the noise is multiplied by: 0 is none, 1 the device's.

        Raises:
            TargetError: shots, seed or scale is not accepted.
        """
        super().__init__(name or backend.name, shots=shots, seed=seed)
        self.device_name = self.name
        """The device without what is changed about it."""
        self.backend = backend
        self.num_transpilations = num_transpilations
        self._set_scale(scale)
        self.calibration_date = _calibration_date(backend)
        self._device = noise.calibrated_part(backend.target)
        self._transpiled: dict[str, QuantumCircuit] = {}

    def _set_scale(self, scale: float) -> None:
        if not 0 <= scale < math.inf:
            raise TargetError(f"scale is {scale}; accepted are finite numbers from 0")
        self.scale = float(scale)
        """What the device's noise is multiplied by."""
        self.options = {"scale": self.scale}
        self.name = self.device_name + (f":scale={scale:.12g}" if scale != 1 else "")
        self.name += "" if self.sampled else ":exact"

    def scaled(self, scale: float) -> "DeviceTarget":
        """Return the same device with its own noise multiplied by `scale`.

        It shares this target's transpiled circuits: a sweep transpiles once.

        Raises:
            TargetError: the scale is not accepted.
        """
        made = copy.copy(self)
        made._compiled = {}
        made._set_scale(scale)
        return made

    def _compile(self, circuit: QuantumCircuit) -> CompiledCircuit:
        device = self._device
        for what, have in (
            ("", device.num_qubits),
            (" calibrated", len(device["measure"]) if "measure" in device else 0),
        ):
            if circuit.num_qubits > have:
                raise TargetError(
                    f"circuit {circuit.name!r} has {circuit.num_qubits} qubits, {self.name} has "
                    f"{have}{what}; use a smaller circuit or a larger device"
                )
        key = content_digest(circuit)
        if key not in self._transpiled:
            self._transpiled[key] = self._best_transpilation(circuit)
        best = self._transpiled[key]
        noisy = noise.with_noise(best, device, scale=self.scale)
        return CompiledCircuit(
            target=self.name,
            circuit=best,
            parameters=parameter_names(circuit),
            num_qubits=circuit.num_qubits,
            layout=_initial_layout(best, circuit.num_qubits),
            measured=_measured_qubits(best),
            two_qubit_gates=noise.count_two_qubit_gates(best),
            depth=best.depth(),
            duration_s=noisy.duration_s,
            fidelity=noise.estimate_fidelity(best, device, scale=self.scale),
            program=DeviceProgram(
                noisy=noisy,
                simulator=make_simulator(len(noisy.qubits), noise_model=noisy.noise_model),
            ),
        )

    def _best_transpilation(self, circuit: QuantumCircuit) -> QuantumCircuit:
        candidates = self._transpile(measure_all_qubits(circuit))
        best = min(
            candidates,
            key=lambda isa: (
                noise.count_two_qubit_gates(isa),
                isa.depth(),
                -noise.estimate_fidelity(isa, self._device),
            ),
        )
        logger.debug(
            "%s: best of %d transpilations has %d two-qubit gates, depth %d",
            self.device_name,
            len(candidates),
            noise.count_two_qubit_gates(best),
            best.depth(),
        )
        return best

    def _transpile(self, measured: QuantumCircuit) -> list[QuantumCircuit]:
        try:
            return [
                generate_preset_pass_manager(
                    optimization_level=3, target=self._device, seed_transpiler=seed
                ).run(measured)
                for seed in self._transpiler_seeds(self.num_transpilations)
            ]
        except TranspilerError as error:
            raise TargetError(
                f"circuit {measured.name!r} cannot be transpiled to the calibrated part of "
                f"{self.name}: "
                f"{' '.join(str(error.message).split())}"
            ) from error

    def _run(
        self, compiled: CompiledCircuit, values: NDArray[np.float64], *, shots: int, seed: int
    ) -> NDArray[np.float64]:
        program: DeviceProgram = compiled.program
        if not self.sampled:
            return self._run_exactly(compiled, values)
        return sample_probabilities(
            program.noisy.circuit,
            values,
            parameters=compiled.parameters,
            simulator=program.simulator,
            shots=shots,
            seed=seed,
        )

    def _run_exactly(
        self, compiled: CompiledCircuit, values: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        from qkd_qiskit.hardware.exact import exact_rows

        return exact_rows(compiled, compiled.program.noisy, values)


def synthetic(
    qubits: int, *, shots: int | None = 4096, seed: int = 0, scale: float = 1.0, **settings: Any
) -> DeviceTarget:
    """Return a device with the same noise on every qubit and gate.

    Args:
        qubits: qubits of the device.
        shots: as for `DeviceTarget`.
        seed: as for `DeviceTarget`.
        scale: as for `DeviceTarget`.
        settings: p1, p2, t1, t2, readout, coupling, two_qubit_gate, durations of
            `described.synthetic_device`.

    Raises:
        TargetError: a setting is not accepted.
    """
    name = synthetic_name({"qubits": qubits, **settings})
    backend = DescribedBackend(synthetic_device(qubits, **settings), name=name)
    return DeviceTarget(backend, shots=shots, seed=seed, scale=scale)


def _initial_layout(isa: QuantumCircuit, num_qubits: int) -> tuple[int, ...]:
    layout = isa.layout
    if layout is None:
        return tuple(range(num_qubits))
    return tuple(layout.initial_index_layout(filter_ancillas=True))


def _measured_qubits(isa: QuantumCircuit) -> tuple[int, ...]:
    where = {
        isa.find_bit(instruction.clbits[0]).index: isa.find_bit(instruction.qubits[0]).index
        for instruction in isa.data
        if instruction.operation.name == "measure"
    }
    return tuple(where[bit] for bit in range(len(where)))


def _calibration_date(backend: Any) -> str | None:
    properties = getattr(backend, "properties", None)
    updated = getattr(properties() if callable(properties) else None, "last_update_date", None)
    return None if updated is None else str(updated.date().isoformat())
