"""Noise that is strengthened, weakened or made up."""

import math
from functools import cache

import numpy as np
import pytest
from aer_reference import aer_probabilities, without_negligible_terms
from qiskit.circuit import QuantumCircuit
from qiskit.quantum_info import SuperOp, average_gate_fidelity
from qiskit_aer.noise import depolarizing_error, thermal_relaxation_error

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets import DeviceTarget, Target, noise, synthetic
from qkd_qiskit.targets.exact_noise import exact_rows
from qkd_qiskit.targets.snapshots import fake_backend
from qkd_qiskit.targets.synthetic_backends import readout_errors, scaled_device

SCALES = (0, 0.25, 0.5, 1, 2, 4, 16, 1000)
DEVICES = ["fake_manila", "fake_sherbrooke", "fake_torino"]


@cache
def device(name):
    return DeviceTarget(fake_backend(name), shots=2000, num_transpilations=1)


def angles(compiled, batch, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-np.pi, np.pi, (batch, len(compiled.parameters)))


def three():
    circuit = QuantumCircuit(3)
    for qubit in range(3):
        circuit.ry(0.3 + qubit, qubit)
        circuit.cx(qubit, (qubit + 1) % 3)
        circuit.rx(0.9, qubit)
    return circuit


@cache
def sweep(name):
    targets = [device(name).scaled(scale) for scale in SCALES]
    return targets, [target.compile(three()) for target in targets]


@pytest.mark.parametrize("name", DEVICES)
def test_every_scale_runs_the_same_circuit(name):
    targets, compiled = sweep(name)
    assert all(one.circuit is compiled[0].circuit for one in compiled)
    assert [target.scale for target in targets] == list(SCALES)
    assert [one.fidelity for one in compiled] == sorted(
        (o.fidelity for o in compiled), reverse=True
    )
    assert compiled[0].fidelity == 1
    assert len({one.target for one in compiled}) == len(SCALES)


@pytest.mark.parametrize("name", DEVICES)
def test_scale_one_is_the_device_and_scale_zero_is_ideal(name):
    targets, compiled = sweep(name)
    values = np.empty((1, 0))
    rows = [t.exact_probabilities(c, values) for t, c in zip(targets, compiled, strict=True)]
    whole = noise.with_noise(compiled[0].circuit, device(name)._device)
    np.testing.assert_array_equal(rows[SCALES.index(1)], exact_rows(compiled[3], whole, values))
    assert compiled[0].program.noisy.noise_model is None
    exact = Target.parse("exact")
    ideal = exact.probabilities(exact.compile(three()), values)
    np.testing.assert_allclose(rows[0], ideal, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", DEVICES)
def test_a_larger_scale_is_further_from_the_ideal(name):
    targets, compiled = sweep(name)
    values = np.empty((1, 0))
    rows = [t.exact_probabilities(c, values)[0] for t, c in zip(targets, compiled, strict=True)]
    overlaps = [np.sqrt(row * rows[0]).sum() for row in rows]
    assert overlaps[0] == pytest.approx(1)
    assert (np.diff(overlaps[: SCALES.index(16)]) < 0).all()


@pytest.mark.parametrize("name", DEVICES)
def test_every_channel_is_physical_and_less_faithful_at_a_larger_scale(name):
    _, compiled = sweep(name)
    channels = [one.program.noisy.channels for one in compiled[1:]]
    for key in channels[0].gates:
        operators = [SuperOp(each.gates[key]) for each in channels]
        assert all(operator.is_cptp(atol=1e-9) for operator in operators)
        fidelities = [average_gate_fidelity(operator) for operator in operators]
        assert (np.diff(fidelities) <= 1e-12).all()
        assert fidelities[0] > fidelities[-1]
    for qubit in range(3):
        flips = np.array(
            [[each.readout[qubit][0, 1], each.readout[qubit][1, 0]] for each in channels]
        )
        assert (np.diff(flips, axis=0) >= 0).all()
        assert (flips <= 0.5).all()
        times = np.array([each.relaxation[qubit] for each in channels])
        assert (np.diff(times, axis=0) < 0).all()
        assert (times[:, 1] <= 2 * times[:, 0]).all()


def test_half_the_noise_is_half_the_errors():
    whole = device("fake_manila")._device
    half = scaled_device(whole, 0.5)
    for name in ("sx", "cx"):
        for where, properties in whole[name].items():
            assert half[name][where].error == pytest.approx(properties.error / 2)
            assert half[name][where].duration == properties.duration
    for qubit in range(5):
        assert half.qubit_properties[qubit].t1 == pytest.approx(
            2 * whole.qubit_properties[qubit].t1
        )
        both = readout_errors(half["measure"][(qubit,)])
        assert both == pytest.approx([whole["measure"][(qubit,)].error / 2] * 2)
    assert list(half.operation_names) == list(whole.operation_names)


@pytest.mark.parametrize("scale", [0.25, 4])
@pytest.mark.parametrize("name", ["fake_manila", "fake_torino"])
def test_scaled_noise_is_aers(ring, name, scale):
    target = device(name).scaled(scale)
    compiled = target.compile(ring(3, 1))
    values = angles(compiled, 2)
    noisy = without_negligible_terms(compiled.program.noisy)
    np.testing.assert_allclose(
        exact_rows(compiled, noisy, values),
        aer_probabilities(compiled, values, noisy=noisy),
        rtol=0,
        atol=1e-9,
    )
    measured = target.probabilities(compiled, values, shots=50_000)
    expected = target.exact_probabilities(compiled, values)
    assert np.abs(measured - expected).max() < 5 * 0.5 / np.sqrt(50_000)


@pytest.mark.parametrize("scale", [-1.0, math.inf, math.nan])
def test_bad_scales_are_refused(scale):
    with pytest.raises(TargetError, match="accepted are finite numbers from 0"):
        device("fake_manila").scaled(scale)


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            "fake_manila:scale=2",
            "fake_manila:exact",
            "fake_manila:scale=0.25:exact",
            "synthetic:qubits=3:p1=0.001:p2=0.01",
            "synthetic:qubits=2:t1=0.0001:t2=5e-05:coupling=all:two_qubit_gate=ecr:scale=3:exact",
        ],
    )
    def test_a_target_is_named_as_it_is_parsed(self, name):
        assert Target.parse(name).name == name

    def test_options_are_recorded(self):
        target = Target.parse("fake_manila:exact", scale=2.0, shots=100)
        assert target.options["scale"] == 2.0
        assert target.shots is None
        assert target.name == "fake_manila:scale=2:exact"
        assert Target.parse("aer").options == {}

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("fake_manila:scale=two", "scale is 'two'; give a number"),
            ("fake_manila:scael=2", "option 'scael' is not known; accepted: scale=2"),
            ("fake_manila:scale=2:scale=3", "given twice"),
            ("exact:scale=2", "exact is ideal and takes no options"),
            ("synthetic", "give the number of qubits"),
            ("synthetic:qubits=2:p3=1", "option 'p3' is not known"),
            ("fake_manlia:scale=2", "fake_manila"),
        ],
    )
    def test_a_wrong_name_is_one_clear_error(self, name, told):
        with pytest.raises(TargetError, match=told) as caught:
            Target.parse(name)
        assert "\n" not in str(caught.value)

    def test_aer_needs_shots(self):
        with pytest.raises(TargetError, match="without shots use exact"):
            Target.parse("aer", shots=None)


