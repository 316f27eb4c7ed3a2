"""What is sent to a device: circuits with their values, and how they are cut into jobs.

`plan_jobs` is pure: the same sizes and the same limits give the same jobs, so that what is said
before anything is paid is what is submitted. `job_runner` runs them over any
`protocols.Connection`, each exactly once.
"""

import hashlib
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import QuantumCircuit

from qkd_qiskit.errors import InputError
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit, content_digest
from qkd_qiskit.targets.ibm.usage_model import MAX_EXECUTIONS

_TWIRLED_SHOTS = 64
_TWIRLS = 32


@dataclass(frozen=True, eq=False)
class Pub:
    """A circuit and a batch of values, to be run with the same number of shots each.

    Attributes:
        circuit: ISA circuit with one classical register, bit i = logical qubit i.
        parameters: Name of each column of `values`; names that the circuit lacks are passed over.
        values: (batch, len(parameters)) in radians.
        shots: Shots per row.
    """

    circuit: QuantumCircuit
    parameters: tuple[str, ...]
    values: NDArray[np.float64]
    shots: int

    @classmethod
    def of(cls, compiled: CompiledCircuit, values: NDArray[np.float64], *, shots: int) -> "Pub":
        """Return the PUB of a compiled circuit, with columns as in `compiled.parameters`."""
        return cls(compiled.circuit, compiled.parameters, np.asarray(values, dtype=float), shots)

    @property
    def live(self) -> NDArray[np.float64]:
        """The values of the parameters that the circuit has, in the circuit's order."""
        columns = [self.parameters.index(parameter.name) for parameter in self.circuit.parameters]
        return self.values[:, columns]

    @property
    def size(self) -> "PubSize":
        """Its rows and shots."""
        return PubSize(rows=len(self.values), shots=self.shots)

    @property
    def num_bits(self) -> int:
        """Bits of an outcome."""
        return int(self.circuit.cregs[0].size)


@dataclass(frozen=True)
class PubSize:
    """How much of a device a PUB asks for.

    Attributes:
        rows: Circuits with their values bound.
        shots: Shots per row.
    """

    rows: int
    shots: int


