"""Students with a circuit as a QNN in a connector, between a reduction and a read-out.

`student.qnn` is a `SamplerQNN` or `EstimatorQNN`, `student.connector` a `TorchConnector`. What runs
on another target needs only `student.encode`, `student.circuit` and `student.decode`.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import cached_property
from typing import Any

import torch
from qiskit import QuantumCircuit
from torch import Tensor, nn

from qkd_qiskit.circuits import StudentCircuit, readout_matrix
from qkd_qiskit.circuits.qnn import make_qnn
from qkd_qiskit.circuits.readouts import OutcomeSums, parse_observables
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.recipe.seeds import derive_seed, seeded
from qkd_qiskit.simulator import CompiledConnector
from qkd_qiskit.simulator.angles import extend
from qkd_qiskit.simulator.program import Program
from qkd_qiskit.simulator.statevector import evolve
from qkd_qiskit.students.circuit_student import CircuitStudent
from qkd_qiskit.students.measurement import Measurement, measure_observables
from qkd_qiskit.students.reductions import TRAINED, make_reduction

SMALLEST_PROBABILITY = 1e-6  # log p of an outcome that was never seen stays finite
DEFAULT_SHARPNESS = 8.0
FIRST_ANGLE = 0.3  # radians; circuits that start near the identity train better than random ones
FIRST_FEATURE_SCALE = 0.1  # so that angles of a trained reduction do not start wrapped around


class QuantumStudent(CircuitStudent):
    """A circuit between a reduction and a read-out.

    Attributes:
        qnn: SamplerQNN, or EstimatorQNN for the read-out `expectation`.
        sums: What a network of your own sums outcomes into; None = what the readout says.
        connector: The TorchConnector around it.
        head: Layers from the read-out to logits, or None: logits = gamma log p.
        readout_matrix: What outcomes make which output `(circuits * 2^n, outputs)`, outcomes
            little-endian.
    """

    readout_matrix: Tensor

    def __init__(
        self,
        spec: StudentSpec,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        parts: StudentCircuit,
        seed: int,
        sums: OutcomeSums | None = None,
    ) -> None:
        super().__init__(spec, image_shape=image_shape, num_classes=num_classes)
        self.parts, self.sums = parts, sums
        self.reduction = make_reduction(
            spec.reduction,
            image_shape=image_shape,
            num_features=num_features(parts),
            pad=parts.encoding is not None and parts.encoding.prepares_state,
        )
        measured = None
        if spec.observables is not None:
            measured = parse_observables(spec.observables, qubits=parts.circuit.num_qubits)
        self.qnn = make_qnn(
            parts, readout=spec.readout, num_classes=num_classes, measured=measured, sums=sums
        )
        _shrink(self.reduction, parts)
        with seeded(derive_seed(seed, "student", "circuit")):
            weights = torch.empty(len(parts.weight_params)).uniform_(-FIRST_ANGLE, FIRST_ANGLE)
        self.connector = CompiledConnector(
            self.qnn,
            initial_weights=weights.numpy(),
            preparation=parts.preparation,
            small_in_double=False,
        )
        if measured is not None:
            self.measurement = measure_observables(parts.circuit, measured)
        elif sums is not None:
            self.measurement = Measurement((parts.circuit,), sums.matrix())
        else:
            matrix = readout_matrix(spec.readout, qubits=self.qubits, num_classes=num_classes)
            self.measurement = Measurement((parts.circuit,), matrix)
        matrix = self.measurement.matrix
        if spec.readout == "learned":
            # A parameter, though no gradient reaches it: a population keeps one for each member.
            self.readout_matrix = nn.Parameter(matrix.float(), requires_grad=False)
        else:
            self.register_buffer("readout_matrix", matrix.float(), persistent=False)
        self.head: nn.Module | None = None
        if spec.head != "none":
            sizes = {"inputs": matrix.shape[1], "num_classes": num_classes}
            self.head = make_head(spec.head, **sizes, width=spec.head_width)
        if self.head is None:
            start = DEFAULT_SHARPNESS if spec.sharpness == "learned" else float(spec.sharpness)
            log_sharpness = torch.tensor(math.log(start))
            if spec.sharpness == "learned":
                self.log_sharpness = nn.Parameter(log_sharpness)
            else:
                self.register_buffer("log_sharpness", log_sharpness, persistent=False)

    @property
    def layer(self) -> CompiledConnector:
        """Return the connector."""
        return self.connector

    @property
    def weights(self) -> Tensor:
        """Return the circuit weights `(weights,)` in radians, in the order of their names."""
        weights: Tensor = self.connector.weight
        return weights

    @property
    def sharpness(self) -> float:
        """Return gamma in logits = gamma log p, for a class-bin read-out without a head."""
        return float(self.log_sharpness.detach().exp())

    @property
    def only_circuit_is_trained(self) -> bool:
        """Return whether the circuit weights are all that is trained, on exact outcomes."""
        plain = self.head is None and self.spec.sharpness != "learned" and self.executor is None
        shared = self.spec.readout != "learned" and self.weights.requires_grad
        return plain and shared and self.spec.reduction not in TRAINED

    @property
    def trains_inputs(self) -> bool:
        """Return whether the reduction is trained."""
        return self.spec.reduction in TRAINED

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits `(batch, num_classes)` of images or prepared features."""
        features, encoding = self.reduce(inputs), self.parts.encoding
        if self.executor is not None:
            return self.decode(self.executor(self._input_values(features), self.weights))
        if encoding is not None and encoding.prepares_state:
            outputs = self.connector.from_states(encoding.amplitudes(features))
        else:
            outputs = self.connector(self._input_values(features))
        return self.decode(outputs) if self.spec.readout == "learned" else self._logits(outputs)

    def circuit_inputs(self, features: Tensor) -> dict[str, Tensor]:
        """Return features as the engine takes them: `states` to start from, or `inputs`."""
        encoding = self.parts.encoding
        if encoding is not None and encoding.prepares_state:
            return {"states": encoding.amplitudes(features)}
        return {"inputs": self._input_values(features)}

    def features(self, images: Tensor) -> Tensor:
        """Return `Student.features`; features that cannot be encoded are refused here.

        Raises:
            CircuitError: An amplitude-encoded image is zero everywhere.
        """
        features = super().features(images)
        if self.spec.reduction not in TRAINED and self.parts.encoding is not None:
            self.parts.encoding.check(features.cpu())  # once, so that it may wait for a GPU
        return features

    def encode(self, inputs: Tensor) -> Tensor:
        """Return values of the circuit's input parameters `(batch, inputs)` in radians."""
        return self._input_values(self.reduce(inputs))

    def decode(self, probabilities: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Return logits of outcome probabilities `(batch, circuits * 2^n)`, little-endian.

        This is all that follows a measurement, and `inputs` are not read: `student(x)` equals
        `student.decode(p)` where p are the exact probabilities of `student.circuits` at
        `student.encode(x)` and `student.weights`.
        """
        matrix = self.readout_matrix.detach()
        return self._logits(probabilities.to(matrix.dtype) @ matrix)

    def card(self) -> dict[str, Any]:
        """Return `Student.card`, with what a network of your own sums outcomes into."""
        own = {} if self.sums is None else {"outcome_sums": asdict(self.sums)}
        return super().card() | own

    def states(self, inputs: Tensor) -> Tensor:
        """Return the states that images or prepared features are encoded in `(batch, 2^n)`.

        Little-endian, real or complex, up to a phase of each and to a unitary that is the same for
        all, so that the fidelities between them are those of the circuit's own states. Exact and
        differentiable, wherever the circuit runs.
        """
        features, encoding = self.reduce(inputs), self.parts.encoding
        if encoding is not None and encoding.prepares_state:
            return encoding.amplitudes(features)
        program, weights = self._encoding_program, self.weights
        values = self._input_values(features).to(weights.dtype)
        return evolve(program, *extend(program.features, values, weights))

    @property
    def trains_states(self) -> bool:
        """Whether a trained number has an effect on the fidelities between the states."""
        if self.spec.reduction in TRAINED:
            return True
        return not self._encoding_circuit.parameters.isdisjoint(self.parts.weight_params)

    @cached_property
    def _encoding_circuit(self) -> QuantumCircuit:
        return self.parts.encoding_part()

    @cached_property
    def _encoding_program(self) -> Program:
        return Program.from_circuit(
            self._encoding_circuit,
            input_params=self.parts.input_params,
            weight_params=self.parts.weight_params,
        )

    def _input_values(self, features: Tensor) -> Tensor:
        encoding = self.parts.encoding
        return features if encoding is None else encoding.parameters(features)

    def _logits(self, readout: Tensor) -> Tensor:
        if self.head is None:
            log_p = readout.clamp_min(SMALLEST_PROBABILITY).log()
            return self.log_sharpness.exp() * log_p
        # Probabilities are of the order of 1 / outcomes; a linear layer expects numbers around 1.
        scale = 1 if self.spec.readout == "expectation" else readout.shape[-1]
        logits: Tensor = self.head(readout * scale)
        return logits


def make_head(head: str, *, inputs: int, num_classes: int, width: int) -> nn.Module:
    """Return the layers from a read-out to logits: linear, or mlp with a hidden layer."""
    if head == "linear":
        return nn.Linear(inputs, num_classes)
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, num_classes))


def freeze_circuit(student: QuantumStudent, *, seed: int) -> None:
    """Give a student random circuit weights, uniform over the circle, that are not trained."""
    with seeded(derive_seed(seed, "student", "frozen circuit")), torch.no_grad():
        student.weights.uniform_(-math.pi, math.pi)
    student.weights.requires_grad_(False)


def num_features(parts: StudentCircuit) -> int:
    """Return how many features a circuit takes."""
    return len(parts.input_params) if parts.encoding is None else parts.encoding.num_features


def _shrink(reduction: nn.Module, parts: StudentCircuit) -> None:
    """Start the angles that a trained reduction gives near 0; amplitudes have no scale."""
    if parts.encoding is None or not parts.encoding.prepares_state:
        with torch.no_grad():
            layers = [layer for layer in reduction.modules() if isinstance(layer, nn.Linear)]
            for parameter in (p for layer in layers[-1:] for p in layer.parameters()):
                parameter.mul_(FIRST_FEATURE_SCALE)
