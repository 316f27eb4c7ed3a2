"""Our noisy probabilities against Aer's, and shots of both against each other."""

import numpy as np
import pytest
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.providers.fake_provider import GenericBackendV2
from scipy import stats

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets import DeviceTarget, Target, aer_check
from qkd_qiskit.targets.aer_check import AerCheck, check_with_aer

SHOTS = 20_000
DEVICES = [
    "fake_manila",  # cx
    "fake_sherbrooke",  # ecr
    "fake_torino",  # cz
    "fake_manila:scale=3",
    "synthetic:qubits=3:p1=0.01:p2=0.03:readout=0.05",
]


def angles(compiled, batch, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-np.pi, np.pi, (batch, len(compiled.parameters)))


def in_basis(circuit, letter):
    """The circuit, to be measured in X, Y or Z."""
    turned = circuit.copy()
    for qubit in range(circuit.num_qubits):
        if letter == "Y":
            turned.sdg(qubit)
        if letter in "XY":
            turned.h(qubit)
    return turned


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("basis", ["X", "Y", "Z"])
def test_shots_of_both_are_of_one_distribution(name, basis, ring):
    target = Target.parse(name, shots=SHOTS, seed=3)
    circuit = in_basis(ring(3, 1), basis)
    compiled = target.compile(circuit)
    assert target.simulator_of(compiled) == "density"
    values = angles(compiled, 4)
    ours = target.probabilities(compiled, values)
    by_aer = target.by_aer()
    again = by_aer.compile(circuit)
    assert by_aer.simulator_of(again) == "aer"
    theirs = by_aer.probabilities(again, values)
    p = [
        stats.chi2_contingency(np.round(SHOTS * np.stack(pair))).pvalue
        for pair in zip(ours, theirs, strict=True)
    ]
    assert stats.combine_pvalues(p).pvalue > 1e-3
    # The same test tells the noise from none.
    exact = Target.parse("exact")
    ideal = exact.probabilities(exact.compile(circuit), values)
    assert (np.abs(ideal - theirs).sum(axis=1) > 0.02).any()


@pytest.mark.parametrize("name", [*DEVICES, "fake_torino:mitigated", "fake_manila:scale=0"])
def test_a_few_rows_agree_with_aers_density_matrix(name, ring):
    target = Target.parse(name)
    compiled = target.compile(ring(3, 1))
    differences = check_with_aer(compiled, angles(compiled, 3))
    assert differences.shape == (3,)
    assert differences.max() < 1e-8


def test_circuits_without_values_and_with_controlled_angles_are_checked():
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    target = Target.parse("fake_manila")
    assert check_with_aer(target.compile(circuit), np.empty((2, 0))).max() < 1e-8
    # A device with a gate of its own that Aer drops the values of.
    backend = GenericBackendV2(
        3, basis_gates=["cp", "sx", "rz", "x"], seed=1, noise_info=True, control_flow=False
    )
    turned = QuantumCircuit(2)
    turned.h([0, 1])
    turned.cp(Parameter("x_000"), 0, 1)
    turned.h(1)
    device = DeviceTarget(backend, num_transpilations=1)
    compiled = device.compile(turned)
    assert "cp" in compiled.circuit.count_ops()
    assert check_with_aer(compiled, np.array([[0.4], [2.0]])).max() < 1e-8


@pytest.mark.parametrize(("shift", "fails"), [(1e-8, False), (1e-5, True)])
def test_a_difference_is_not_passed_over(shift, fails, ring, monkeypatch):
    exact_rows = aer_check.exact_rows

    def shifted(*given):
        rows = exact_rows(*given)
        rows[-1, :2] += shift, -shift
        return rows

    monkeypatch.setattr(aer_check, "exact_rows", shifted)
    target = Target.parse("fake_manila")
    compiled = target.compile(ring(2))
    if fails:
        with pytest.raises(TargetError, match=r"fake_manila and Aer's differ by 1e-05") as caught:
            check_with_aer(compiled, angles(compiled, 2))
        assert "evaluate with fake_manila:aer" in str(caught.value)
        assert "\n" not in str(caught.value)
    else:
        differences = check_with_aer(compiled, angles(compiled, 2))
        assert differences[1] == pytest.approx(shift, rel=0.01)


@pytest.mark.parametrize(
    ("largest", "within"), [(0.0, 1e-12), (3e-15, 1e-12), (2e-9, 1e-8), (1e-9, 1e-9), (4e-7, 1e-6)]
)
def test_a_check_says_the_next_power_of_ten(largest, within):
    check = AerCheck.of(np.array([largest / 7, largest, 0.0]))
    assert (check.circuits, check.within) == (3, within)
