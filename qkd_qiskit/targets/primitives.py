"""Qiskit's V2 primitives on a target: what any Qiskit program takes as its sampler or estimator.

    from qiskit_machine_learning.neural_networks import SamplerQNN

    target = Target.parse("fake_torino")
    network = SamplerQNN(circuit=circuit, sampler=target.as_sampler(), ...)

Up to the width of the density simulator (8 joined qubits under noise, 20 without) probabilities are
exact and shots are drawn from them; wider circuits, those that measure before their end, and those
of a target such as ``fake_torino:aer`` are sampled by Aer with the target's noise, which the log
says where it was not asked for. A circuit as wide as the device and made of its gates where it has
them is taken as transpiled and run as it is, with the noise of its physical qubits; any other is
compiled by the target.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import (
    BaseEstimatorV2,
    BaseSamplerV2,
    BitArray,
    DataBin,
    PrimitiveJob,
    PrimitiveResult,
    PubResult,
    SamplerPubResult,
)
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.compiled_circuit import content_digest
from qkd_qiskit.targets.measured_program import MeasuredProgram
from qkd_qiskit.targets.observables import (
    Observable,
    exact_means,
    group_observables,
    sampled_means,
)

if TYPE_CHECKING:
    from qkd_qiskit.targets.base import Target

DEFAULT_SHOTS = 1024
"""Shots of a sampler where its target has none, as Qiskit's own samplers."""
_KEPT_PROGRAMS = 64
Seed = int | np.random.Generator | None


class TargetSampler(BaseSamplerV2):  # type: ignore[misc]
    """Shots on a target, in Qiskit's `BitArray`s: one per classical register.

    Calls of one sampler draw from one stream: the same seed and the same calls in the same order
    give the same shots, and two calls never the same by design.
    """

    def __init__(self, target: "Target", *, default_shots: int | None = None, seed: Seed = None):
        """Take a target.

        Args:
            target: where circuits run.
            default_shots: shots of a pub that names none; default: the target's, or 1,024.
            seed: whole number or NumPy generator; default: the target's seed.

        Raises:
            TargetError: shots or seed is not accepted.
        """
        self._default_shots = default_shots or target.shots or DEFAULT_SHOTS
        if default_shots is not None and default_shots < 1:
            raise TargetError(
                f"default_shots is {default_shots}; accepted are whole numbers from 1"
            )
        self._programs = _Programs(target, seed)

    @property
    def default_shots(self) -> int:
        """Shots of a pub that names none."""
        return self._default_shots

    def run(
        self, pubs: Iterable[Any], *, shots: int | None = None
    ) -> PrimitiveJob[PrimitiveResult[SamplerPubResult]]:
        """Return the job of pubs, each ``(circuit, parameter values, shots)`` or shorter.

        Circuits are checked and compiled before this returns; the job draws the shots. A result's
        data has a `BitArray` of the pub's shape for each classical register, bit 0 the last.

        Args:
            pubs: as Qiskit's samplers take them.
            shots: shots per set of values, for pubs that name none.

        Raises:
            TargetError: a circuit is not measured, or the target cannot run it.
        """
        coerced = [
            SamplerPub.coerce(pub, self._default_shots if shots is None else shots) for pub in pubs
        ]
        for number, pub in enumerate(coerced):
            if not any(item.operation.name == "measure" for item in _all_items(pub.circuit)):
                raise TargetError(
                    f"circuit {pub.circuit.name!r} of pub {number} is not measured, so there is "
                    "nothing to sample; add measurements, as with circuit.measure_all()"
                )
        prepared = [(pub, self._programs.measured(pub.circuit), _rows(pub)) for pub in coerced]
        return self._programs.start(lambda rng: _sample(prepared, rng))


