"""What students with a circuit have in common: what enters it, where it runs, what follows it.

All that runs a student on a target is written against this: `encode` gives the angles of each
image, `circuits` what is run with them, and `decode` makes logits of the outcomes.
"""

from __future__ import annotations

from abc import abstractmethod

from qiskit import QuantumCircuit
from torch import Tensor

from qkd_qiskit.circuits import StudentCircuit
from qkd_qiskit.simulator import CompiledConnector
from qkd_qiskit.simulator.networks import describe_network
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.measurement import Measurement


class CircuitStudent(Student):
    """A student with a circuit that runs once or more for each image.

    Attributes:
        parts: The circuit, and which of its parameters is which.
        measurement: What is measured of it.
        runs_per_image: Rows of `encode` for an image, one after the other.
    """

    parts: StudentCircuit
    measurement: Measurement
    runs_per_image: int = 1

    @property
    def circuit(self) -> QuantumCircuit:
        """Return the unmeasured circuit, parameters x_000... (inputs) and w_000... (weights)."""
        return self.parts.circuit

    @property
    def circuits(self) -> tuple[QuantumCircuit, ...]:
        """Return the circuit, once for each basis that is measured."""
        return self.measurement.circuits

    @property
    def qubits(self) -> int:
        """Return the width of the circuit."""
        return int(self.circuit.num_qubits)

    @property
    def input_names(self) -> list[str]:
        """Return the names of the circuit's inputs, in the order of `encode`'s columns."""
        return [parameter.name for parameter in self.parts.input_params]

    @property
    def weight_names(self) -> list[str]:
        """Return the names of the circuit's weights, in the order of `weights`."""
        return [parameter.name for parameter in self.parts.weight_params]

    @property
    @abstractmethod
    def layer(self) -> CompiledConnector:
        """Return the layer that runs the circuit."""

    def extra_repr(self) -> str:
        """Return `Student.extra_repr`, the circuit's size and read-out, and how it runs."""
        circuit = describe_network(self.layer.neural_network, self.circuit)
        bases, runs = len(self.circuits), self.runs_per_image
        more = [f"{bases} bases"] if bases > 1 else []
        more += [f"{runs} circuits an image"] if runs > 1 else []
        return ", ".join([super().extra_repr(), circuit, *more, self.layer.status])

    @property
    @abstractmethod
    def weights(self) -> Tensor:
        """Return the circuit weights `(weights,)` in radians, in the order of their names."""

    @property
    @abstractmethod
    def trains_inputs(self) -> bool:
        """Return whether trained numbers lie in front of the circuit, so that inputs move."""

    @abstractmethod
    def encode(self, inputs: Tensor) -> Tensor:
        """Return values of the circuit's input parameters `(rows, inputs)` in radians.

        Args:
            inputs: What `features` gives for images; `runs_per_image` rows come of each.
        """

    @abstractmethod
    def decode(self, probabilities: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Return logits `(batch, num_classes)` of outcome probabilities, little-endian.

        This is all that follows a measurement: `student(x)` equals `student.decode(p, x)` where p
        are the exact probabilities of `student.circuits` at `student.encode(x)` and
        `student.weights`.

        Args:
            probabilities: `(rows, circuits * 2^n)`: those of all circuits, one after the other.
            inputs: What was encoded, for students that read it beside the circuit.
        """
