"""Over-rotation, crosstalk and lopsided readout: unitaries, names, and the same in Aer as here."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit.library import (
    CXGate,
    CZGate,
    ECRGate,
    RXGate,
    RZXGate,
    RZZGate,
    SXGate,
    XGate,
    real_amplitudes,
)
from qiskit.quantum_info import Operator
from qiskit_ibm_runtime.fake_provider import FakeLimaV2

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.coherent_noise import CoherentNoise, with_coherent_errors
from qkd_qiskit.targets.synthetic_backends import synthetic_device


def exact_in_aer(compiled):
    """Return the probabilities of a circuit without parameters from Aer's density matrix."""
    from qiskit_aer import AerSimulator

    noisy = compiled.program.noisy
    circuit = noisy.circuit.remove_final_measurements(inplace=False)
    circuit.save_density_matrix()
    simulator = AerSimulator(method="density_matrix", noise_model=noisy.noise_model)
    state = simulator.run(circuit).result().data()["density_matrix"]
    return np.real(np.diag(np.asarray(state)))


@pytest.mark.parametrize(
    ("gate", "turn"),
    [
        (SXGate(), lambda e: RXGate(e * np.pi / 2)),
        (XGate(), lambda e: RXGate(e * np.pi)),
        (CXGate(), lambda e: RZXGate(e * np.pi / 2)),
        (CZGate(), lambda e: RZZGate(e * np.pi / 2)),
        (ECRGate(), lambda e: RZXGate(-e * np.pi / 2)),
    ],
)
def test_an_over_rotation_goes_on_along_the_gates_own_axis(gate, turn):
    """Applied with e = 1 it is the gate's own turn once more: its square, up to local gates."""
    once, more = Operator(gate), Operator(turn(1.0))
    if gate.num_qubits == 1:
        assert more.equiv(once)
    else:
        # What is left of the gate without its turn is a product of one-qubit gates.
        rest = (more.adjoint() @ once).data.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4)
        assert np.linalg.matrix_rank(rest, tol=1e-9) == 1


def test_crosstalk_reaches_the_neighbours_of_a_gate_alone():
    device = synthetic_device(4, p2=0.01)
    circuit = QuantumCircuit(4)
    circuit.cz(1, 2)
    made = with_coherent_errors(circuit, device, coherent=CoherentNoise(zz_hz=50e3), scale=1.0)
    added = [
        tuple(made.find_bit(q).index for q in it.qubits)
        for it in made.data
        if it.operation.label == "crosstalk"
    ]
    assert added == [(1, 0), (2, 3)]
    # Half a period of 1 / f turns by pi / 2: here 80 ns of 50 kHz.
    expected = Operator(RZZGate(np.pi * 50e3 * 80e-9))
    assert Operator(made.data[1].operation).equiv(expected)


@pytest.mark.parametrize("device", ["fake_manila", "fake_torino", "fake_sherbrooke"])
@pytest.mark.parametrize(
    "options", [":overrotation=0.03", ":zz=80kHz", ":overrotation=-0.02:zz=40kHz:scale=2"]
)
def test_the_density_engine_and_aer_agree(device, options):
    circuit = real_amplitudes(3, reps=2)
    circuit = circuit.assign_parameters(np.linspace(0.1, 1.9, circuit.num_parameters))
    plain = Target.parse(f"{device}:exact").compile(circuit)
    target = Target.parse(f"{device}{options}:exact")
    compiled = target.compile(circuit)
    noisy = compiled.program.noisy
    state = exact_in_aer(compiled)
    found = target.probabilities(compiled, np.empty((1, 0)))[0]
    assert found == pytest.approx(_misread(state, compiled), abs=1e-9)
    without = Target.parse(f"{device}:exact").probabilities(plain, np.empty((1, 0)))[0]
    assert np.abs(found - without).max() > 1e-5
    assert noisy.noise_model is not None


