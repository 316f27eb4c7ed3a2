"""The noisy targets: a device's basis, coupling and noise, simulated.

Shots are drawn from the exact probabilities of our density matrices, up to the width that these
take; wider circuits, and targets named ``fake_torino:aer``, are sampled by Aer.
"""

import copy
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import Parameter, QuantumCircuit

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets import noise
from qkd_qiskit.targets.base import Simulator, Target
from qkd_qiskit.targets.coherent_noise import CoherentNoise
from qkd_qiskit.targets.compiled_circuit import (
    CompiledCircuit,
    content_digest,
    measure_all_qubits,
)
from qkd_qiskit.targets.exact_noise import MAX_QUBITS, exact_rows
from qkd_qiskit.targets.measured_program import Basis, MeasuredProgram
from qkd_qiskit.targets.measured_targets import device_program, say_sampled
from qkd_qiskit.targets.mitigation import confusion_from_counts, mitigate_readout
from qkd_qiskit.targets.sampling import make_simulator, sample_probabilities
from qkd_qiskit.targets.shot_drawing import clean_probabilities, draw_counts
from qkd_qiskit.targets.transpilation import (
    best_transpilation,
    calibration_circuit,
    initial_layout,
    measured_qubits,
)

CALIBRATION_SHOTS = 20_000
"""Shots of each of the two circuits that readout errors are measured with."""
ReadoutMitigation = Literal["calibrated", "measured"]


@dataclass(frozen=True, eq=False)
class DeviceProgram:
    """What a `DeviceTarget` runs: a circuit and its noise."""

    noisy: noise.NoisyCircuit
    """Circuit on the used qubits with its noise."""
    confusion: tuple[NDArray[np.float64], ...] | None
    """Readout matrix A[true, measured] per logical qubit that mitigation takes back, or None."""

    @cached_property
    def simulator(self) -> Any:
        """`AerSimulator` with the circuit's noise model."""
        return make_simulator(len(self.noisy.qubits), noise_model=self.noisy.noise_model)


