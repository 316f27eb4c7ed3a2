"""Gate angles as functions of inputs and weights.

Nearly every angle is affine, ``constant + sum(coefficient * parameter)``, and a whole program's
angles are then one matrix product. What is not affine (the products in a ZZ feature map, a sine)
becomes a *feature*: a value computed from the parameters with torch, which enters affinely. In a
sum of products of an input and a weight, ``w x + b``, every product is a feature of its own.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from qiskit.circuit import Parameter, ParameterExpression
from torch import Tensor

from qkd_qiskit.errors import CircuitError, UnsupportedInstructionError

Source = tuple[str, int]
"""Where a value comes from: ``("input", i)``, ``("weight", i)`` or ``("feature", i)``."""


@dataclass(frozen=True)
class Angle:
    """``constant + sum(coefficient * source)`` in radians.

    Attributes:
        constant: Radians.
        terms: Coefficient per source; none of them is zero.
    """

    constant: float = 0.0
    terms: tuple[tuple[Source, float], ...] = ()

    def __add__(self, other: Angle) -> Angle:
        merged = dict(self.terms)
        for source, coefficient in other.terms:
            merged[source] = merged.get(source, 0.0) + coefficient
        terms = tuple((source, value) for source, value in merged.items() if value != 0.0)
        return Angle(self.constant + other.constant, terms)

    def per_sample(self, features: Sequence[Feature]) -> bool:
        """Return whether it depends on an input, by itself or through one of the features."""
        return any(
            kind == "input" or (kind == "feature" and features[index].per_sample)
            for (kind, index), _ in self.terms
        )


@dataclass(frozen=True)
class Feature:
    """A value that is not affine in the parameters.

    Attributes:
        expression: The sympy expression.
        sources: Input or weight per symbol name.
        per_sample: It depends on an input.
        product: Which input and which weight it is the product of, if it is one.
    """

    expression: Any
    sources: Mapping[str, Source]
    per_sample: bool
    product: tuple[int, int] | None = None

    def value(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the value, ``(batch,)`` where it depends on an input, else a scalar tensor."""
        known = {
            name: inputs[..., index] if kind == "input" else weights[..., index]
            for name, (kind, index) in self.sources.items()
        }
        result = _evaluate(self.expression, known)
        return result if isinstance(result, Tensor) else weights.new_full((), result)