class TargetEstimator(BaseEstimatorV2):  # type: ignore[misc]
    """Expectation values on a target, as its unmitigated measurements give them.

    An observable is measured as a device would: a change of basis in the device's gates, then a
    readout, both with their errors (Aer's own estimator has no readout errors). Precision 0 gives
    exact values; any other precision 1 / precision**2 shots, rounded up, for each basis.
    """

    def __init__(
        self, target: "Target", *, default_precision: float | None = None, seed: Seed = None
    ):
        """Take a target.

        Args:
            target: where circuits run.
            default_precision: standard error of a Pauli string, for pubs that name none; default:
                that of the target's shots, 0 where it has none.
            seed: whole number or NumPy generator; default: the target's seed.

        Raises:
            TargetError: precision or seed is not accepted.
        """
        if default_precision is None:
            default_precision = 1 / math.sqrt(target.shots) if target.shots else 0.0
        if not 0 <= default_precision < math.inf:
            raise TargetError(
                f"default_precision is {default_precision}; accepted are finite numbers from 0"
            )
        self._default_precision = float(default_precision)
        self._programs = _Programs(target, seed)

    @property
    def default_precision(self) -> float:
        """Standard error of a Pauli string, for pubs that name none."""
        return self._default_precision

    def run(
        self, pubs: Iterable[Any], *, precision: float | None = None
    ) -> PrimitiveJob[PrimitiveResult[PubResult]]:
        """Return the job of pubs, each ``(circuit, observables, values, precision)`` or shorter.

        Observables broadcast against parameter values. A result's data has `evs` and `stds` of
        that shape; `stds` are standard errors as estimated from the shots, 0 at precision 0.

        Args:
            pubs: as Qiskit's estimators take them.
            precision: for pubs that name none.

        Raises:
            TargetError: a circuit is measured, an observable is not real, the target cannot run
                a circuit, or only shot by shot where precision is 0.
        """
        precision = self._default_precision if precision is None else precision
        prepared = [
            _Estimate(EstimatorPub.coerce(pub, precision), self._programs.in_basis) for pub in pubs
        ]
        return self._programs.start(lambda rng: [estimate.result(rng) for estimate in prepared])


class _Programs:
    """What primitives share: compiled circuits, the newest kept, and the stream of shots."""

    def __init__(self, target: "Target", seed: Seed):
        if isinstance(seed, int | np.integer | None):
            number = target.seed if seed is None else int(seed)
            if number < 0:
                raise TargetError(f"seed is {number}; accepted are whole numbers from 0")
            seed = np.random.default_rng([number, 3])
        self._target, self._rng = target, seed
        self._kept: OrderedDict[Any, MeasuredProgram] = OrderedDict()
        self._lock = threading.Lock()

    def measured(self, circuit: QuantumCircuit) -> MeasuredProgram:
        """Return the program of a circuit with measurements."""
        return self._get(circuit, None)

    def in_basis(self, circuit: QuantumCircuit, basis: dict[int, str]) -> MeasuredProgram:
        """Return the program of a circuit whose qubits are measured in a basis."""
        return self._get(circuit, basis)

    def start(self, results: Callable[[np.random.Generator], list[Any]]) -> PrimitiveJob[Any]:
        """Return the job that computes results, with a stream of its own."""
        with self._lock:
            (rng,) = self._rng.spawn(1)
        job = PrimitiveJob(lambda: PrimitiveResult(results(rng), metadata={"version": 2}))
        job._submit()
        return job

    def _get(self, circuit: QuantumCircuit, basis: dict[int, str] | None) -> MeasuredProgram:
        try:
            names = tuple(parameter.name for parameter in circuit.parameters)
            key = (content_digest(circuit), names, basis and tuple(sorted(basis.items())))
        except TargetError:  # an instruction without OpenQASM: compiled each time
            return self._target.measured_program(circuit, basis=basis)
        with self._lock:
            program = self._kept.get(key)
            if program is None:
                program = self._target.measured_program(circuit, basis=basis)
                while len(self._kept) >= _KEPT_PROGRAMS:
                    self._kept.popitem(last=False)
                self._kept[key] = program
            self._kept.move_to_end(key)
        return program


