"""The ideal targets: exact probabilities, and shots drawn from them by Aer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import Parameter, QuantumCircuit

from qkd_qiskit.targets import noise
from qkd_qiskit.targets.aer_gates import gates_for_aer
from qkd_qiskit.targets.base import Target
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit, measure_all_qubits
from qkd_qiskit.targets.measured_program import Basis, MeasuredProgram
from qkd_qiskit.targets.measured_targets import ideal_program, in_basis
from qkd_qiskit.targets.sampling import make_simulator, sample_probabilities

if TYPE_CHECKING:
    from qkd_qiskit.simulator import Program


class ExactTarget(Target):
    """Ideal probabilities of the circuit, without shots."""

    def __init__(self, *, seed: int = 0):
        super().__init__("exact", shots=None, seed=seed)

    @property
    def ideal(self) -> bool:
        """Whether probabilities are those of the ideal circuit: they are."""
        return True

    def measured_program(
        self, circuit: QuantumCircuit, *, basis: Basis | None = None
    ) -> MeasuredProgram:
        """Return a circuit with measurements of its own, without noise."""
        given = circuit if basis is None else in_basis(circuit, basis)
        return ideal_program(given, name=self.name)

    def _compile(
        self, circuit: QuantumCircuit, parameters: tuple[Parameter, ...]
    ) -> CompiledCircuit:
        program = _ideal_program(circuit, parameters)
        return _logical(self.name, circuit, parameters, program=program)

    def _run(
        self, compiled: CompiledCircuit, values: NDArray[np.float64], *, shots: int, seed: int
    ) -> NDArray[np.float64]:
        return self._run_exactly(compiled, values)

    def _run_exactly(
        self, compiled: CompiledCircuit, values: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return _ideal_rows(compiled.program, values)


@dataclass(frozen=True, eq=False)
class AerProgram:
    """What an `AerTarget` runs."""

    simulator: Any
    """`AerSimulator` without noise."""
    circuit: QuantumCircuit
    """The circuit in standard gates, without measurements."""
    parameters: tuple[Parameter, ...]
    """Its parameters, the columns of values."""


class AerTarget(Target):
    """Shots of the ideal circuit."""

    def __init__(self, *, shots: int = 4096, seed: int = 0):
        super().__init__("aer", shots=shots, seed=seed)

    def measured_program(
        self, circuit: QuantumCircuit, *, basis: Basis | None = None
    ) -> MeasuredProgram:
        """Return a circuit with measurements of its own, without noise."""
        given = circuit if basis is None else in_basis(circuit, basis)
        return ideal_program(given, name=self.name)

    def _compile(
        self, circuit: QuantumCircuit, parameters: tuple[Parameter, ...]
    ) -> CompiledCircuit:
        simulator = make_simulator(circuit.num_qubits)
        program = AerProgram(simulator=simulator, circuit=circuit, parameters=parameters)
        return _logical(self.name, circuit, parameters, program=program)

    def _run(
        self, compiled: CompiledCircuit, values: NDArray[np.float64], *, shots: int, seed: int
    ) -> NDArray[np.float64]:
        return sample_probabilities(
            compiled.circuit,
            values,
            parameters=compiled.parameters,
            simulator=compiled.program.simulator,
            shots=shots,
            seed=seed,
        )

    def _run_exactly(
        self, compiled: CompiledCircuit, values: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        program: AerProgram = compiled.program
        return _ideal_rows(_ideal_program(program.circuit, program.parameters), values)


def _ideal_program(circuit: QuantumCircuit, parameters: tuple[Parameter, ...]) -> "Program":
    from qkd_qiskit.simulator import Program

    return Program.from_circuit(circuit, input_params=parameters, weight_params=())


def _ideal_rows(program: "Program", values: NDArray[np.float64]) -> NDArray[np.float64]:
    import torch

    from qkd_qiskit.simulator import probabilities

    with torch.no_grad():
        rows: NDArray[np.float64] = probabilities(
            program, torch.from_numpy(values.copy()), None
        ).numpy()
    return rows


def _logical(
    name: str, circuit: QuantumCircuit, parameters: tuple[Parameter, ...], *, program: Any
) -> CompiledCircuit:
    qubits = tuple(range(circuit.num_qubits))
    measured = measure_all_qubits(gates_for_aer(circuit))
    return CompiledCircuit(
        target=name,
        circuit=measured,
        parameters=tuple(parameter.name for parameter in parameters),
        num_qubits=circuit.num_qubits,
        layout=qubits,
        measured=qubits,
        two_qubit_gates=noise.count_two_qubit_gates(measured),
        depth=measured.depth(),
        duration_s=None,
        fidelity=1.0,
        program=program,
    )