@dataclass
class AngleReader:
    """Turns Qiskit's gate parameters into angles, and collects the features they need."""

    sources: Mapping[Parameter, Source]
    features: list[Feature] = field(default_factory=list)
    _known: dict[Any, int] = field(default_factory=dict)

    def read(self, value: Any) -> Angle:
        """Return the angle of one gate parameter.

        Raises:
            CircuitError: If it uses a parameter that is neither an input nor a weight, or a
                function that is not differentiable here.
        """
        if not isinstance(value, ParameterExpression):
            return Angle(_real(value))
        parameters = sorted(value.parameters, key=lambda parameter: str(parameter.name))
        for parameter in parameters:
            if parameter not in self.sources:
                raise CircuitError(
                    f"circuit parameter {parameter.name!r} is neither an input nor a weight; "
                    "list it in input_params or weight_params, or bind it"
                )
        slopes = _slopes(value, parameters)
        if slopes is not None and all(_is_number(slope) for slope in slopes):
            constant = value.bind(dict.fromkeys(parameters, 0.0)) if parameters else value
            terms = [
                (self.sources[parameter], _real(slope))
                for parameter, slope in zip(parameters, slopes, strict=True)
            ]
            return Angle(_real(constant), tuple(term for term in terms if term[1] != 0.0))
        if slopes is not None:
            angle = self._with_products(value, dict(zip(parameters, slopes, strict=True)))
            if angle is not None:
                return angle
        return Angle(0.0, ((("feature", self._feature(value, parameters)), 1.0),))

    def _with_products(
        self, value: ParameterExpression, slopes: Mapping[Parameter, Any]
    ) -> Angle | None:
        """Return an angle that is affine but for products of an input and a weight, or None."""
        factors: dict[tuple[Parameter, Parameter], float] = {}
        for parameter, slope in slopes.items():
            others = [] if _is_number(slope) else list(slope.parameters)
            seconds = _slopes(slope, others) if others else []
            if seconds is None or not all(_is_number(second) for second in seconds):
                return None
            # A derivative still lists the parameters that dropped out of it.
            for other, second in zip(others, seconds, strict=True):
                if _real(second) == 0.0:
                    continue
                kinds = self.sources[parameter][0], self.sources[other][0]
                if kinds == ("input", "weight"):
                    factors[parameter, other] = _real(second)
                elif kinds != ("weight", "input"):
                    return None
        zeros = dict.fromkeys(slopes, 0.0)
        angle = Angle(_real(value.bind(zeros)))
        for parameter, slope in slopes.items():
            at_zero = slope
            if isinstance(slope, ParameterExpression):
                at_zero = slope.bind(dict.fromkeys(slope.parameters, 0.0))
            if _real(at_zero) != 0.0:
                angle += Angle(terms=((self.sources[parameter], _real(at_zero)),))
        for (first, second), factor in factors.items():
            place = (self.sources[first][1], self.sources[second][1])
            number = self._feature(first * second, [first, second], product=place)
            angle += Angle(terms=((("feature", number), factor),))
        return angle

    def _feature(
        self,
        value: ParameterExpression,
        parameters: list[Parameter],
        *,
        product: tuple[int, int] | None = None,
    ) -> int:
        expression = _as_sympy(value)
        if expression not in self._known:  # not its text: a parameter may be called a*b
            sources = {str(parameter.name): self.sources[parameter] for parameter in parameters}
            per_sample = any(kind == "input" for kind, _ in sources.values())
            _check_functions(expression)
            self._known[expression] = len(self.features)
            self.features.append(Feature(expression, sources, per_sample, product))
        return self._known[expression]


