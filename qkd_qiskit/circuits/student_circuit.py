"""Encoding and ansatz put together: the circuit of a student, and which parameter is which."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from qiskit import QuantumCircuit
from qiskit.circuit import Measure, Parameter, ParameterExpression, Qubit

from qkd_qiskit.circuits.ansatze import make_ansatz
from qkd_qiskit.circuits.encoding_base import Encoding
from qkd_qiskit.circuits.encodings import ROTATIONS_PER_LAYER, make_encoding
from qkd_qiskit.circuits.matrix_product_encoding import DEFAULT_LOADER_LAYERS
from qkd_qiskit.circuits.standard_gates import (
    refuse_classical,
    to_standard_gates,
    without_final_measurements,
    without_layout,
)
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.recipe import StudentSpec

logger = logging.getLogger(__name__)

_ELEMENT = re.compile(r"_?(x|w|θ)[\[_](\d{1,6})[\]_]")  # x[3], which OpenQASM 3 writes _x_3_


@dataclass(frozen=True, kw_only=True)
class StudentCircuit:
    """A circuit without measurements, and what its parameters are for.

    Parameters are scalars with zero-padded names, so that the order by name is the order by number:
    a ParameterVector does not survive OpenQASM 3 (`w[10]` comes back as `_w_10_`).

    Attributes:
        circuit: The circuit; outcome k is little-endian, qubit 0 its lowest bit.
        input_params: x_000, x_001, ...: set per image by the encoding.
        weight_params: w_000, w_001, ...: trained.
        preparation: Number of leading instructions that prepare `encoding.amplitudes(features)`;
            the exact simulator may skip them and start from that state. 0: none.
        encoding: The classical map from features to input_params; None for a foreign circuit.
    """

    circuit: QuantumCircuit
    input_params: tuple[Parameter, ...]
    weight_params: tuple[Parameter, ...]
    preparation: int = 0
    encoding: Encoding | None = None

    def encoding_part(self) -> QuantumCircuit:
        """Return the circuit without the gates that no input comes after.

        What is left out is one unitary for all inputs: the states of any two inputs are as far
        apart before it as after it.
        """
        inputs, reached = set(self.input_params), set[Qubit]()
        kept = []
        for instruction in reversed(self.circuit.data):
            values = (it for it in instruction.params if isinstance(it, ParameterExpression))
            encodes = any(inputs & set(value.parameters) for value in values)
            if encodes or not reached.isdisjoint(instruction.qubits):
                kept.append(instruction)
                reached.update(instruction.qubits)
        part = self.circuit.copy_empty_like()
        for instruction in reversed(kept):
            part.append(instruction)
        return part


def parameter_names(prefix: str, count: int) -> list[str]:
    """Return x_000, x_001, ...: at least three digits, and the same number in each name."""
    width = max(3, len(str(count - 1)))
    return [f"{prefix}_{index:0{width}d}" for index in range(count)]


def build_circuit(
    *,
    qubits: int,
    encoding: str,
    ansatz: str,
    layers: int,
    features: int | None = None,
    loader_layers: int = DEFAULT_LOADER_LAYERS,
) -> StudentCircuit:
    """Return the circuit of a student: the encoding, then `layers` of the ansatz.

    Re-uploading enters the features again in front of every layer. Weights are numbered in gate
    order: a layer's own of the encoding, if it has any, before those of the ansatz.

    Args:
        qubits: Width of the circuit.
        encoding: Name of the encoding.
        ansatz: Name of the ansatz.
        layers: Layers of the ansatz.
        features: As for `make_encoding`; so is the next.
        loader_layers: Staircases of the encoding matrix_product.

    Raises:
        CircuitError: A name is unknown, or a size is not accepted.
    """
    entry = make_encoding(
        encoding, qubits=qubits, layers=layers, features=features, loader_layers=loader_layers
    )
    trained = make_ansatz(ansatz, qubits=qubits, layers=layers)
    total = trained.num_weights + layers * entry.weights_per_layer
    inputs = tuple(Parameter(name) for name in parameter_names("x", entry.num_parameters))
    weights = tuple(Parameter(name) for name in parameter_names("w", total))
    circuit = QuantumCircuit(qubits, name=f"{encoding}_{ansatz}")
    remaining = iter(weights)
    preparation = 0
    for layer in range(layers):
        own = tuple(itertools.islice(remaining, entry.weights_per_layer))
        entry.append(circuit, inputs, layer=layer, weights=own)
        if layer == 0 and entry.prepares_state:
            preparation = len(circuit.data)
        trained.append_layer(circuit, remaining, layer=layer)
    trained.append_end(circuit, remaining)
    return StudentCircuit(
        circuit=circuit,
        input_params=inputs,
        weight_params=weights,
        preparation=preparation,
        encoding=entry,
    )


def circuit_of_spec(spec: StudentSpec, *, layers: int | None = None) -> StudentCircuit:
    """Return the circuit that a specification's encoding, ansatz and sizes describe.

    Args:
        spec: The student; a circuit of one's own that it may name is not read.
        layers: Only so many layers of it, as a drawing shows them; None = all.
    """
    first = spec.layers if layers is None else layers
    features = spec.features
    if features is not None and layers is not None:
        features = min(features, ROTATIONS_PER_LAYER * spec.qubits * first)
    return build_circuit(
        qubits=spec.qubits,
        encoding=spec.encoding,
        ansatz=spec.ansatz,
        layers=first,
        features=features,
        loader_layers=spec.loader_layers,
    )


def without_entanglers(parts: StudentCircuit, *, required: bool = True) -> StudentCircuit:
    """Return a student's circuit without its gates on two or more qubits, but for its preparation.

    Args:
        parts: The circuit.
        required: Whether a circuit without such gates is refused.

    Raises:
        CircuitError: It has none, or one of them has a parameter, which would be left over.
    """
    kept = parts.circuit.copy_empty_like()
    left_out = 0
    for number, instruction in enumerate(parts.circuit.data):
        single = len(instruction.qubits) < 2 or instruction.operation.name == "barrier"
        if number < parts.preparation or single:
            kept.append(instruction)
            continue
        left_out += 1
        if instruction.operation.params:
            raise CircuitError(
                f"kind no_entanglers: the gate {instruction.operation.name} on two qubits has a "
                "parameter and cannot be left out; leave the arm out"
            )
    if required and left_out == 0:
        raise CircuitError(
            "kind no_entanglers: the circuit has no gates on two qubits; leave the arm out"
        )
    return replace(parts, circuit=kept)


def adopt_circuit(
    circuit: QuantumCircuit,
    *,
    source: str = "circuit",
    input_params: Iterable[Parameter | str] | None = None,
    weight_params: Iterable[Parameter | str] | None = None,
) -> StudentCircuit:
    """Return your own circuit as a student's: in standard gates, without its final measurements.

    Args:
        circuit: Parameters named x_000, x_001, ... (at least one) and w_000, w_001, ...; those of
            vectors, x[0], x[1], ... and w[0], ... or θ[0], ... as Qiskit's own circuits have them,
            get these names.
        source: What error messages call the circuit, for example its file name.
        input_params: The inputs in the order of the features, under any names (or a
            ParameterVector).
        weight_params: The weights in their order, under any names; default, where input_params is
            given: all other parameters, in Qiskit's order.

    Raises:
        CircuitError: A parameter has another name, a number is missing, or the circuit does
            something that has no state at its end (measurement in the middle, reset, control flow).
    """
    if circuit.num_qubits < 1:
        raise CircuitError(f"{source}: the circuit has no qubits; at least 1 is needed")
    if input_params is None and weight_params is None:
        circuit = _with_plain_names(circuit)
    else:
        circuit = _with_given_names(circuit, input_params, weight_params, source=source)
    plain = to_standard_gates(circuit, source=source)
    unmeasured = without_final_measurements(plain)
    _say_what_is_measured(plain, source=source)
    for instruction in unmeasured.data:
        refuse_classical(instruction.operation, clbits=instruction.clbits, source=source)
    if unmeasured.layout is not None:
        unmeasured = without_layout(unmeasured)
    families = {"x": _family("x", circuit.parameters), "w": _family("w", circuit.parameters)}
    known = {parameter.name for family in families.values() for parameter in family}
    strange = sorted(p.name for p in circuit.parameters if p.name not in known)
    for prefix, family in families.items():
        expected = set(parameter_names(prefix, len(family)))
        strange += sorted(p.name for p in family if p.name not in expected)
    if strange or not families["x"]:
        given = f"parameter {strange[0]!r} is not accepted" if strange else "no input parameter"
        raise CircuitError(
            f"{source}: {given}; name the inputs x_000, x_001, ... and the weights w_000, w_001, "
            "... without a gap, make them a ParameterVector x and a ParameterVector w, or give "
            "input_params and weight_params"
        )
    return StudentCircuit(
        circuit=unmeasured, input_params=families["x"], weight_params=families["w"]
    )


def _say_what_is_measured(circuit: QuantumCircuit, *, source: str) -> None:
    """Log where the measurements of a circuit are not those that a student is read out by."""
    measured = [
        (circuit.find_bit(item.qubits[0]).index, circuit.find_bit(item.clbits[0]).index)
        for item in circuit.data
        if isinstance(item.operation, Measure)
    ]
    if measured and sorted(measured) != [(qubit, qubit) for qubit in range(circuit.num_qubits)]:
        logger.warning(
            "%s: its own measurements are left out; a student is read out on all qubits, outcome "
            "bit i being qubit i",
            source,
        )


def _with_given_names(
    circuit: QuantumCircuit,
    inputs: Iterable[Parameter | str] | None,
    weights: Iterable[Parameter | str] | None,
    *,
    source: str,
) -> QuantumCircuit:
    """Return the circuit with x_000, ... and w_000, ... in place of the given parameters."""
    known = {parameter.name: parameter for parameter in circuit.parameters}
    if inputs is None:
        raise CircuitError(f"{source}: weight_params without input_params; give both")
    first = [getattr(each, "name", each) for each in inputs]
    if weights is None:
        last = [name for name in known if name not in first]
    else:
        last = [getattr(each, "name", each) for each in weights]
    given = [*first, *last]
    strange = [name for name in given if name not in known]
    twice = [name for name in given if given.count(name) > 1]
    left = [name for name in known if name not in given]
    for names, reason in (
        (strange, "is not in the circuit"),
        (twice, "is given twice"),
        (left, "is neither an input nor a weight"),
    ):
        if names:
            raise CircuitError(
                f"{source}: parameter {names[0]!r} {reason}; input_params and weight_params "
                f"together name each of {', '.join(known) or 'its parameters (none)'} once"
            )
    new = parameter_names("x", len(first)) + parameter_names("w", len(last))
    # By way of fresh names: a new name may be another parameter's old one.
    fresh = [Parameter(f"renamed {number}") for number in range(len(new))]
    moved = circuit.assign_parameters(
        {known[name]: each for name, each in zip(given, fresh, strict=True)}
    )
    return moved.assign_parameters(
        {each: Parameter(name) for each, name in zip(fresh, new, strict=True)}
    )


def _with_plain_names(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the circuit with x_000, ... and w_000, ... in place of the vectors x and w or θ."""
    elements: dict[str, dict[int, Parameter]] = {}
    for parameter in circuit.parameters:
        if found := _ELEMENT.fullmatch(parameter.name):
            elements.setdefault(found[1], {})[int(found[2])] = parameter
    prefixes = {"x": "x", "w" if "w" in elements else "θ": "w"}
    plain: dict[Parameter, Parameter] = {}
    for vector in elements.keys() & prefixes.keys():
        names = parameter_names(prefixes[vector], max(elements[vector]) + 1)
        for index, parameter in elements[vector].items():
            plain[parameter] = Parameter(names[index])
    taken = {parameter.name for parameter in circuit.parameters}
    if not plain or taken & {parameter.name for parameter in plain.values()}:
        return circuit
    return circuit.assign_parameters(plain)


def _family(prefix: str, parameters: Iterable[Parameter]) -> tuple[Parameter, ...]:
    members = (p for p in parameters if p.name.startswith(f"{prefix}_") and p.name[2:].isdecimal())
    return tuple(sorted(members, key=lambda parameter: int(parameter.name[2:])))
