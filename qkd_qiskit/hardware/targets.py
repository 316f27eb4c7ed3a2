"""Where a circuit runs: backend, pass manager, noise model, shots and seed in one object.

Three rooms behind one face, `Target`: `ExactTarget` (ideal probabilities), `AerTarget` (ideal,
sampled) and `DeviceTarget` (a device's coupling, basis and noise, sampled). A circuit is compiled
once and then run with batches of parameter values.

Bit order: outcome index k of a probability row has bit i = logical qubit i (little-endian).
"""

import hashlib
import itertools
import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from qiskit import qasm3
from qiskit.circuit import ClassicalRegister, QuantumCircuit
from qiskit.transpiler import generate_preset_pass_manager
from qiskit.transpiler.exceptions import TranspilerError

from qkd_qiskit.errors import TargetError
from qkd_qiskit.hardware import noise
from qkd_qiskit.hardware.devices import fake_backend, list_targets, unknown_target
from qkd_qiskit.hardware.sampling import ideal_probabilities, make_simulator, sample_probabilities

__all__ = ["AerTarget", "CompiledCircuit", "DeviceTarget", "ExactTarget", "Target", "list_targets"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CompiledCircuit:
    """A circuit as a target runs it, and what it costs there."""

    target: str
    """Name of the target that compiled it, the only one that runs it."""
    circuit: QuantumCircuit
    """ISA circuit, unscheduled, classical bit i of register `meas` = logical qubit i."""
    parameters: tuple[str, ...]
    """Names of the circuit's parameters, sorted: the columns of `values`."""
    num_qubits: int
    """Logical qubits n; outcomes are 0 to 2**n - 1."""
    layout: tuple[int, ...]
    """Physical qubit that each logical qubit starts on."""
    measured: tuple[int, ...]
    """Physical qubit that each logical qubit is measured on."""
    two_qubit_gates: int
    """Gates on two or more qubits."""
    depth: int
    """Depth in gates, measurement included."""
    duration_s: float | None
    """Seconds from the first gate to the end of the measurement; None on a simulator."""
    fidelity: float
    """Product of 1 - error over gates and measurements; 1 without noise."""
    program: Any = field(repr=False)
    """What the target runs; its own affair."""


class Target(ABC):
    """A place to evaluate circuits: `compile` once, then `probabilities` for each batch."""

    sampled: ClassVar[bool]
    """Whether probabilities are measured frequencies."""

    def __init__(self, name: str, *, shots: int | None, seed: int):
        if shots is not None and shots < 1:
            raise TargetError(f"shots is {shots}; accepted are whole numbers from 1")
        if seed < 0:
            raise TargetError(f"seed is {seed}; accepted are whole numbers from 0")
        self.name = name
        """As `Target.parse` takes it."""
        self.shots = shots
        """Shots per row of a batch; None where nothing is sampled."""
        self.seed = seed
        """Seed that transpiler and shot seeds derive from."""
        self.calibration_date: str | None = None
        """ISO date of the calibration that the noise is taken from; None without noise."""
        self._compiled: dict[str, CompiledCircuit] = {}

    @staticmethod
    def parse(name: str, *, shots: int = 4096, seed: int = 0) -> "Target":
        """Return the target of that name.

        Args:
            name: ``exact`` (ideal, no shots), ``aer`` (ideal, sampled) or a device snapshot of
                qiskit-ibm-runtime such as ``fake_torino`` (noisy, sampled).
            shots: shots per row of a batch; ``exact`` takes none.
            seed: seed that transpiler and shot seeds derive from.

        Raises:
            TargetError: the name, shots or seed is not accepted.
        """
        if name == "exact":
            return ExactTarget(seed=seed)
        if name == "aer":
            return AerTarget(shots=shots, seed=seed)
        if name.startswith("fake_"):
            return DeviceTarget(fake_backend(name), name=name, shots=shots, seed=seed)
        if name.startswith("ibm_"):
            raise TargetError(
                f"{name} is a real device: it is reached by submission (`qkd submit`), not by "
                "evaluation; to evaluate, use exact, aer or a device that `qkd targets list` shows"
            )
        raise unknown_target(name)

    def compile(self, circuit: QuantumCircuit) -> CompiledCircuit:
        """Return the circuit compiled for this target, with all its qubits measured in order.

        Equal circuits (same gates and parameter names) are compiled once per target.

        Raises:
            TargetError: the circuit has measurements, or the target cannot run it.
        """
        if circuit.num_clbits:
            raise TargetError(
                f"circuit {circuit.name!r} has {circuit.num_clbits} classical bits; accepted is a "
                "circuit without measurements, the target adds them"
            )
        if not circuit.num_qubits:
            raise TargetError(f"circuit {circuit.name!r} has no qubits")
        key = _digest(circuit)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = self._compile(circuit)
        return compiled

    def probabilities(
        self,
        compiled: CompiledCircuit,
        values: ArrayLike,
        *,
        shots: int | None = None,
        seed: int | None = None,
    ) -> NDArray[np.float64]:
        """Return outcome probabilities (batch, 2**num_qubits), little-endian over logical qubits.

        The batch goes to a sampler as one PUB. A caller that wants progress passes chunks of a
        larger batch one after the other, each with a seed of its own.

        Args:
            compiled: what `compile` of this target returned.
            values: (batch, len(compiled.parameters)) in radians, columns in the order of
                `compiled.parameters`.
            shots: shots per row in place of the target's; ignored where nothing is sampled.
            seed: number of this call among those of one target: same target seed and same
                number give the same counts. None counts as 0.

        Raises:
            TargetError: `compiled` is another target's, or values or shots are not accepted.
        """
        if compiled.target != self.name:
            raise TargetError(
                f"circuit was compiled for {compiled.target}, not for {self.name}; compile it "
                "with the target that runs it"
            )
        rows = np.asarray(values, dtype=np.float64)
        expected = len(compiled.parameters)
        if rows.ndim != 2 or rows.shape[1] != expected:
            raise TargetError(
                f"values have shape {rows.shape}; accepted is (batch, {expected}), one column "
                "per circuit parameter in sorted order of their names"
            )
        if not np.isfinite(rows).all():
            row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            raise TargetError(f"values of row {row} are not finite; accepted are angles in radians")
        if shots is not None and shots < 1:
            raise TargetError(f"shots is {shots}; accepted are whole numbers from 1")
        if not len(rows):
            return np.empty((0, 2**compiled.num_qubits))
        return self._run(
            compiled, rows, shots=shots or self.shots or 1, seed=self._shot_seed(seed or 0)
        )

    @abstractmethod
    def _compile(self, circuit: QuantumCircuit) -> CompiledCircuit: ...

    @abstractmethod
    def _run(
        self, compiled: CompiledCircuit, values: NDArray[np.float64], *, shots: int, seed: int
    ) -> NDArray[np.float64]: ...

    def _shot_seed(self, call: int) -> int:
        # Hashed, so that calls 0, 1, 2 of one seed and of the next share no stream. Aer takes 31
        # bits and counts upwards from them, hence 30.
        state = np.random.SeedSequence([self.seed, 0, call]).generate_state(1)
        return int(state[0] >> 2)

    def _transpiler_seeds(self, count: int) -> list[int]:
        state = np.random.SeedSequence([self.seed, 1]).generate_state(count)
        return [int(word >> 2) for word in state]


class ExactTarget(Target):
    """Ideal probabilities of the circuit, without shots."""

    sampled = False

    def __init__(self, *, seed: int = 0):
        super().__init__("exact", shots=None, seed=seed)

    def _compile(self, circuit: QuantumCircuit) -> CompiledCircuit:
        unrolled = _for_simulator(circuit)
        return _logical(self.name, circuit, measured=_measure(unrolled), program=unrolled)

    def _run(
        self, compiled: CompiledCircuit, values: NDArray[np.float64], *, shots: int, seed: int
    ) -> NDArray[np.float64]:
        return ideal_probabilities(compiled.program, values, parameters=compiled.parameters)


class AerTarget(Target):
    """Shots of the ideal circuit."""

    sampled = True

    def __init__(self, *, shots: int = 4096, seed: int = 0):
        super().__init__("aer", shots=shots, seed=seed)

    def _compile(self, circuit: QuantumCircuit) -> CompiledCircuit:
        measured = _measure(_for_simulator(circuit))
        simulator = make_simulator(circuit.num_qubits)
        return _logical(self.name, circuit, measured=measured, program=simulator)

    def _run(
        self, compiled: CompiledCircuit, values: NDArray[np.float64], *, shots: int, seed: int
    ) -> NDArray[np.float64]:
        return sample_probabilities(
            compiled.circuit,
            values,
            parameters=compiled.parameters,
            simulator=compiled.program,
            shots=shots,
            seed=seed,
        )


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

    sampled = True

    def __init__(
        self,
        backend: Any,
        *,
        name: str | None = None,
        shots: int = 4096,
        seed: int = 0,
        num_transpilations: int = 10,
    ):
        """Take a `BackendV2` with a calibrated `target`.

        Args:
            backend: a device snapshot, or any backend whose `target` has errors and durations.
            name: name of the target; the backend's by default.
            shots: shots per row of a batch.
            seed: seed that transpiler and shot seeds derive from.
            num_transpilations: transpiler seeds tried per circuit, the best is kept.
        """
        super().__init__(name or backend.name, shots=shots, seed=seed)
        self.backend = backend
        self.num_transpilations = num_transpilations
        self.calibration_date = _calibration_date(backend)

    def _compile(self, circuit: QuantumCircuit) -> CompiledCircuit:
        device = self.backend.target
        if circuit.num_qubits > device.num_qubits:
            raise TargetError(
                f"circuit {circuit.name!r} has {circuit.num_qubits} qubits, {self.name} has "
                f"{device.num_qubits}; use a smaller circuit or a larger device"
            )
        candidates = self._transpile(_measure(circuit))
        problems = [noise.find_uncalibrated(candidate, device) for candidate in candidates]
        if all(problems):
            raise TargetError(f"{self.name}: {problems[0]}")
        best = min(
            itertools.compress(candidates, [problem is None for problem in problems]),
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
            parameters=_names(circuit),
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
        logger.debug("%s: best of %d transpilations: %r", self.name, len(candidates), compiled)
        return compiled

    def _transpile(self, measured: QuantumCircuit) -> list[QuantumCircuit]:
        try:
            return [
                generate_preset_pass_manager(
                    optimization_level=3, backend=self.backend, seed_transpiler=seed
                ).run(measured)
                for seed in self._transpiler_seeds(self.num_transpilations)
            ]
        except TranspilerError as error:
            raise TargetError(
                f"circuit {measured.name!r} cannot be transpiled to {self.name}: "
                f"{' '.join(str(error.message).split())}"
            ) from error

    def _run(
        self, compiled: CompiledCircuit, values: NDArray[np.float64], *, shots: int, seed: int
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


def _logical(
    name: str, circuit: QuantumCircuit, *, measured: QuantumCircuit, program: Any
) -> CompiledCircuit:
    qubits = tuple(range(circuit.num_qubits))
    return CompiledCircuit(
        target=name,
        circuit=measured,
        parameters=_names(circuit),
        num_qubits=circuit.num_qubits,
        layout=qubits,
        measured=qubits,
        two_qubit_gates=noise.count_two_qubit_gates(measured),
        depth=measured.depth(),
        duration_s=None,
        fidelity=1.0,
        program=program,
    )


def _for_simulator(circuit: QuantumCircuit) -> QuantumCircuit:
    backend = make_simulator(circuit.num_qubits)
    return generate_preset_pass_manager(optimization_level=0, backend=backend).run(circuit)


def _measure(circuit: QuantumCircuit) -> QuantumCircuit:
    measured = circuit.copy_empty_like()
    measured.compose(circuit, inplace=True)
    register = ClassicalRegister(circuit.num_qubits, "meas")
    measured.add_register(register)
    # No barrier: the transpiler may then drop what a measurement does not see.
    measured.measure(range(circuit.num_qubits), register)
    return measured


def _names(circuit: QuantumCircuit) -> tuple[str, ...]:
    return tuple(sorted(parameter.name for parameter in circuit.parameters))


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


def _digest(circuit: QuantumCircuit) -> str:
    # OpenQASM rather than QPY: QPY carries each parameter's identity, so that a circuit that is
    # built a second time would look like another one.
    try:
        text = qasm3.dumps(circuit)
    except qasm3.QASM3ExporterError as error:
        raise TargetError(
            f"circuit {circuit.name!r} is not made of unitary gates alone: "
            f"{' '.join(str(error.message).split())}"
        ) from error
    return hashlib.sha256(text.encode()).hexdigest()