@dataclass(frozen=True)
class AngleMap:
    """All angles of one kind (shared by the batch, or one per sample) as an affine map.

    Features are appended to the inputs or to the weights, whichever they depend on (`extend`).

    Attributes:
        constant: Radians ``(angles,)``.
        inputs: Coefficients ``(angles, num_inputs + features of inputs)``, or None for none.
        weights: Coefficients ``(angles, num_weights + features of weights)``, or None for none.
    """

    constant: Tensor
    inputs: Tensor | None
    weights: Tensor | None

    @classmethod
    def of(
        cls, angles: list[Angle], *, num_inputs: int, num_weights: int, features: list[Feature]
    ) -> AngleMap:
        """Return the map of some angles."""
        place: dict[Source, tuple[str, int]] = {}
        sizes = {"input": num_inputs, "weight": num_weights}
        for number, feature in enumerate(features):
            kind = "input" if feature.per_sample else "weight"
            place["feature", number] = (kind, sizes[kind])
            sizes[kind] += 1
        matrices = {
            kind: torch.zeros(len(angles), size, dtype=torch.float64)
            for kind, size in sizes.items()
        }
        for row, angle in enumerate(angles):
            for source, coefficient in angle.terms:
                kind, column = place.get(source, source)
                matrices[kind][row, column] = coefficient
        return cls(
            torch.tensor([angle.constant for angle in angles], dtype=torch.float64),
            matrices["input"] if matrices["input"].any() else None,
            matrices["weight"] if matrices["weight"].any() else None,
        )

    def to(self, like: Tensor) -> AngleMap:
        """Return the map with the dtype and device of a tensor."""
        moved = (
            None if part is None else part.to(like.device, like.dtype)
            for part in (self.inputs, self.weights)
        )
        return AngleMap(self.constant.to(like.device, like.dtype), *moved)

    def __call__(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return angles ``(angles,)``, or ``(batch, angles)`` where inputs enter."""
        total = self.constant
        for matrix, values in ((self.weights, weights), (self.inputs, inputs)):
            if matrix is not None:
                total = total + values @ matrix.T
        return total


def extend(features: Sequence[Feature], inputs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs ``(batch, ...)`` and weights ``(...,)`` with their features appended."""
    of_inputs, of_weights = [inputs], [weights]
    for product, group in itertools.groupby(features, key=lambda each: each.product is not None):
        if product:
            pairs = [feature.product for feature in group if feature.product is not None]
            columns, places = zip(*pairs, strict=True)
            of_inputs.append(inputs[:, list(columns)] * weights[list(places)])
            continue
        _extend_one_by_one(group, of_inputs, of_weights)
    if len(of_inputs) > 1:
        inputs = torch.cat(of_inputs, dim=1)
    if len(of_weights) > 1:
        weights = torch.cat(of_weights)
    return inputs, weights


def _extend_one_by_one(
    features: Iterable[Feature], of_inputs: list[Tensor], of_weights: list[Tensor]
) -> None:
    inputs, weights = of_inputs[0], of_weights[0]
    for feature in features:
        value = feature.value(inputs, weights)
        if feature.per_sample:
            of_inputs.append(value.expand(inputs.shape[0])[:, None])
        else:
            of_weights.append(value.reshape(1))


def _slopes(value: ParameterExpression, parameters: list[Parameter]) -> list[Any] | None:
    """Return the derivative by each parameter, or None where Qiskit does not know them."""
    try:
        return [value.gradient(parameter) for parameter in parameters]
    except RuntimeError:  # sign(x)
        return None


def _as_sympy(value: ParameterExpression) -> Any:
    try:
        expression = value.sympify()
    except (TypeError, AttributeError):
        expression = NotImplemented
    if expression is NotImplemented:  # Qiskit's answer where a number has an exponent
        raise UnsupportedInstructionError(
            f"gate angle {value} cannot be read; write a power of a number as exp, such as "
            "(w * log(2)).exp() in place of 2**w"
        )
    return expression


def _real(value: Any) -> float:
    if isinstance(value, ParameterExpression):
        value = value.numeric()
    number = complex(value)
    if abs(number.imag) > 1e-12:
        raise CircuitError(f"gate parameter {number} is complex; angles are real numbers")
    if not math.isfinite(number.real):
        raise CircuitError(f"gate parameter {number.real} is not finite; angles are real numbers")
    return number.real


def _is_number(value: Any) -> bool:
    return not isinstance(value, ParameterExpression) or not value.parameters


def _functions() -> dict[str, Callable[..., Any]]:
    return {
        "sin": torch.sin,
        "cos": torch.cos,
        "tan": torch.tan,
        "asin": torch.asin,
        "acos": torch.acos,
        "atan": torch.atan,
        "exp": torch.exp,
        "log": torch.log,
        "Abs": torch.abs,
        "sign": torch.sign,
        "conjugate": lambda value: value,
    }


def _check_functions(expression: Any) -> None:
    for node in expression.atoms() if not expression.args else _nodes(expression):
        name = type(node).__name__
        known = node.is_Number or node.is_NumberSymbol or node.is_Symbol
        if not (known or name in ("Add", "Mul", "Pow") or name in _functions()):
            raise UnsupportedInstructionError(
                f"gate angle {expression} uses {name}; accepted are sums, products, powers and "
                + ", ".join(_functions())
            )


def _nodes(expression: Any) -> list[Any]:
    found = [expression]
    for part in expression.args:
        found.extend(_nodes(part))
    return found


def _evaluate(expression: Any, known: Mapping[str, Tensor]) -> Any:
    """Return a sympy expression's value: a tensor, or a float where no symbol enters."""
    if expression.is_Symbol:
        return known[expression.name]
    if not expression.args or not expression.free_symbols:
        return float(expression)
    parts = [_evaluate(part, known) for part in expression.args]
    name = type(expression).__name__
    if name == "Add":
        return functools.reduce(lambda left, right: left + right, parts)
    if name == "Mul":
        return functools.reduce(lambda left, right: left * right, parts)
    if name == "Pow":
        base, exponent = parts
        return base**exponent
    return _functions()[name](parts[0])
