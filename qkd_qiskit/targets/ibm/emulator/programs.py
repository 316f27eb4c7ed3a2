"""What a client submits, read, and what it gets back, written: programs of the executor."""

import datetime
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import QuantumCircuit

from qkd_qiskit.errors import InputError
from qkd_qiskit.targets.ibm.client_version import ACCEPTED, SCHEMA

SEED_TAG = "seed:"
"""Begin of the tag that gives a job's simulator seed, such as ``seed:7`` or ``seed:7,8``."""


@dataclass(frozen=True, eq=False)
class ProgramItem:
    """One item of a program: a circuit and the values of its parameters."""

    circuit: QuantumCircuit
    """ISA circuit on the device's qubits."""
    shape: tuple[int, ...]
    """Shape of the bindings; a twirled item's first dimension is its randomizations."""
    shots: int
    """Shots of each bound circuit."""
    values: NDArray[np.float64] | None
    """(*shape, parameters) in radians; None where `item` samples them."""
    item: Any
    """The samplex item that twirls, or None."""
    digest: str
    """Digest of circuit, values and shots, which a program that is built again shares."""

    @property
    def circuits(self) -> int:
        """Circuits with their values bound."""
        return math.prod(self.shape)

    def sample_values(self, seed: int) -> tuple[NDArray[np.float64], dict[str, NDArray[Any]]]:
        """Return values (circuits, parameters), and what twirling tells the client of them."""
        if self.values is not None:
            return self.values.reshape(self.circuits, -1), {}
        from qiskit_ibm_runtime.fake_provider.executor.broadcast_sample import broadcast_sample

        self.item.samplex.finalize()
        sampled = broadcast_sample(
            self.item.samplex,
            self.item.samplex_arguments,
            self.shape,
            np.random.default_rng(seed),
        )
        values = np.asarray(sampled.pop("parameter_values"), dtype=np.float64)
        return values.reshape(self.circuits, -1), sampled


@dataclass(frozen=True, eq=False)
class ExecutorProgram:
    """A job's input."""

    pubs: tuple[ProgramItem, ...]
    """Its PUBs."""
    rep_delay_s: float | None
    """Seconds between two executions that it asks for; None: the device's."""
    init_qubits: bool
    """Whether qubits are reset before each execution."""
    meas_level: str
    """Measurement level; ``classified`` is what a simulator has."""
    model: Any
    """The parameters as the client's own model reads them."""


def read_program(params: Mapping[str, Any]) -> ExecutorProgram:
    """Return the program in the parameters of a job.

    Raises:
        InputError: They are no executor program of the schema that is understood.
    """
    from pydantic import ValidationError
    from qiskit_ibm_runtime.quantum_program.params_converters import (
        QUANTUM_PROGRAM_PARAMS_CONVERTERS,
    )

    given = params.get("schema_version") if isinstance(params, Mapping) else None
    if given != SCHEMA or SCHEMA not in QUANTUM_PROGRAM_PARAMS_CONVERTERS:
        raise InputError(
            f"the program has schema {given!r}; a rehearsal understands {SCHEMA}, that of the "
            f"executor-based primitives: pip install '{ACCEPTED}', or a newer qkd-qiskit"
        )
    converter = QUANTUM_PROGRAM_PARAMS_CONVERTERS[SCHEMA]
    try:
        model = converter.model.model_validate(params)
        program, options = converter.decoder(model)
    except (ValidationError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"the program cannot be read ({type(error).__name__})") from error
    return ExecutorProgram(
        pubs=tuple(_pub(item, program.shots) for item in program.items),
        rep_delay_s=options.execution.rep_delay,
        init_qubits=bool(options.execution.init_qubits),
        meas_level=str(program.meas_level),
        model=model,
    )