class _Estimate:
    """One estimator pub, compiled: which rows of values are measured in which basis."""

    def __init__(
        self, pub: Any, in_basis: Callable[[QuantumCircuit, dict[int, str]], MeasuredProgram]
    ):
        self.pub, self.values = pub, _rows(pub)
        shape = pub.parameter_values.shape
        given = np.asarray(pub.observables)
        numbers: dict[Any, int] = {}
        distinct: list[Observable] = []  # in the order given: it decides the bases
        self.columns = np.empty(given.shape, dtype=np.int64)
        for where in np.ndindex(given.shape):
            key = frozenset(given[where].items())
            if key not in numbers:
                numbers[key] = len(numbers)
                distinct.append(given[where])
            self.columns[where] = numbers[key]
        rows = np.arange(len(self.values)).reshape(shape)
        self.rows, self.columns = np.broadcast_arrays(rows, self.columns)
        self.constants, groups = group_observables(distinct, num_qubits=pub.circuit.num_qubits)
        self.groups = [(group, in_basis(pub.circuit, dict(group.basis))) for group in groups]
        if not pub.precision and not all(program.exact for _, program in self.groups):
            raise TargetError(
                f"precision is 0, which asks for exact values; circuit {pub.circuit.name!r} is run "
                "shot by shot: give a precision above 0"
            )

    def result(self, rng: np.random.Generator) -> PubResult:
        """Return expectation values and their standard errors, in the pub's shape."""
        shape = (len(self.values), len(self.constants))
        means, variances = np.broadcast_to(self.constants, shape).copy(), np.zeros(shape)
        shots = math.ceil(1 / self.pub.precision**2) if self.pub.precision else None
        for group, program in self.groups:
            measured = (group.coefficients != 0).any(axis=0)
            needed = np.unique(self.rows[np.isin(self.columns, np.flatnonzero(measured))])
            if not len(needed):
                continue
            values = self.values[needed]
            if shots is None:
                means[needed] += exact_means(program, values, group)
            else:
                mean, variance = sampled_means(program, values, group, shots=shots, rng=rng)
                means[needed] += mean
                variances[needed] += variance
        evs = means[self.rows, self.columns]
        stds = np.sqrt(variances[self.rows, self.columns])
        metadata = {
            "target_precision": self.pub.precision,
            "circuit_metadata": self.pub.circuit.metadata,
        }
        if shots is not None:
            metadata["shots"] = shots
        return PubResult(DataBin(evs=evs, stds=stds, shape=evs.shape), metadata=metadata)


def _sample(
    prepared: list[tuple[Any, MeasuredProgram, NDArray[np.float64]]], rng: np.random.Generator
) -> list[SamplerPubResult]:
    results = []
    for pub, program, values in prepared:
        if len(values):
            packed = program.sample(values, shots=pub.shots, rng=rng)
        else:
            packed = {
                name: np.zeros((0, pub.shots, -(-len(register) // 8)), dtype=np.uint8)
                for name, register in program.registers.items()
            }
        data = {
            name: BitArray(
                packed[name].reshape(*pub.shape, pub.shots, packed[name].shape[-1]), len(register)
            )
            for name, register in program.registers.items()
        }
        metadata = {"shots": pub.shots, "circuit_metadata": pub.circuit.metadata}
        results.append(SamplerPubResult(DataBin(**data, shape=pub.shape), metadata=metadata))
    return results


def _rows(pub: Any) -> NDArray[np.float64]:
    """Return a pub's values (batch, parameters) in radians, in the circuit's order.

    Raises:
        TargetError: a value is not finite.
    """
    names = [parameter.name for parameter in pub.circuit.parameters]
    values = np.asarray(pub.parameter_values.as_array(names), dtype=np.float64)
    rows = values.reshape(math.prod(pub.parameter_values.shape), len(names))
    if not np.isfinite(rows).all():
        raise TargetError(
            f"values of circuit {pub.circuit.name!r} are not finite; accepted are angles in radians"
        )
    return rows


def _all_items(circuit: QuantumCircuit) -> Iterable[Any]:
    """Yield a circuit's instructions, and those inside control flow."""
    for item in circuit.data:
        yield item
        for block in getattr(item.operation, "blocks", ()):
            yield from _all_items(block)