def _misread(state, compiled):
    """Return what is measured of the populations of all used qubits, logical qubit 0 lowest."""
    noisy = compiled.program.noisy
    count = len(noisy.qubits)
    rows = state.reshape([2] * count)  # the highest qubit first
    for qubit, confusion in noisy.readout.items():
        axis = count - 1 - qubit
        rows = np.moveaxis(np.moveaxis(rows, axis, -1) @ confusion, -1, axis)
    bits = [noisy.qubits.index(qubit) for qubit in compiled.measured]
    other = tuple(count - 1 - q for q in range(count) if q not in bits)
    rows = rows.sum(axis=other)
    order = sorted(bits, reverse=True)
    return rows.transpose([order.index(bit) for bit in reversed(bits)]).ravel()


def test_readout_takes_both_errors_of_the_calibration():
    circuit = QuantumCircuit(1)
    ones = QuantumCircuit(1)
    ones.x(0)
    target = Target.parse("fake_lima:readout=asymmetric:exact")
    compiled = target.compile(circuit)
    where = compiled.measured[0]
    known = FakeLimaV2().properties()
    expected = known.qubit_property(where, "prob_meas1_prep0")[0]
    found = target.probabilities(compiled, np.empty((1, 0)))[0]
    assert found[1] == pytest.approx(expected, abs=1e-12)
    mean = Target.parse("fake_lima:exact")
    assert mean.probabilities(mean.compile(circuit), np.empty((1, 0)))[0][1] != pytest.approx(
        expected
    )
    assert (target.name, target.calibration_date) == (
        "fake_lima:readout=asymmetric:exact",
        "2021-03-15",
    )


@pytest.mark.parametrize(
    "name",
    [
        "fake_lima:overrotation=0.01:zz=20kHz:scale=2:exact",
        "fake_lima:readout=asymmetric:overrotation=0.01:exact",
        "synthetic:qubits=3:p2=0.01:zz=20kHz:exact",
    ],
)
def test_a_name_is_parsed_to_itself(name):
    target = Target.parse(name)
    assert target.name == name
    assert Target.parse(target.name).name == name


def test_options_are_recorded_and_no_noise_is_none():
    target = Target.parse("fake_lima:overrotation=0.01:zz=0.02MHz")
    assert target.options["overrotation"] == 0.01
    assert target.options["zz_hz"] == pytest.approx(20e3)
    assert "zz_hz" not in Target.parse("fake_lima").options
    circuit = real_amplitudes(2, reps=1)
    circuit = circuit.assign_parameters(np.ones(circuit.num_parameters))
    ideal = Target.parse("exact").probabilities(
        Target.parse("exact").compile(circuit), np.empty((1, 0))
    )
    silent = Target.parse("fake_lima:overrotation=0.05:scale=0:exact")
    assert silent.probabilities(silent.compile(circuit), np.empty((1, 0))) == pytest.approx(ideal)


def test_sampled_and_primitives_see_them_too():
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    target = Target.parse("fake_manila:overrotation=0.3", shots=40_000)
    compiled = target.compile(circuit)
    exact = target.exact_probabilities(compiled, np.empty((1, 0)))[0]
    sampled = target.probabilities(compiled, np.empty((1, 0)))[0]
    assert sampled == pytest.approx(exact, abs=0.015)
    measured = circuit.copy()
    measured.measure_all()
    counts = target.as_sampler(seed=1).run([measured], shots=40_000).result()[0].data.meas
    found = [counts.get_int_counts().get(outcome, 0) / 40_000 for outcome in range(4)]
    assert found == pytest.approx(exact, abs=0.015)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fake_lima:zz=20", "give a frequency in Hz, kHz or MHz, as in zz=20kHz"),
        ("fake_lima:zz=99MHz", "zz is 9.9e"),
        ("fake_lima:overrotation=2", "overrotation is 2; accepted are shares"),
        ("fake_lima:overrotation=much", "overrotation is 'much'; give a number"),
        ("fake_lima:readout=lopsided", "readout is 'lopsided'; give asymmetric or symmetric"),
        ("fake_lima:crosstalk=1", "option 'crosstalk' is not known; accepted: "),
        ("aer:zz=20kHz", "aer is ideal and takes no options"),
    ],
)
def test_what_is_not_accepted_is_one_line(name, message):
    with pytest.raises(TargetError, match=message) as caught:
        Target.parse(name)
    assert "\n" not in str(caught.value)
