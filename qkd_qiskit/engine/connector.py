"""``CompiledConnector``: Qiskit Machine Learning's ``TorchConnector``, compiled.

The same face, state dict and output as the stock connector, for exact simulation: the network's
circuit is compiled once and run for the whole batch with vector-Jacobian gradients, instead of one
primitive call per sample and parameter shift. The network's own primitive is not used.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN, NeuralNetwork, SamplerQNN
from torch import Tensor

from qkd_qiskit.engine.gates import UnsupportedInstructionError
from qkd_qiskit.engine.program import Program
from qkd_qiskit.engine.readout import Readout, expectations, outcome_sums
from qkd_qiskit.engine.run import evaluate
from qkd_qiskit.errors import CircuitError, InputError

logger = logging.getLogger(__name__)


class CompiledConnector(TorchConnector):  # type: ignore[misc]
    """A torch module that runs a quantum neural network's circuit, exactly and fast."""

    def __init__(
        self,
        neural_network: NeuralNetwork,
        initial_weights: Any = None,
        *,
        preparation: int = 0,
        kernel: bool = True,
    ) -> None:
        """Compile the network's circuit.

        A network that cannot be compiled (a mid-circuit measurement, a reset, control flow, a gate
        without a matrix, sparse output) runs as in the stock connector, after one warning.

        Args:
            neural_network: A SamplerQNN (any interpret) or EstimatorQNN (any Pauli sums).
            initial_weights: As in the stock connector; default: uniform in [-1, 1].
            preparation: The first so many instructions of the circuit prepare the input state from
                inputs alone; `from_states` runs only what follows.
            kernel: Use the compiled CPU kernel where it can run; otherwise all runs in torch.

        Raises:
            CircuitError: If the preparation uses a weight or the circuit does not fit into memory.
        """
        if isinstance(initial_weights, Tensor):  # the stock connector would warn about a tensor
            initial_weights = initial_weights.detach().cpu().numpy()
        super().__init__(neural_network, initial_weights)
        self._kernel = kernel
        self._program: Program | None = None
        self._readout: Readout | None = None
        self._remainder: Program | None = None
        try:
            self._compile(preparation)
        except UnsupportedInstructionError as error:
            warnings.warn(
                f"CompiledConnector falls back to the stock TorchConnector: {error}",
                UserWarning,
                stacklevel=2,
            )

    def _compile(self, preparation: int) -> None:
        network = self._neural_network
        if not isinstance(network, SamplerQNN | EstimatorQNN) or self._sparse:
            kind = "sparse output" if self._sparse else type(network).__name__
            raise UnsupportedInstructionError(
                f"{kind} is not compiled; accepted are dense SamplerQNN and EstimatorQNN"
            )
        circuit = network.circuit
        weights = set(network.weight_params)
        for instruction in circuit.data[:preparation]:
            parameters = circuit.copy_empty_like()
            parameters.append(instruction)
            if weights & set(parameters.parameters):
                raise CircuitError(
                    f"preparation={preparation} includes gate {instruction.operation.name!r}, "
                    "which uses a weight; the preparation may use inputs only"
                )
        named = {"input_params": network.input_params, "weight_params": network.weight_params}
        program = Program.from_circuit(circuit, **named)
        if isinstance(network, SamplerQNN):
            readout = outcome_sums(
                program, interpret=network.interpret, output_shape=network.output_shape
            )
        else:
            readout = expectations(program, network.observables)
        remainder = Program.from_circuit(circuit, **named, start=preparation)
        self._program, self._readout, self._remainder = program, readout, remainder

    @property
    def compiled(self) -> bool:
        """Whether the circuit was compiled; otherwise this is the stock connector."""
        return self._program is not None

    def forward(self, input_data: Tensor | None = None) -> Tensor:
        """Return the network's output ``(..., *output_shape)`` in the weights' dtype.

        Args:
            input_data: ``(..., num_inputs)``; None where the network has no inputs.

        Raises:
            InputError: If the inputs have another length or are not finite numbers.
        """
        if self._program is None or self._readout is None:
            stock: Tensor = super().forward(input_data)
            return stock
        num_inputs = self._program.num_inputs
        if input_data is None:
            input_data = self._weights.new_zeros(0)
        if input_data.dim() == 0 or input_data.shape[-1] != num_inputs:
            raise InputError(
                f"inputs have shape {tuple(input_data.shape)}; give (batch, {num_inputs})"
            )
        leading = input_data.shape[:-1]
        rows = 1
        for length in leading:
            rows *= length
        flat = input_data.reshape(rows, num_inputs).to(self._weights)
        values = evaluate(self._program, self._readout, flat, self._weights, kernel=self._kernel)
        return self._shaped(values, leading)

    def from_states(self, amplitudes: Tensor) -> Tensor:
        """Return the network's output for given input states, ``(..., *output_shape)``.

        Only what follows the preparation is run.

        Args:
            amplitudes: Normalised states ``(..., 2**num_qubits)``, real or complex, little-endian.

        Raises:
            InputError: If the states have another length, or the rest of the circuit uses inputs.
            CircuitError: If the network could not be compiled.
        """
        if self._remainder is None or self._readout is None:
            raise CircuitError("this network is not compiled, so it cannot start from given states")
        program = self._remainder
        size = 2**program.num_qubits
        if amplitudes.dim() == 0 or amplitudes.shape[-1] != size:
            raise InputError(
                f"states have shape {tuple(amplitudes.shape)}; give (batch, {size}) amplitudes"
            )
        if any(kind == "input" for angle in program.angles for (kind, _), _ in angle.terms) or any(
            feature.per_sample for feature in program.features
        ):
            raise InputError(
                "the circuit uses inputs after its preparation; call the connector with inputs, "
                "or count all instructions with inputs in preparation"
            )
        leading = amplitudes.shape[:-1]
        rows = 1
        for length in leading:
            rows *= length
        flat = amplitudes.reshape(rows, size)
        precision = self._weights.dtype.to_complex() if flat.is_complex() else self._weights.dtype
        values = evaluate(
            program,
            self._readout,
            self._weights.new_zeros(rows, program.num_inputs),
            self._weights,
            initial=flat.to(self._weights.device, precision),
            kernel=self._kernel,
        )
        return self._shaped(values, leading)

    def _shaped(self, values: Tensor, leading: torch.Size) -> Tensor:
        output_shape = self._neural_network.output_shape
        return values.reshape(*leading, *output_shape)
