"""The noisy targets: a device's basis, coupling and noise, simulated by Aer."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import QuantumCircuit
from qiskit.transpiler import generate_preset_pass_manager
from qiskit.transpiler.exceptions import TranspilerError

from qkd_qiskit.errors import TargetError
from qkd_qiskit.hardware import noise
from qkd_qiskit.hardware.compiled import CompiledCircuit, measure_all_qubits, parameter_names
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
    relaxation while a qubit idles, readout errors.
    """

    def __init__(
        self,
        backend: Any,
        *,
        name: str | None = None,
        shots: int | None = 4096,
        seed: int = 0,
        num_transpilations: int = 10,
    ):
        """Take a `BackendV2` with a calibrated `target`.

        Args:
            backend: a device snapshot, or any backend whose `target` has errors and durations.
            name: name of the target; the backend's by default.
            shots: shots per row of a batch; None for exact probabilities under the noise, on at
                most 8 used qubits.
            seed: seed that transpiler and shot seeds derive from.
            num_transpilations: transpiler seeds tried per circuit, the best is kept.
        """
        super().__init__(name or backend.name, shots=shots, seed=seed)
        self.backend = backend
        self.num_transpilations = num_transpilations
        self.calibration_date = _calibration_date(backend)
        self._device = noise.calibrated_part(backend.target)

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
        candidates = self._transpile(measure_all_qubits(circuit))
        best = min(
            candidates,
            key=lambda isa: (
                noise.count_two_qubit_gates(isa),
                isa.depth(),
                -noise.estimate_fidelity(isa, device),
            ),
        )
        noisy = noise.with_noise(best, device)
        compiled = CompiledCircuit(
            target=self.name,
            circuit=best,
            parameters=parameter_names(circuit),
            num_qubits=circuit.num_qubits,
            layout=_initial_layout(best, circuit.num_qubits),
            measured=_measured_qubits(best),
            two_qubit_gates=noise.count_two_qubit_gates(best),
            depth=best.depth(),
            duration_s=noisy.duration_s,
            fidelity=noise.estimate_fidelity(best, device),
            program=DeviceProgram(
                noisy=noisy,
                simulator=make_simulator(len(noisy.qubits), noise_model=noisy.noise_model),
            ),
        )
        logger.debug(
            "%s: best of %d transpilations has %d two-qubit gates, depth %d",
            self.name,
            len(candidates),
            compiled.two_qubit_gates,
            compiled.depth,
        )
        return compiled

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
