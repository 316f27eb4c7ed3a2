"""The ideal targets: exact probabilities, and shots drawn from them by Aer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import QuantumCircuit
from qiskit.transpiler import generate_preset_pass_manager

from qkd_qiskit.targets import noise
from qkd_qiskit.targets.base import Target
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit, measure_all_qubits, parameter_names
from qkd_qiskit.targets.measured_program import Basis, MeasuredProgram
from qkd_qiskit.targets.measured_targets import ideal_program, in_basis
from qkd_qiskit.targets.sampling import make_simulator, sample_probabilities


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

    def _compile(self, circuit: QuantumCircuit) -> CompiledCircuit:
        measured = measure_all_qubits(_for_simulator(circuit))
        return _logical(self.name, circuit, measured=measured, program=_ideal_program(circuit))

    def _run(
        self, compiled: CompiledCircuit, values: NDArray[np.float64], *, shots: int, seed: int
    ) -> NDArray[np.float64]:
        return self._run_exactly(compiled, values)

    def _run_exactly(
        self, compiled: CompiledCircuit, values: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return _ideal_rows(compiled.program, values)


if TYPE_CHECKING:
    from qkd_qiskit.simulator import Program


@dataclass(frozen=True, eq=False)
class AerProgram:
    """What an `AerTarget` runs."""

    simulator: Any
    """`AerSimulator` without noise."""
    circuit: QuantumCircuit
    """The circuit that was given, without measurements."""


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

    def _compile(self, circuit: QuantumCircuit) -> CompiledCircuit:
        measured = measure_all_qubits(_for_simulator(circuit))
        simulator = make_simulator(circuit.num_qubits)
        program = AerProgram(simulator=simulator, circuit=circuit)
        return _logical(self.name, circuit, measured=measured, program=program)

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
        return _ideal_rows(_ideal_program(compiled.program.circuit), values)


def _ideal_program(circuit: QuantumCircuit) -> "Program":
    from qkd_qiskit.simulator import Program

    parameters = sorted(circuit.parameters, key=lambda parameter: str(parameter.name))
    return Program.from_circuit(circuit, input_params=parameters, weight_params=())


def _ideal_rows(program: "Program", values: NDArray[np.float64]) -> NDArray[np.float64]:
    import torch

    from qkd_qiskit.simulator import probabilities

    with torch.no_grad():
        rows = probabilities(program, torch.from_numpy(values.copy()), None)
    found: NDArray[np.float64] = rows.numpy()
    return found


def _logical(
    name: str, circuit: QuantumCircuit, *, measured: QuantumCircuit, program: Any
) -> CompiledCircuit:
    qubits = tuple(range(circuit.num_qubits))
    return CompiledCircuit(
        target=name,
        circuit=measured,
        parameters=parameter_names(circuit),
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