class TestSynthetic:
    def test_depolarising_probabilities_are_the_models(self, ring):
        target = synthetic(3, p1=0.01, p2=0.1, t1=50e-6, t2=30e-6, readout=(0.02, 0.05))
        noisy = target.compile(ring(3)).program.noisy
        channels = noisy.channels
        relax = thermal_relaxation_error(50e-6, 30e-6, 32e-9)
        expected = SuperOp(relax) @ SuperOp(depolarizing_error(0.01, 1))
        np.testing.assert_allclose(channels.gates["sx", (0,)], expected.data, atol=1e-12)
        relax = thermal_relaxation_error(50e-6, 30e-6, 80e-9)
        expected = SuperOp(relax.tensor(relax)) @ SuperOp(depolarizing_error(0.1, 2))
        np.testing.assert_allclose(channels.gates["cz", (0, 1)], expected.data, atol=1e-12)
        np.testing.assert_allclose(channels.readout[1], [[0.98, 0.02], [0.05, 0.95]])
        assert channels.relaxation[2] == (50e-6, 30e-6)

    @pytest.mark.parametrize("gate", ["cz", "cx", "ecr"])
    @pytest.mark.parametrize("coupling", ["line", "all"])
    def test_without_noise_it_is_the_ideal_circuit(self, ring, gate, coupling):
        target = synthetic(3, coupling=coupling, two_qubit_gate=gate)
        compiled, exact = target.compile(ring(3)), Target.parse("exact")
        assert compiled.circuit.count_ops()[gate] == compiled.two_qubit_gates
        assert compiled.fidelity == 1
        values = angles(compiled, 3)
        np.testing.assert_allclose(
            target.exact_probabilities(compiled, values),
            exact.probabilities(exact.compile(ring(3)), values),
            rtol=0,
            atol=1e-10,
        )

    def test_coupling_decides_the_gates(self, ring):
        counts = [
            synthetic(4, coupling=coupling).compile(ring(4)).two_qubit_gates
            for coupling in ("all", "line")
        ]
        assert counts[0] == 4 < counts[1]

    def test_complete_depolarisation_is_uniform(self, ring):
        target = synthetic(2, p1=1.0, p2=1.0)
        compiled = target.compile(ring(2))
        np.testing.assert_allclose(
            target.exact_probabilities(compiled, angles(compiled, 2)), 0.25, atol=1e-9
        )

    def test_idle_qubits_relax(self):
        circuit = QuantumCircuit(3)
        circuit.ry(1.0, 0)
        circuit.cx(0, 1)
        for _ in range(20):
            circuit.cx(1, 2)
            circuit.barrier(1, 2)
        rows = [
            target.exact_probabilities(target.compile(circuit), np.empty((1, 0)))[0]
            for target in (synthetic(3), synthetic(3, t1=10e-6, t2=10e-6))
        ]
        stays = [row[1::2].sum() for row in rows]
        assert stays[0] == pytest.approx(np.sin(0.5) ** 2)
        assert stays[1] < 0.9 * stays[0]

    def test_a_single_qubit(self):
        target = synthetic(1, readout=0.1)
        circuit = QuantumCircuit(1)
        circuit.x(0)
        row = target.exact_probabilities(target.compile(circuit), np.empty((1, 0)))[0]
        np.testing.assert_allclose(row, [0.1, 0.9])

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"p1": 1.5}, "p1 is 1.5; accepted: a probability"),
            ({"p2": math.nan}, "p2 is nan"),
            ({"t1": 1e-6, "t2": 3e-6}, "t2 at most 2 t1"),
            ({"readout": 0.7}, "readout is 0.7"),
            ({"coupling": "ring"}, "coupling is ring; accepted: line or all"),
            ({"two_qubit_gate": "swap"}, "accepted: cz, cx, ecr"),
        ],
    )
    def test_bad_settings_are_refused(self, settings, told):
        with pytest.raises(TargetError, match=told):
            synthetic(2, **settings)

    def test_no_qubits_are_refused(self):
        with pytest.raises(TargetError, match="qubits is 0"):
            synthetic(0)
