"""OpenQASM 3 text as a Qiskit circuit; programs that are no student's are refused first.

Apart from openqasm.py, which imports it where a text is read: the parser takes longer to load than
most runs, which build their circuits, spend on circuits at all.
"""

from __future__ import annotations

import contextlib
import functools
import io

import openqasm3
import qiskit_qasm3_import
from openqasm3 import ast
from openqasm3.visitor import QASMVisitor
from qiskit import QuantumCircuit

from qkd_qiskit.circuits.angle_expressions import extract_angles, put_back_angles
from qkd_qiskit.errors import CircuitError, one_line

LARGEST_REGISTER = 1000  # qubits or bits; before a register of a billion is allocated
LARGEST_EXPANSION = 20_000  # gates that calls of the file's own gates may become


@functools.lru_cache(maxsize=16)
def read_program(text: str) -> QuantumCircuit:
    """Return the circuit in OpenQASM 3 text; it is shared, so it must not be changed.

    Raises:
        CircuitError: It is not OpenQASM 3, or holds what no student does.
    """
    # The parser prints what it cannot read; only some reasons are in the exception as well.
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        try:
            program = openqasm3.parse(text.removeprefix("\ufeff"))
        except openqasm3.parser.QASM3ParsingError as error:
            raise CircuitError(
                f"not an OpenQASM 3 circuit ({one_line(error)} "
                f"{' '.join(printed.getvalue().split())}); write it with qiskit.qasm3.dump"
            ) from error
    _Limits().visit(program)
    angles = extract_angles(program)
    circuit = qiskit_qasm3_import.convert(program)
    return put_back_angles(circuit, angles)


class _Limits(QASMVisitor[None]):
    """Refuses what has no student, before it is built."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.expanded = 0

    def visit_QuantumGateDefinition(self, node: ast.QuantumGateDefinition) -> None:
        """Count what a call of the gate becomes."""
        calls = [part.name.name for part in node.body if isinstance(part, ast.QuantumGate)]
        self.sizes[node.name.name] = sum(self.sizes.get(name, 1) for name in calls)

    def visit_QuantumGate(self, node: ast.QuantumGate) -> None:
        """Refuse gates made of gates made of gates, thousands of them."""
        self.expanded += self.sizes.get(node.name.name, 0)
        if self.expanded > LARGEST_EXPANSION:
            raise CircuitError(
                f"the file's own gates become {self.expanded:.3g} gates; at most "
                f"{LARGEST_EXPANSION} are accepted"
            )
        self.generic_visit(node)

    def visit_BinaryExpression(self, node: ast.BinaryExpression) -> None:
        """Refuse 1/2, which is 0 in OpenQASM 3 and hardly meant."""
        whole = [each for each in (node.lhs, node.rhs) if isinstance(each, ast.IntegerLiteral)]
        if node.op is ast.BinaryOperator["/"] and len(whole) == 2:
            top, bottom = (each.value for each in whole)
            if bottom == 0 or top % bottom:
                raise CircuitError(
                    f"{top}/{bottom} divides whole numbers, which drops the remainder in OpenQASM "
                    f"3; write {top}.0/{bottom}"
                )
        self.generic_visit(node)

    def visit_ForInLoop(self, node: ast.ForInLoop) -> None:
        """Refuse what the importer stumbles over."""
        raise CircuitError("a for loop is not accepted; write out its gates")

    def visit_Identifier(self, node: ast.Identifier) -> None:
        """Refuse qubits of a device."""
        if node.name.startswith("$"):
            raise CircuitError(
                f"{node.name} is a physical qubit of a device; declare `qubit[n] q;` and use q[0], "
                "q[1], ...: the circuit is compiled for each device later"
            )

    def visit_QubitDeclaration(self, node: ast.QubitDeclaration) -> None:
        """Refuse registers that no simulator or device has."""
        _check_size(node.size, "qubits")

    def visit_BitType(self, node: ast.BitType) -> None:
        """Refuse registers that are only there to fill memory."""
        _check_size(node.size, "bits")


def _check_size(size: ast.Expression | None, what: str) -> None:
    if isinstance(size, ast.IntegerLiteral) and size.value > LARGEST_REGISTER:
        raise CircuitError(
            f"a register of {size.value} {what} was declared; at most {LARGEST_REGISTER} are "
            "accepted"
        )