@dataclass(frozen=True)
class Limits:
    """What one job may be at most.

    Attributes:
        max_executions: Circuits times shots.
        max_pubs: PUBs; many in one job have broken the service's compiler.
    """

    max_executions: int = MAX_EXECUTIONS
    max_pubs: int = 100

    def __post_init__(self) -> None:
        for name in ("max_executions", "max_pubs"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give a whole number from 1")


@dataclass(frozen=True)
class JobPlan:
    """One job of several that a list of PUBs is cut into.

    Attributes:
        slices: For each of its PUBs: index in the list given, first row, row after the last.
        circuits: Rows of all its PUBs.
        shots: Shots of each row, rounded up to whole randomisations where it is twirled.
        executions: Circuits times shots.
    """

    slices: tuple[tuple[int, int, int], ...]
    circuits: int
    shots: int
    executions: int

    def cut(self, pubs: Sequence[Pub]) -> list[Pub]:
        """Return the job's PUBs."""
        return [
            replace(pubs[index], values=pubs[index].values[first:last])
            for index, first, last in self.slices
        ]


def plan_jobs(
    sizes: Iterable[PubSize], *, limits: Limits | None = None, twirled: bool = False
) -> tuple[JobPlan, ...]:
    """Return the jobs that PUBs are cut into, filled one after the other in the order given.

    Args:
        sizes: Rows and shots of each PUB; all with the same shots, as a job has one number.
        limits: What a job may be at most.
        twirled: Whether gates or measurements are twirled.

    Raises:
        InputError: Shots differ or are not accepted, or one row is more than a job may have.
    """
    sizes, limits = list(sizes), limits or Limits()
    shots = _common_shots(sizes)
    executed = executed_shots(shots, twirled=twirled)
    rows_per_job = limits.max_executions // executed
    if not rows_per_job:
        raise InputError(
            f"{executed} shots are more than the {limits.max_executions} executions of one job; "
            "give fewer shots, or a higher runtime.max_executions where the device allows it"
        )
    jobs: list[list[tuple[int, int, int]]] = []
    free = 0
    for index, size in enumerate(sizes):
        first = 0
        while first < size.rows:
            if not free or len(jobs[-1]) >= limits.max_pubs:
                jobs.append([])
                free = rows_per_job
            last = min(size.rows, first + free)
            jobs[-1].append((index, first, last))
            free -= last - first
            first = last
    return tuple(_plan(slices, executed) for slices in jobs)


@dataclass(frozen=True, eq=False)
class PlannedJob:
    """One job of a key: what is sent, and with which seed.

    Attributes:
        key: Name of what the jobs are for.
        part: Number of the job among those of its key, from 0.
        parts: Jobs of its key.
        plan: What it takes of the device.
        pubs: What is sent.
        digest: Of what is sent and who receives it.
        seed: Of a simulator's shots, or None.
    """

    key: str
    part: int
    parts: int
    plan: JobPlan
    pubs: list[Pub]
    digest: str
    seed: int | None


def cut_jobs(
    key: str,
    pubs: Sequence[Pub],
    *,
    limits: Limits,
    twirled: bool,
    receiver: str,
    seed: int | None,
) -> list[PlannedJob]:
    """Return the jobs that a key's PUBs are sent in; see `plan_jobs`.

    Args:
        key: Name of what the jobs are for.
        pubs: What is sent.
        limits: What a job may be at most.
        twirled: Whether gates or measurements are twirled.
        receiver: Who receives it, and what else changes the counts.
        seed: Seed of a simulator's shots; the first job has it, the others one derived from it.
    """
    plans = plan_jobs([pub.size for pub in pubs], limits=limits, twirled=twirled)
    jobs = []
    for part, plan in enumerate(plans):
        cut = plan.cut(pubs)
        own = None if seed is None else _part_seed(seed, part)
        digest = pubs_digest(cut, receiver=receiver)
        jobs.append(PlannedJob(key, part, len(plans), plan, cut, digest, own))
    return jobs


def _part_seed(seed: int, part: int) -> int:
    if not part:
        return seed
    return int(np.random.SeedSequence([seed, part]).generate_state(1)[0] >> 2)


def executed_shots(shots: int, *, twirled: bool) -> int:
    """Return the shots that are run where so many are asked for.

    Twirling runs 32 randomisations of at least 64 shots, as many as it needs: the client's own
    rule (`qiskit_ibm_runtime.options.TwirlingOptions`, both numbers ``auto``).
    """
    if not twirled:
        return shots
    each = max(_TWIRLED_SHOTS, math.ceil(shots / _TWIRLS))
    return each * math.ceil(shots / each)


def pubs_digest(pubs: Iterable[Pub], *, receiver: str = "") -> str:
    """Return a digest that equal PUBs share: gates, names, values to the bit, shots.

    Args:
        pubs: What is sent.
        receiver: Who receives it, and what else changes the counts.
    """
    digest = hashlib.sha256(receiver.encode())
    for pub in pubs:
        values = np.ascontiguousarray(pub.values, dtype="<f8")
        head = [content_digest(pub.circuit), *pub.parameters, values.shape, pub.shots]
        digest.update("\n".join(map(str, head)).encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def counts_fault(
    counts: Sequence[NDArray[np.int64]], pubs: Sequence[Pub], *, shots: Collection[int]
) -> str | None:
    """Return what is wrong with a job's counts, or None.

    Args:
        counts: (rows, 2**bits) of each PUB, as they came.
        pubs: What was sent.
        shots: Shots that a row may have.
    """
    if len(counts) != len(pubs):
        return f"the result has {len(counts)} PUBs where {len(pubs)} were sent"
    for number, (rows, pub) in enumerate(zip(counts, pubs, strict=True)):
        wanted = (len(pub.values), 2**pub.num_bits)
        if rows.shape != wanted:
            return f"PUB {number} has {rows.shape} rows and outcomes where {wanted} were sent"
        sums = rows.sum(axis=1)
        wrong = ~np.isin(sums, list(shots)) | (rows < 0).any(axis=1)
        if wrong.any():
            row, sent = int(wrong.argmax()), " or ".join(map(str, sorted(set(shots))))
            return f"row {row} of PUB {number} has {sums[row]} shots where {sent} were sent"
    return None


def _plan(slices: Sequence[tuple[int, int, int]], shots: int) -> JobPlan:
    circuits = sum(last - first for _, first, last in slices)
    return JobPlan(tuple(slices), circuits=circuits, shots=shots, executions=circuits * shots)


def _common_shots(sizes: Sequence[PubSize]) -> int:
    shots = {size.shots for size in sizes}
    if len(shots) != 1 or min(shots) < 1 or not any(size.rows for size in sizes):
        given = ", ".join(map(str, sorted(shots))) or "none"
        raise InputError(
            f"PUBs with {sum(size.rows for size in sizes)} rows and shots {given} were given; "
            "give at least one row, and one number of shots from 1 for all"
        )
    return shots.pop()