class DeviceTarget(Target):
    """A device's basis, coupling and noise, simulated: a best case, without drift.

    The noise is that of `NoiseModel.from_backend`: depolarising and relaxation errors per gate,
    relaxation while a qubit idles, readout errors. `scale` strengthens or weakens all of it
    (see `synthetic_backends.scaled_device`); the circuit stays the same. Readout mitigation takes
    readout errors back (see mitigation.py), from the calibration or from two circuits of its own.
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
        readout_mitigation: bool | ReadoutMitigation = False,
        coherent: CoherentNoise | None = None,
        simulator: Simulator = "density",
    ):
        """Take a `BackendV2` with a calibrated `target`.

        Args:
            backend: A device snapshot, or any backend whose `target` has errors and durations.
            name: Name of the target; the backend's by default.
            shots: Shots per row of a batch; None for exact probabilities under the noise, on at
                most 8 used qubits.
            seed: Seed that transpiler and shot seeds derive from.
            num_transpilations: Transpiler seeds tried per circuit, the best is kept.
            scale: What the noise is multiplied by: 0 is none, 1 the device's.
            readout_mitigation: Take readout errors back as the calibration gives them (True or
                ``calibrated``) or as two circuits per compilation measure them (``measured``).
            coherent: Over-rotation and crosstalk, which calibrations do not list.
            simulator: What draws shots: ``density``, from the exact probabilities of circuits on
                at most 8 used qubits, which are Aer's own on wider ones; ``aer``, Aer on any.

        Raises:
            TargetError: The backend has no calibration, or shots, seed, scale, readout_mitigation
                or simulator is not accepted.
        """
        if not getattr(getattr(backend, "target", None), "qubit_properties", None):
            raise TargetError(
                f"{getattr(backend, 'name', backend)!r} is no calibrated device: its qubits have "
                "no T1 and T2, so there would be no noise; for an ideal circuit use exact or aer"
            )
        super().__init__(name or backend.name, shots=shots, seed=seed)
        self.coherent = coherent or CoherentNoise()
        """Errors that are added to the device's."""
        self.device_name = self.name + self.coherent.suffix
        """The device without what is changed about it, but for the errors that are added."""
        self.backend = backend
        self.num_transpilations = num_transpilations
        accepted = (False, True, *get_args(ReadoutMitigation))
        if readout_mitigation not in accepted:
            raise TargetError(
                f"readout_mitigation is {readout_mitigation!r}; accepted are "
                f"{', '.join(map(repr, accepted))}"
            )
        self.readout_mitigation: ReadoutMitigation | None = (
            "calibrated" if readout_mitigation is True else readout_mitigation or None
        )
        """Where the readout errors are known from that are taken back; None: they stay."""
        if simulator not in get_args(Simulator):
            raise TargetError(f"simulator is {simulator!r}; accepted are 'density', 'aer'")
        if simulator == "aer" and shots is None:
            raise TargetError(f"{self.name}: Aer draws shots; give their number, or leave aer out")
        self.simulator = simulator
        """What draws shots, where the circuit is not too wide."""
        self._set_scale(scale)
        self.calibration_date = calibration_date(backend)
        self._device = noise.calibrated_part(backend.target)
        self._transpiled: dict[str, QuantumCircuit] = {}

    def _set_scale(self, scale: float) -> None:
        if not 0 <= scale < math.inf:
            raise TargetError(f"scale is {scale}; accepted are finite numbers from 0")
        self.scale = float(scale)
        """What the device's noise is multiplied by."""
        self.options = {"scale": self.scale, "readout_mitigation": self.readout_mitigation}
        self.options |= self.coherent.options
        self.name = self.device_name + (f":scale={scale:.12g}" if scale != 1 else "")
        self.name += {None: "", "calibrated": ":mitigated", "measured": ":mitigated=measured"}[
            self.readout_mitigation
        ]
        self.stream_name = self.name + ("" if self.sampled else ":exact")
        self.name = self.stream_name + (":aer" if self.simulator == "aer" else "")

    def by_aer(self) -> "DeviceTarget":
        """Return the same device with all its shots drawn by Aer."""
        made = copy.copy(self)
        made._compiled, made.simulator = {}, "aer"
        made._set_scale(self.scale)
        return made

    def scaled(self, scale: float) -> "DeviceTarget":
        """Return the same device with its own noise multiplied by `scale`.

        It shares this target's transpiled circuits: a sweep transpiles once.

        Raises:
            TargetError: The scale is not accepted.
        """
        made = copy.copy(self)
        made._compiled = {}
        made._set_scale(scale)
        return made

    def measured_program(
        self, circuit: QuantumCircuit, *, basis: Basis | None = None
    ) -> MeasuredProgram:
        """Return a circuit with measurements of its own under the device's noise."""
        return device_program(self, circuit, basis)

    def transpile(self, measured: QuantumCircuit) -> QuantumCircuit:
        """Return the best of several transpilations of a circuit with measurements.

        Raises:
            TargetError: the circuit does not fit the device.
        """
        return best_transpilation(
            measured,
            self._device,
            seeds=self._transpiler_seeds(self.num_transpilations),
            name=self.device_name,
        )

    def _compile(
        self, circuit: QuantumCircuit, parameters: tuple[Parameter, ...]
    ) -> CompiledCircuit:
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
            self._transpiled[key] = self.transpile(measure_all_qubits(circuit))
        best = self._transpiled[key]
        noisy = noise.with_noise(best, device, scale=self.scale, coherent=self.coherent)
        if self.sampled and self.simulator == "density" and len(noisy.qubits) > MAX_QUBITS:
            say_sampled(circuit, self.name, early=False, limit=MAX_QUBITS)
        return self._describe(
            best,
            DeviceProgram(noisy=noisy, confusion=self._confusion(best, noisy)),
            parameters=tuple(parameter.name for parameter in parameters),
        )

    def _describe(
        self, isa: QuantumCircuit, program: DeviceProgram, *, parameters: tuple[str, ...]
    ) -> CompiledCircuit:
        measured = measured_qubits(isa)
        return CompiledCircuit(
            target=self.name,
            circuit=isa,
            parameters=parameters,
            num_qubits=len(measured),
            layout=initial_layout(isa, len(measured)),
            measured=measured,
            two_qubit_gates=noise.count_two_qubit_gates(isa),
            depth=isa.depth(),
            duration_s=program.noisy.duration_s,
            fidelity=noise.estimate_fidelity(isa, self._device, scale=self.scale),
            program=program,
        )

    def simulator_of(self, compiled: CompiledCircuit) -> Simulator | None:
        """Return what draws a circuit's shots; None where there are none."""
        if not self.sampled:
            return None
        return self._simulator(compiled.program)

    def _simulator(self, program: DeviceProgram) -> Simulator:
        return "aer" if len(program.noisy.qubits) > MAX_QUBITS else self.simulator

    def _confusion(
        self, isa: QuantumCircuit, noisy: noise.NoisyCircuit
    ) -> tuple[NDArray[np.float64], ...] | None:
        if self.readout_mitigation is None:
            return None
        if self.readout_mitigation == "calibrated":
            known = noisy.readout
            return tuple(known.get(qubit, np.eye(2)) for qubit in measured_qubits(noisy.circuit))
        circuit = calibration_circuit(measured_qubits(isa), self._device)
        noisy = noise.with_noise(circuit, self._device, scale=self.scale, coherent=self.coherent)
        program = DeviceProgram(noisy=noisy, confusion=None)
        compiled = self._describe(circuit, program, parameters=("angle",))
        values, rng = np.array([[0.0], [np.pi]]), np.random.default_rng([self.seed, 5])
        if self._simulator(program) == "density":
            zeros, ones = self._draw(compiled, values, shots=CALIBRATION_SHOTS, rng=rng)
        else:
            seed = self._calibration_seed()
            zeros, ones = _sampled_by_aer(compiled, values, shots=CALIBRATION_SHOTS, seed=seed)
        return tuple(confusion_from_counts(zeros, ones))

    def _run(
        self, compiled: CompiledCircuit, values: NDArray[np.float64], *, shots: int, seed: int
    ) -> NDArray[np.float64]:
        if not self.sampled:
            return self._run_exactly(compiled, values)
        rows = _sampled_by_aer(compiled, values, shots=shots, seed=seed)
        return _mitigated(rows, compiled.program)

    def _draw(
        self,
        compiled: CompiledCircuit,
        values: NDArray[np.float64],
        *,
        shots: int,
        rng: np.random.Generator,
    ) -> NDArray[np.float64]:
        program: DeviceProgram = compiled.program
        rows = clean_probabilities(exact_rows(compiled, program.noisy, values))
        return _mitigated(draw_counts(rows, shots, rng=rng) / shots, program)

    def _run_exactly(
        self, compiled: CompiledCircuit, values: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        program: DeviceProgram = compiled.program
        return _mitigated(exact_rows(compiled, program.noisy, values), program)


def _sampled_by_aer(
    compiled: CompiledCircuit, values: NDArray[np.float64], *, shots: int, seed: int
) -> NDArray[np.float64]:
    program: DeviceProgram = compiled.program
    return sample_probabilities(
        program.noisy.circuit,
        values,
        parameters=compiled.parameters,
        simulator=program.simulator,
        shots=shots,
        seed=seed,
    )


def _mitigated(rows: NDArray[np.float64], program: DeviceProgram) -> NDArray[np.float64]:
    return rows if program.confusion is None else mitigate_readout(rows, program.confusion)


def calibration_date(backend: Any) -> str | None:
    """Return the ISO date of a backend's calibration; None where it does not say."""
    properties = getattr(backend, "properties", None)
    updated = getattr(properties() if callable(properties) else None, "last_update_date", None)
    return None if updated is None else str(updated.date().isoformat())