def write_result(
    program: ExecutorProgram,
    results: Sequence[Mapping[str, NDArray[Any]]],
    *,
    started: datetime.datetime,
    finished: datetime.datetime,
) -> str:
    """Return the JSON text of a program's result.

    Args:
        program: The program.
        results: For each PUB, arrays by name: bits (*shape, shots, bits) of each register,
            bit 0 first.
        started: When its first circuit began.
        finished: When its last circuit ended.
    """
    from ibm_quantum_schemas.common import CompressedTensorModel
    from ibm_quantum_schemas.executor import version_2_0 as schema

    parts = [
        schema.ChunkPart(
            idx_item=number,
            size=pub.circuits,
            permutation=list(range(len(pub.shape))),
            element_range=(0, pub.circuits, 1),
        )
        for number, pub in enumerate(program.pubs)
    ]
    written = schema.QuantumProgramResultModel(
        data=[
            schema.QuantumProgramResultItemModel(
                results={
                    name: CompressedTensorModel.from_numpy(array) for name, array in item.items()
                },
                metadata=schema.ItemMetadataModel(),
            )
            for item in results
        ],
        metadata=schema.MetadataModel(
            chunk_timing=[schema.ChunkSpan(start=started, stop=finished, parts=parts)]
        ),
        passthrough_data=program.model.quantum_program.passthrough_data,
        semantic_role=program.model.quantum_program.semantic_role,
    )
    return str(written.model_dump_json())


def job_seeds(tags: Sequence[str], program: ExecutorProgram, *, seed: int) -> tuple[int, ...]:
    """Return the simulator seed of each PUB.

    A tag ``seed:7`` gives the first PUB seed 7 and each further one a seed of its own, derived from
    7 and its number; ``seed:7,8,9`` gives three PUBs theirs. Without the tag a PUB's seed derives
    from its content and the server's seed: not from when it came, nor with what.

    Raises:
        InputError: The tag is no list of whole numbers from 0, as long as the program or of one.
    """
    text = next((tag[len(SEED_TAG) :] for tag in tags if tag.startswith(SEED_TAG)), None)
    if text is None:
        return tuple(
            _derived(seed, int(pub.digest[:16], 16), number)
            for number, pub in enumerate(program.pubs)
        )
    parts = text.split(",")
    if not all(part.isdigit() for part in parts) or len(parts) not in (1, len(program.pubs)):
        raise InputError(
            f"tag {SEED_TAG + text!r} is no seed; give one whole number from 0, or one for each "
            f"of the {len(program.pubs)} PUBs, separated by commas"
        )
    seeds = [int(part) for part in parts]
    if len(seeds) < len(program.pubs):
        seeds += [_derived(seeds[0], number) for number in range(1, len(program.pubs))]
    return tuple(seeds)


def circuit_digest(circuit: QuantumCircuit) -> str:
    """Return a digest that circuits of equal instructions and parameter names share."""
    described = [
        (
            instruction.operation.name,
            tuple(circuit.find_bit(qubit).index for qubit in instruction.qubits),
            tuple(circuit.find_bit(clbit).index for clbit in instruction.clbits),
            tuple(str(parameter) for parameter in instruction.operation.params),
            getattr(instruction.operation, "unit", None),
        )
        for instruction in circuit.data
    ]
    registers = [(register.name, register.size) for register in circuit.cregs]
    text = repr((circuit.num_qubits, registers, described))
    return hashlib.sha256(text.encode()).hexdigest()


def _pub(item: Any, shots: int) -> ProgramItem:
    from samplomatic.quantum_program import SamplexItem

    content = hashlib.sha256(f"{circuit_digest(item.circuit)}:{shots}".encode())
    values: NDArray[np.float64] | None = None
    if isinstance(item, SamplexItem):
        shape = tuple(int(size) for size in item.shape)
        for spec in item.samplex_arguments.specs:
            if spec.name in item.samplex_arguments:
                given = item.samplex_arguments[spec.name]
                content.update(spec.name.encode())
                content.update(given.tobytes() if hasattr(given, "tobytes") else b"")
    else:
        values = np.asarray(item.circuit_arguments, dtype=np.float64)
        shape = values.shape[:-1]
        content.update(repr(shape).encode() + values.tobytes())
    return ProgramItem(
        circuit=item.circuit,
        shape=shape,
        shots=shots,
        values=values,
        item=None if values is not None else item,
        digest=content.hexdigest(),
    )


def _derived(*numbers: int) -> int:
    # Aer takes 31 bits and counts upwards from them, hence 30.
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 2)
