"""``CompiledConnector``: Qiskit Machine Learning's ``TorchConnector``, compiled.

The same face, state dict and output as the stock connector, for exact simulation: the network's
circuit is compiled once and run for the whole batch with vector-Jacobian gradients, instead of one
primitive call per sample and parameter shift. The network's own primitive is not used; where it
samples or is noisy, that is said.
"""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import Any

import torch
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit_machine_learning import QiskitMachineLearningError
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN, NeuralNetwork, SamplerQNN
from torch import Tensor

from qkd_qiskit.errors import CircuitError, InputError, UnsupportedInstructionError
from qkd_qiskit.simulator.channels import Channels
from qkd_qiskit.simulator.density.program import DensityProgram
from qkd_qiskit.simulator.density.run import noisy_values
from qkd_qiskit.simulator.kernel.plan import LEAST_NARROW
from qkd_qiskit.simulator.memory import SAMPLE_BYTES, require_memory
from qkd_qiskit.simulator.networks import (
    amplitude_inputs,
    as_amplitudes,
    check_width,
    describe_network,
    exact_primitive,
    pauli_sums,
    placed_observables,
    primitive_name,
)
from qkd_qiskit.simulator.program import Program, final_measurements, used_qubits
from qkd_qiskit.simulator.program_cache import program_of
from qkd_qiskit.simulator.readout import (
    Readout,
    diagonal_matrix,
    expectations,
    outcome_matrix,
    outcome_sums,
)
from qkd_qiskit.simulator.run import evaluate
from qkd_qiskit.simulator.torch_device import on_host

_SMALL_BATCH = 8  # samples that fill one tile of the kernel in float64, and half of one in float32


class ConnectorInputError(InputError, QiskitMachineLearningError):  # type: ignore[misc]
    """Inputs of another length; also what the stock connector raises."""

    def __str__(self) -> str:
        """Return the message; Qiskit would put it in quotes."""
        return str(self.args[0])


