"""The circuit layer of a network of the user's own, which can be run elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from qiskit_machine_learning.connectors import TorchConnector
from torch import Tensor, nn

from qkd_qiskit.circuits.quanvolution import Quanvolution
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.simulator import CompiledConnector

Outside = Callable[[Tensor], Tensor]
"""From the layer's inputs `(rows, num_inputs)` to its outputs `(rows, outputs)`."""


class CircuitLayer(CompiledConnector):
    """A connector with the network and the weights of the user's, run exactly or outside.

    Attributes:
        outside: What gives the layer's outputs; None = the circuit is run here, exactly.
    """

    outside: Outside | None = None

    @classmethod
    def of(cls, connector: TorchConnector) -> CircuitLayer:
        """Return a layer in the place of the user's, with copied weights."""
        layer = cls(connector.neural_network, initial_weights=connector.weight)
        layer.weight.requires_grad_(connector.weight.requires_grad)
        layer.train(connector.training)
        return layer

    def forward(self, input_data: Tensor | None = None) -> Tensor:
        """Return the network's output ``(..., *output_shape)`` in the weights' dtype.

        Raises:
            InputError: If the inputs have another length or are not finite numbers.
        """
        if self.outside is None or input_data is None:
            return super().forward(input_data)
        rows = self.outside(self.checked_rows(input_data))
        return self.shaped(rows.to(self.weight.dtype), input_data)


def only_circuit_layer(module: nn.Module, *, source: str) -> TorchConnector:
    """Return the one circuit layer of a network.

    Raises:
        CircuitError: There is none, there are several, or it cannot be run elsewhere.
    """
    found = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, TorchConnector | Quanvolution)
    }
    if len(found) != 1:
        names = ", ".join(repr(name) for name in found)
        what = f"{len(found)} circuit layers ({names})" if found else "no circuit layer"
        raise CircuitError(
            f"{source} has {what}; give a network with one TorchConnector or CompiledConnector"
        )
    ((name, layer),) = found.items()
    if isinstance(layer, Quanvolution):
        raise CircuitError(
            f"{source} has the circuit layer {name!r}, a Quanvolution; give a network with one "
            "TorchConnector or CompiledConnector, or student.kind: quanvolution"
        )
    known = (TorchConnector, CompiledConnector, CircuitLayer)
    if all(type(layer).forward is not kind.forward for kind in known):
        raise CircuitError(
            f"{source} has the circuit layer {name!r}, a {type(layer).__name__} with a forward of "
            "its own, which could not run elsewhere; give a TorchConnector between other layers"
        )
    if isinstance(layer, CompiledConnector) and layer.noisy:
        raise CircuitError(
            f"{source} has the circuit layer {name!r}, run with a device's channels; give it "
            "without, and train with distill.gradient: noisy and distill.train_target"
        )
    return layer
