"""Functions and powers of parameters in OpenQASM 3 text, as Qiskit's angles.

Qiskit's exporter writes `rx(sin(w_000))` and `w_000**2`; its importer takes sums, products and
quotients only. Such an angle is replaced in the parsed program by an input of its own, and the
input, once the program is a circuit, by the expression.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from openqasm3 import ast
from openqasm3.visitor import QASMVisitor
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterExpression

from qkd_qiskit.errors import CircuitError

_CONSTANTS = {"pi": math.pi, "π": math.pi, "tau": math.tau, "τ": math.tau}
_CONSTANTS |= {"euler": math.e, "ℇ": math.e}
_FUNCTIONS: dict[str, tuple[str, Callable[[float], float]]] = {
    "sin": ("sin", math.sin),
    "cos": ("cos", math.cos),
    "tan": ("tan", math.tan),
    "arcsin": ("arcsin", math.asin),
    "arccos": ("arccos", math.acos),
    "arctan": ("arctan", math.atan),
    "exp": ("exp", math.exp),
    "log": ("log", math.log),
    "abs": ("abs", abs),  # not of the standard; Qiskit writes it all the same
    "sign": ("sign", lambda value: float((value > 0) - (value < 0))),
}
_PREFIX = "angle_of_an_expression_"


def extract_angles(program: ast.Program) -> dict[str, Any]:
    """Replace the angles that Qiskit does not read by inputs.

    Only angles outside of gate definitions, of numbers and declared inputs, are replaced; the
    importer says what it thinks of the others.

    Returns:
        The expression per new input's name.

    Raises:
        CircuitError: A function is not known.
    """
    inputs = {
        statement.identifier.name: Parameter(statement.identifier.name)
        for statement in program.statements
        if isinstance(statement, ast.IODeclaration)
        and statement.io_identifier is ast.IOKeyword["input"]
    }
    found: dict[str, Any] = {}
    for statement in program.statements:
        if not isinstance(statement, ast.QuantumGate):
            continue
        for position, argument in enumerate(statement.arguments):
            if not _needs_help(argument):
                continue
            value = _value(argument, inputs)
            if value is not None:
                name = f"{_PREFIX}{len(found)}"
                found[name] = value
                statement.arguments[position] = ast.Identifier(name)
    for name in reversed(found):
        kind = ast.FloatType(size=ast.IntegerLiteral(64))
        program.statements.insert(
            0, ast.IODeclaration(ast.IOKeyword["input"], kind, ast.Identifier(name))
        )
    return found


def put_back_angles(circuit: QuantumCircuit, angles: dict[str, Any]) -> QuantumCircuit:
    """Return the circuit with the expressions in place of their inputs."""
    if not angles:
        return circuit
    own = {parameter.name: parameter for parameter in circuit.parameters}

    def on_circuit(value: Any) -> Any:
        if not isinstance(value, ParameterExpression):
            return value
        moved = {p: own[p.name] for p in value.parameters if p.name in own}
        return value.subs(moved)

    return circuit.assign_parameters(
        {own[name]: on_circuit(value) for name, value in angles.items() if name in own}
    )


class _Finder(QASMVisitor[None]):
    """Notes whether an expression holds a function or a power."""

    def __init__(self) -> None:
        self.found = False

    def visit_FunctionCall(self, node: ast.FunctionCall) -> None:
        """Note it."""
        self.found = True

    def visit_BinaryExpression(self, node: ast.BinaryExpression) -> None:
        """Note a power, or look inside."""
        if node.op is ast.BinaryOperator["**"]:
            self.found = True
        else:
            self.generic_visit(node)


def _needs_help(expression: ast.Expression) -> bool:
    finder = _Finder()
    finder.visit(expression)
    return finder.found


def _value(node: ast.Expression, inputs: dict[str, Parameter]) -> Any:
    """Return a number or an expression of inputs; None where it is made of other things."""
    if isinstance(node, ast.IntegerLiteral | ast.FloatLiteral):
        return float(node.value)
    if isinstance(node, ast.Identifier):
        return inputs.get(node.name, _CONSTANTS.get(node.name))
    if isinstance(node, ast.UnaryExpression) and node.op is ast.UnaryOperator["-"]:
        inner = _value(node.expression, inputs)
        return None if inner is None else -inner
    if isinstance(node, ast.BinaryExpression):
        left, right = _value(node.lhs, inputs), _value(node.rhs, inputs)
        return None if left is None or right is None else _operated(node.op.name, left, right)
    if isinstance(node, ast.FunctionCall):
        values = [_value(argument, inputs) for argument in node.arguments]
        if any(value is None for value in values):
            return None
        return _applied(node.name.name, values)
    return None


def _operated(operator: str, left: Any, right: Any) -> Any:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if operator == "/":
        return left / right
    return left**right if operator == "**" else None


def _applied(name: str, values: list[Any]) -> Any:
    if name == "pow" and len(values) == 2:
        return values[0] ** values[1]
    if name == "sqrt" and len(values) == 1:
        return values[0] ** 0.5
    if name not in _FUNCTIONS or len(values) != 1:
        raise CircuitError(
            f"an angle uses the function {name} of {len(values)} numbers; accepted are pow, sqrt "
            f"and {', '.join(_FUNCTIONS)}"
        )
    method, function = _FUNCTIONS[name]
    value = values[0]
    return getattr(value, method)() if isinstance(value, ParameterExpression) else function(value)