class CompiledConnector(TorchConnector):  # type: ignore[misc]
    """A torch module that runs a quantum neural network's circuit, exactly and fast.

    Example:
        >>> import torch
        >>> from qiskit.circuit.library import zz_feature_map, real_amplitudes
        >>> from qiskit_machine_learning.neural_networks import EstimatorQNN
        >>> from qkd_qiskit import CompiledConnector
        >>> inputs, ansatz = zz_feature_map(2), real_amplitudes(2, reps=1)
        >>> qnn = EstimatorQNN(
        ...     circuit=inputs.compose(ansatz),
        ...     input_params=inputs.parameters,
        ...     weight_params=ansatz.parameters,
        ... )
        >>> layer = CompiledConnector(qnn)  # in place of TorchConnector(qnn)
        >>> layer(torch.zeros(3, 2)).shape
        torch.Size([3, 1])
    """

    def __init__(
        self,
        neural_network: NeuralNetwork,
        initial_weights: Any = None,
        sparse: bool | None = None,
        *,
        preparation: int = 0,
        kernel: bool = True,
        small_in_double: bool = True,
        channels: Channels | None = None,
        circuit: QuantumCircuit | None = None,
    ) -> None:
        """Compile the network's circuit.

        A network that cannot be compiled (a mid-circuit measurement, a reset, control flow, a gate
        without a matrix, observables with parameters) runs as in the stock connector, after one
        warning; one with sparse output does so without. There is a warning, too, where the
        network's own primitive samples or is noisy, as here its circuit is run exactly.

        Args:
            neural_network: A SamplerQNN (any interpret) or EstimatorQNN (any Pauli sums).
            initial_weights: As in the stock connector; default: uniform in [-1, 1].
            sparse: As in the stock connector; default: as the network.
            preparation: The first so many instructions of the circuit prepare the input state from
                inputs alone; `from_states` runs only what follows.
            kernel: Use the compiled CPU kernel where it can run; otherwise all runs in torch.
            small_in_double: Batches of up to 8 samples on the CPU are computed in float64 and
                rounded to the weights' dtype, as in the stock connector, below 12 qubits, where it
                costs the kernel nothing.
            channels: A device's noise; the circuit then runs as a density matrix under it.
            circuit: What runs in place of the network's circuit: the same circuit transpiled to the
                device, with the same parameter names, measured. Needed with channels unless the
                network's own circuit is already transpiled.

        Raises:
            CircuitError: If the preparation uses a weight or the circuit does not fit into memory.
            InputError: If the network is none, or initial_weights have another length.
        """
        if not isinstance(neural_network, NeuralNetwork):
            raise InputError(
                f"the network is of type {type(neural_network).__name__}; give a SamplerQNN or an "
                "EstimatorQNN of qiskit_machine_learning"
            )
        if isinstance(initial_weights, Tensor):  # the stock connector would warn about a tensor
            initial_weights = initial_weights.detach().cpu().numpy()
        super().__init__(neural_network, initial_weights, sparse)
        shape = tuple(self._weights.shape)
        if shape != (neural_network.num_weights,) or not bool(self._weights.isfinite().all()):
            raise ConnectorInputError(
                f"initial_weights of shape {shape} do not fit, or are not finite; give "
                f"{neural_network.num_weights} numbers"
            )
        self._kernel, self._small_in_double = kernel, small_in_double
        self._amplitudes: tuple[int, ...] | None = None
        self._program: Program | None = None
        self._noisy: DensityProgram | None = None
        self._readout: Readout | None = None
        self._remainder: Program | None = None
        self._runs, self._reason = circuit, "its output is sparse"
        if self._sparse and channels is None:
            return  # the stock connector's: asked for, so nothing to warn of
        try:
            if channels is None:
                self._compile(circuit, preparation)
            else:
                self._compile_noisy(circuit, channels)
        except UnsupportedInstructionError as error:
            if channels is not None:
                raise  # the stock connector would run without the noise
            self._reason = str(error)
            warnings.warn(
                f"CompiledConnector falls back to the stock TorchConnector: {error}",
                UserWarning,
                stacklevel=2,
            )
            return
        if channels is None and not exact_primitive(neural_network):
            warnings.warn(
                f"CompiledConnector runs the circuit exactly; {primitive_name(neural_network)}, "
                "which samples or is noisy, is not used; use qiskit_machine_learning's "
                "TorchConnector to run it, or give channels for a device's noise",
                UserWarning,
                stacklevel=2,
            )

    def _compile(self, circuit: QuantumCircuit | None, preparation: int) -> None:
        network = self._checked_network()
        own = circuit is None
        circuit, inputs, weights = self._circuit(circuit)
        self._amplitudes = None if preparation else amplitude_inputs(circuit, inputs)
        if self._amplitudes is not None:
            preparation = 1
        for instruction in circuit.data[:preparation]:
            used = {one for angle in instruction.params for one in getattr(angle, "parameters", ())}
            if used & set(weights):
                raise CircuitError(
                    f"preparation={preparation} includes gate {instruction.operation.name!r}, "
                    "which uses a weight; the preparation may use inputs only"
                )
        if self._kernel:  # before minutes of compiling what cannot run
            width = len(used_qubits(circuit, final_measurements(circuit)))
            require_memory(width, copies=1, bytes_each=SAMPLE_BYTES, what="one state")
        compiled = partial(program_of, circuit, input_params=inputs, weight_params=weights)
        program = compiled(start=0 if self._amplitudes is None else preparation)
        if isinstance(network, SamplerQNN):
            readout = outcome_sums(
                program, interpret=network.interpret, output_shape=network.output_shape
            )
        else:
            readout = expectations(
                program, placed_observables(network.observables, circuit, own=own)
            )
        if self._amplitudes is not None and program.shared < len(program.angles):
            raise UnsupportedInstructionError(
                "a raw feature vector whose features are angles as well is not compiled"
            )
        self._program, self._readout = program, readout
        self._remainder = compiled(start=preparation)

    def _checked_network(self) -> SamplerQNN | EstimatorQNN:
        network = self._neural_network
        if not isinstance(network, SamplerQNN | EstimatorQNN) or self._sparse:
            kind = "sparse output" if self._sparse else type(network).__name__
            raise UnsupportedInstructionError(
                f"{kind} is not compiled; accepted are dense SamplerQNN and EstimatorQNN"
            )
        return network

    def _circuit(
        self, given: QuantumCircuit | None
    ) -> tuple[QuantumCircuit, list[Parameter], list[Parameter]]:
        """Return what runs, and its inputs and weights in the network's order."""
        network = self._neural_network
        circuit = network.circuit if given is None else given
        by_name = {parameter.name: parameter for parameter in circuit.parameters}
        inputs = [by_name.get(known.name, known) for known in network.input_params]
        weights = [by_name.get(known.name, known) for known in network.weight_params]
        return circuit, inputs, weights

    def _compile_noisy(self, circuit: QuantumCircuit | None, channels: Channels) -> None:
        network = self._checked_network()
        circuit, inputs, weights = self._circuit(circuit)
        program = DensityProgram.from_circuit(
            circuit, channels, input_params=inputs, weight_params=weights
        )
        if isinstance(network, SamplerQNN):
            matrix = outcome_matrix(program.num_outcomes, network.interpret, network.output_shape)
        else:
            observables = pauli_sums(network.observables)
            bits = program.num_outcomes.bit_length() - 1
            check_width(observables, bits, what="bits that are measured")
            matrix = diagonal_matrix(program.num_outcomes, observables)
        self._noisy, self._outputs = program, torch.from_numpy(matrix)

    @property
    def compiled(self) -> bool:
        """Whether the circuit was compiled; otherwise this is the stock connector."""
        return self._program is not None or self._noisy is not None

    @property
    def noisy(self) -> bool:
        """Whether the circuit runs with a device's noise."""
        return self._noisy is not None

    @property
    def status(self) -> str:
        """Whether the circuit was compiled, and else why not, in words."""
        if not self.compiled:
            return f"not compiled: {self._reason}"
        return "compiled with a device's noise" if self.noisy else "compiled"

    def extra_repr(self) -> str:
        """Return qubits, weights, two-qubit gates, read-out and whether it is compiled."""
        network = self._neural_network
        circuit = getattr(network, "circuit", None) if self._runs is None else self._runs
        what = [] if circuit is None else [describe_network(network, circuit)]
        return ", ".join([*what, self.status])

    def forward(self, input_data: Tensor | None = None) -> Tensor:
        """Return the network's output ``(..., *output_shape)`` in the weights' dtype.

        Args:
            input_data: ``(..., num_inputs)``; None where the network has no inputs. They are moved
                to the weights' device; on another than the CPU all runs in torch there.

        Raises:
            InputError: If the inputs have another length or are not finite numbers (on another
                device than the CPU, outputs of such inputs are NaN).
        """
        program = self._noisy or self._program
        if program is None:
            stock: Tensor = super().forward(input_data)
            return stock
        if input_data is None:
            input_data = self._weights.new_zeros(0)
        weights = self._weights
        flat = self.checked_rows(input_data).to(weights)
        if (
            self._small_in_double
            and flat.shape[0] <= _SMALL_BATCH
            and flat.dtype != torch.float64
            and on_host(flat)
            and (self._noisy is not None or program.num_qubits < LEAST_NARROW)
        ):
            values = self._values(flat.double(), weights.double()).to(weights.dtype)
        else:
            values = self._values(flat, weights)
        return self.shaped(values, input_data)

    def checked_rows(self, input_data: Tensor) -> Tensor:
        """Return inputs ``(rows, num_inputs)`` of ``(..., num_inputs)``.

        Raises:
            InputError: If they have another length, or are no dense tensor.
        """
        num_inputs = self._neural_network.num_inputs
        if not isinstance(input_data, Tensor) or input_data.layout is not torch.strided:
            raise ConnectorInputError(
                f"inputs are {getattr(input_data, 'layout', type(input_data).__name__)}; give a "
                f"dense tensor (batch, {num_inputs})"
            )
        if input_data.dim() == 0 or input_data.shape[-1] != num_inputs:
            raise ConnectorInputError(
                f"inputs have shape {tuple(input_data.shape)}; give (batch, {num_inputs})"
            )
        return _flattened(input_data)

    def _values(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return output values ``(batch, size)`` of inputs ``(batch, num_inputs)``."""
        if self._noisy is not None:
            return noisy_values(
                self._noisy, inputs, weights, outputs=self._outputs, kernel=self._kernel
            )
        assert self._program is not None
        assert self._readout is not None
        states = None if self._amplitudes is None else as_amplitudes(inputs, self._amplitudes)
        return evaluate(
            self._program, self._readout, inputs, weights, initial=states, kernel=self._kernel
        )

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
            raise CircuitError(
                "this connector cannot start from given states: its network is "
                + ("run with noise" if self._noisy is not None else "not compiled")
            )
        program = self._remainder
        size = 2**program.num_qubits
        if amplitudes.dim() == 0 or amplitudes.shape[-1] != size:
            raise InputError(
                f"states have shape {tuple(amplitudes.shape)}; give (batch, {size}) amplitudes"
            )
        if program.shared < len(program.angles):
            raise InputError(
                "the circuit uses inputs after its preparation; call the connector with inputs, "
                "or count all instructions with inputs in preparation"
            )
        weights = self._weights
        flat = _flattened(amplitudes)
        precision = weights.dtype.to_complex() if flat.is_complex() else weights.dtype
        values = evaluate(
            program,
            self._readout,
            weights.new_empty(flat.shape[0], program.num_inputs),
            weights,
            initial=flat.to(weights.device, precision),
            kernel=self._kernel,
        )
        return self.shaped(values, amplitudes)

    def shaped(self, values: Tensor, given: Tensor) -> Tensor:
        """Return outputs ``(..., *output_shape)`` of rows that come of inputs ``(..., length)``."""
        shape = (*given.shape[:-1], *self._neural_network.output_shape)
        return values if values.shape == shape else values.reshape(shape)


def _flattened(given: Tensor) -> Tensor:
    """Return ``(batch, length)`` of ``(..., length)``, which may be empty."""
    if given.dim() == 2:
        return given
    return given.reshape(math.prod(given.shape[:-1]), given.shape[-1])
