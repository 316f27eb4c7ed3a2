"""What a device cannot run is said before it is sent."""

import math

import numpy as np
import pytest
from qiskit.circuit import Parameter, QuantumCircuit

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.ibm.isa_check import check_pubs
from qkd_qiskit.targets.ibm.job_plan import Pub
from qkd_qiskit.targets.snapshots import fake_backend

MANILA = fake_backend("fake_manila").target  # 5 qubits in a line; cx, id, rz, sx, x
FRACTIONAL = fake_backend("fake_fractional").target  # rzz, rx


def check(circuit, values=None, *, device=MANILA):
    names = tuple(parameter.name for parameter in circuit.parameters)
    rows = np.zeros((1, len(names))) if values is None else np.asarray(values, dtype=float)
    check_pubs([Pub(circuit, names, rows, 10)], device, name="ibm_manila")


def line(qubits=5, bits=1):
    circuit = QuantumCircuit(qubits, bits)
    circuit.sx(0)
    circuit.cx(0, 1)
    circuit.rz(Parameter("a"), 1)
    circuit.barrier()
    circuit.delay(100, 3, unit="dt")
    circuit.measure(1, 0)
    return circuit


def test_what_it_can_run_passes():
    check(line())
    check(line(4))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.ry(0.1, 2), "ibm_manila has no ry on qubit 2: compile"),
        (lambda c: c.cx(0, 2), "ibm_manila has no cx on qubits 0, 2"),
        (lambda c: c.rzz(0.1, 0, 1), "ibm_manila has no rzz on qubits 0, 1"),
        (lambda c: c.unitary(np.eye(2), 0), "has no unitary on qubit 0"),
        (lambda c: c.add_bits([]) or c.add_register(_register()), "has 2 classical registers"),
    ],
)
def test_what_it_cannot(change, said):
    circuit = line()
    change(circuit)
    with pytest.raises(TargetError, match=said):
        check(circuit)


def _register():
    from qiskit.circuit import ClassicalRegister

    return ClassicalRegister(1, "more")


def test_too_wide():
    with pytest.raises(TargetError, match="has 6 qubits, ibm_manila has 5; use a smaller"):
        check(line(6))


def test_values_are_finite():
    with pytest.raises(TargetError, match="not finite"):
        check(line(), [[0.0], [math.nan]])


def zz(angle):
    circuit = QuantumCircuit(5, 1)
    first, second = next((pair for pair in FRACTIONAL["rzz"]), (0, 1))
    circuit.rzz(angle, first, second)
    circuit.measure(0, 0)
    return circuit


@pytest.mark.parametrize("angle", [0.0, 0.7, math.pi / 2, math.pi / 2 + 1e-12])
def test_rzz_in_range(angle):
    check(zz(angle), device=FRACTIONAL)
    check(zz(Parameter("a")), [[angle], [0.1]], device=FRACTIONAL)


@pytest.mark.parametrize("angle", [-0.1, math.pi / 2 + 1e-3, 4.0])
def test_rzz_out_of_range(angle):
    with pytest.raises(TargetError, match=r"an rzz gate has the angle .* 0 to pi/2"):
        check(zz(angle), device=FRACTIONAL)
    with pytest.raises(TargetError, match="an rzz gate has the angle"):
        check(zz(Parameter("a")), [[0.1], [angle]], device=FRACTIONAL)
    a, b = Parameter("a"), Parameter("b")
    with pytest.raises(TargetError, match="an rzz gate has the angle"):
        check(zz(2 * a + b), [[0.1, 0.1], [angle / 2, 0.0]], device=FRACTIONAL)
