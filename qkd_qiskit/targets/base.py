"""Where a circuit runs: backend, pass manager, noise model, shots and seed in one object.

`Target` is the interface of `ExactTarget` (ideal probabilities), `AerTarget` (ideal, sampled),
`DeviceTarget` (a device's coupling, basis and noise, simulated) and `RuntimeTarget` (a device). A
circuit is compiled once and then run with batches of parameter values.

Bit order: outcome index k of a probability row has bit i = logical qubit i (little-endian).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Integral
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from qiskit.circuit import Parameter, QuantumCircuit

from qkd_qiskit.circuits.standard_gates import to_standard_gates, without_layout
from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit, content_digest, sorted_parameters
from qkd_qiskit.targets.measured_program import Basis, MeasuredProgram
from qkd_qiskit.targets.primitives import Seed, TargetEstimator, TargetSampler

Simulator = Literal["density", "aer"]
"""What draws the shots of a noisy circuit: our density matrices, or Aer."""
MAX_QUBITS = 36
"""Width of a circuit up to which its 2**n outcome probabilities are given."""


class Target(ABC):
    """Where circuits are evaluated: `compile` once, then `probabilities` for each batch."""

    _parser: "ClassVar[Callable[..., Target]]"
    _from_backend: "ClassVar[Callable[..., Target]]"
    _from_sampler: "ClassVar[Callable[..., Target]]"

    def __init__(self, name: str, *, shots: int | None, seed: int):
        if shots is not None:
            check_whole("shots", shots, least=1)
        check_whole("seed", seed, least=0)
        self.name = name
        """As `Target.parse` takes it."""
        self.stream_name = name
        """What streams of shots derive from: the name, whatever draws them."""
        self.shots = shots
        """Shots per row of a batch; None where nothing is sampled."""
        self.seed = seed
        """Seed that transpiler and shot seeds derive from."""
        self.calibration_date: str | None = None
        """ISO date of the calibration that the noise is taken from; None without noise."""
        self.options: dict[str, Any] = {}
        """What is changed about the device: to be recorded with results."""
        self._compiled: dict[str, CompiledCircuit] = {}

    @property
    def sampled(self) -> bool:
        """Whether probabilities are measured frequencies."""
        return self.shots is not None

    @property
    def ideal(self) -> bool:
        """Whether probabilities are those of the ideal circuit: neither shots nor noise."""
        return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, shots={self.shots}, seed={self.seed})"

    @staticmethod
    def parse(
        name: str,
        *,
        shots: int | None = 4096,
        seed: int = 0,
        scale: float | None = None,
        readout_mitigation: bool | str | None = None,
    ) -> "Target":
        """Return the target of that name; see `parse.parse_target`.

        Args:
            name: ``exact`` (ideal, no shots), ``aer`` (ideal, sampled), a device snapshot of
                qiskit-ibm-runtime such as ``fake_torino`` (noisy, sampled), the file of a saved
                snapshot such as ``snapshots/ibm_torino.json``, or synthetic noise,
                ``synthetic:qubits=5:p1=0.001:p2=0.01:readout=0.02``. A device takes options after
                its name: ``fake_torino:scale=2``, ``fake_torino:mitigated`` (readout errors taken
                back), ``fake_torino:exact`` (noisy, no shots), ``fake_torino:aer`` (shots by Aer).
            shots: Shots per row of a batch; ``exact`` takes none; None for a device: no shots.
            seed: Seed that transpiler and shot seeds derive from.
            scale: What a device's noise is multiplied by; default: the name's, or 1.
            readout_mitigation: True or ``calibrated``, ``measured``, False; see `DeviceTarget`;
                default: the name's, or False.

        Raises:
            TargetError: The name, an option, shots or seed is not accepted.

        Example:
            >>> from qkd_qiskit import Target
            >>> Target.parse("fake_torino:scale=2", shots=1024)
            DeviceTarget('fake_torino:scale=2', shots=1024, seed=0)
            >>> Target.parse("exact").sampled
            False
        """
        return Target._parser(
            name, shots=shots, seed=seed, scale=scale, readout_mitigation=readout_mitigation
        )

    @staticmethod
    def register(
        *,
        parse: "Callable[..., Target]",
        backend: "Callable[..., Target]",
        sampler: "Callable[..., Target]",
    ) -> None:
        """Set what `parse`, `from_backend` and `from_sampler` call: these know every target."""
        Target._parser, Target._from_backend, Target._from_sampler = parse, backend, sampler

    @staticmethod
    def from_backend(backend: Any, *, shots: int | None = 4096, **options: Any) -> "Target":
        """Return a `BackendV2` of your own as a target; see `own_backend.target_from_backend`.

        Example:
            >>> from qiskit.providers.fake_provider import GenericBackendV2
            >>> from qkd_qiskit import Target
            >>> target = Target.from_backend(GenericBackendV2(5, seed=1), shots=512)
            >>> target.sampled
            True
        """
        return Target._from_backend(backend, shots=shots, **options)

    @staticmethod
    def from_sampler(sampler: Any, *, pass_manager: Any = None, **options: Any) -> "Target":
        """Return a V2 sampler as a target; see `own_backend.target_from_sampler`."""
        return Target._from_sampler(sampler, pass_manager=pass_manager, **options)

    def compile(self, circuit: QuantumCircuit) -> CompiledCircuit:
        """Return the circuit compiled for this target, with all its qubits measured in order.

        Equal circuits (same gates and parameter names) are compiled once per target.

        Raises:
            TargetError: The circuit has measurements, or the target cannot run it.
            CircuitError: The circuit has an instruction that is no unitary gate.
        """
        if circuit.num_clbits:
            raise TargetError(
                f"circuit {circuit.name!r} has {circuit.num_clbits} classical bits; accepted is a "
                "circuit without measurements, the target adds them"
            )
        if not 1 <= circuit.num_qubits <= MAX_QUBITS:
            raise TargetError(
                f"circuit {circuit.name!r} has {circuit.num_qubits} qubits; accepted are 1 to "
                f"{MAX_QUBITS}, as it has 2**qubits outcomes"
            )
        parameters = sorted_parameters(circuit)
        lowered = to_standard_gates(circuit)
        if lowered.layout is not None:
            lowered = without_layout(lowered)
        key = content_digest(lowered) + repr([parameter.name for parameter in parameters])
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = self._compile(lowered, parameters)
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
            compiled: What `compile` of this target returned.
            values: (batch, len(compiled.parameters)) in radians, columns in the order of
                `compiled.parameters`.
            shots: Shots per row in place of the target's; ignored where nothing is sampled.
            seed: Number of this call among those of one target: same target seed and same
                number give the same counts. None counts as 0.

        Raises:
            TargetError: `compiled` is another target's, or values or shots are not accepted.
        """
        rows = self._checked(compiled, values)
        if shots is not None:
            check_whole("shots", shots, least=1)
        if not len(rows):
            return np.empty((0, 2**compiled.num_qubits))
        shots, call = shots or self.shots or 1, seed or 0
        if self.simulator_of(compiled) == "density":
            rng = np.random.default_rng([self.seed, 4, call])
            return self._draw(compiled, rows, shots=shots, rng=rng)
        return self._run(compiled, rows, shots=shots, seed=self._shot_seed(call))

    def frequencies(
        self,
        compiled: CompiledCircuit,
        values: ArrayLike,
        *,
        shots: int | None = None,
        rng: np.random.Generator,
    ) -> NDArray[np.float64]:
        """Return what `probabilities` does, with shots from a stream that calls share.

        Rows take from it one after the other: the counts of a batch do not depend on how it is
        cut into calls.

        Args:
            compiled: What `compile` of this target returned; `simulator_of` gives ``density``.
            values: As for `probabilities`.
            shots: Shots per row in place of the target's.
            rng: The stream.

        Raises:
            TargetError: As `probabilities`; or the shots are not ours to draw.
        """
        if self.simulator_of(compiled) != "density":
            raise TargetError(f"{self.name} draws its own shots; take probabilities(seed=...)")
        rows = self._checked(compiled, values)
        if shots is not None:
            check_whole("shots", shots, least=1)
        if not len(rows):
            return np.empty((0, 2**compiled.num_qubits))
        return self._draw(compiled, rows, shots=shots or self.shots or 1, rng=rng)

    def simulator_of(self, compiled: CompiledCircuit) -> Simulator | None:
        """Return what draws a circuit's shots under noise; None without shots, or without noise."""
        return None

    def exact_probabilities(
        self, compiled: CompiledCircuit, values: ArrayLike
    ) -> NDArray[np.float64]:
        """Return what `probabilities` tends to with ever more shots (batch, 2**num_qubits).

        On a device these are the probabilities under its noise, readout errors included.

        Args:
            compiled: What `compile` of this target returned.
            values: As for `probabilities`.

        Raises:
            TargetError: As `probabilities`; or a noisy circuit uses more than 8 qubits.
        """
        rows = self._checked(compiled, values)
        if not len(rows):
            return np.empty((0, 2**compiled.num_qubits))
        return self._run_exactly(compiled, rows)

    def measured_program(
        self, circuit: QuantumCircuit, *, basis: Basis | None = None
    ) -> MeasuredProgram:
        """Return a circuit with measurements of its own as this target runs it (see primitives.py).

        Args:
            circuit: logical, or transpiled to the target's device.
            basis: letter, X, Y or Z, that qubits are measured in where the circuit measures none.

        Raises:
            TargetError: the target cannot run the circuit, or has no primitives.
        """
        raise TargetError(
            f"{self.name} has no primitives of ours; for a real device take those of "
            "qiskit-ibm-runtime"
        )

    def as_sampler(self, *, default_shots: int | None = None, seed: Seed = None) -> TargetSampler:
        """Return a Qiskit `BaseSamplerV2` that runs here; see `TargetSampler`."""
        return TargetSampler(self, default_shots=default_shots, seed=seed)

    def as_estimator(
        self, *, default_precision: float | None = None, seed: Seed = None
    ) -> TargetEstimator:
        """Return a Qiskit `BaseEstimatorV2` that runs here; see `TargetEstimator`."""
        return TargetEstimator(self, default_precision=default_precision, seed=seed)

    def _checked(self, compiled: CompiledCircuit, values: ArrayLike) -> NDArray[np.float64]:
        if compiled.target != self.name:
            raise TargetError(
                f"circuit was compiled for {compiled.target}, not for {self.name}; compile it "
                "with the target that runs it"
            )
        try:
            rows = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise TargetError(
                f"values are no numbers ({error}); accepted are angles in radians"
            ) from None
        expected = len(compiled.parameters)
        if rows.ndim != 2 or rows.shape[1] != expected:
            raise TargetError(
                f"values have shape {rows.shape}; accepted is (batch, {expected}), one column "
                "per circuit parameter in sorted order of their names"
            )
        if not np.isfinite(rows).all():
            row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            raise TargetError(f"values of row {row} are not finite; accepted are angles in radians")
        return rows

    @abstractmethod
    def _compile(
        self, circuit: QuantumCircuit, parameters: tuple[Parameter, ...]
    ) -> CompiledCircuit:
        """Return a circuit of standard gates compiled; `parameters` are the columns of values."""

    @abstractmethod
    def _run(
        self, compiled: CompiledCircuit, values: NDArray[np.float64], *, shots: int, seed: int
    ) -> NDArray[np.float64]: ...

    def _draw(
        self,
        compiled: CompiledCircuit,
        values: NDArray[np.float64],
        *,
        shots: int,
        rng: np.random.Generator,
    ) -> NDArray[np.float64]:
        """Return frequencies where `simulator_of` is ``density``."""
        raise NotImplementedError(f"{self.name} draws no shots of known probabilities")

    @abstractmethod
    def _run_exactly(
        self, compiled: CompiledCircuit, values: NDArray[np.float64]
    ) -> NDArray[np.float64]: ...

    def _shot_seed(self, call: int) -> int:
        # Hashed, so that calls 0, 1, 2 of one seed and of the next share no stream. Aer takes 31
        # bits and counts upwards from them, hence 30.
        state = np.random.SeedSequence([self.seed, 0, call]).generate_state(1)
        return int(state[0] >> 2)

    def _calibration_seed(self) -> int:
        return int(np.random.SeedSequence([self.seed, 2]).generate_state(1)[0] >> 2)

    def _transpiler_seeds(self, count: int) -> list[int]:
        state = np.random.SeedSequence([self.seed, 1]).generate_state(count)
        return [int(word >> 2) for word in state]


def check_whole(name: str, value: Any, *, least: int) -> None:
    """Check that a setting is a whole number of at least `least`.

    Raises:
        TargetError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise TargetError(f"{name} is {value!r}; accepted are whole numbers from {least}")
