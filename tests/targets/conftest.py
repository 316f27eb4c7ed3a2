import pytest
from qiskit.circuit import Parameter, QuantumCircuit


@pytest.fixture(scope="session")
def ring():
    """Ring circuits: angle encoding, then layers of RY, RZ and a ring of CX."""

    def build(qubits: int = 3, layers: int = 1) -> QuantumCircuit:
        circuit = QuantumCircuit(qubits)
        weights = iter(Parameter(f"w_{index:03d}") for index in range(2 * qubits * layers))
        for qubit in range(qubits):
            circuit.ry(Parameter(f"x_{qubit:03d}"), qubit)
        for _ in range(layers):
            for qubit in range(qubits):
                circuit.ry(next(weights), qubit)
                circuit.rz(next(weights), qubit)
            for qubit in range(qubits):
                circuit.cx(qubit, (qubit + 1) % qubits)
        return circuit

    return build
