"""Readout errors taken back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.circuit import QuantumCircuit
from scipy.optimize import minimize

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets import DeviceTarget, Target, synthetic
from qkd_qiskit.targets.mitigation import (
    confusion_from_counts,
    mitigate_readout,
    nearest_probabilities,
)
from qkd_qiskit.targets.snapshots import fake_backend

CONFUSION = [np.array([[0.97, 0.03], [0.12, 0.88]]), np.array([[0.9, 0.1], [0.05, 0.95]])]


def confused(rows):
    return rows @ np.kron(CONFUSION[1], CONFUSION[0])


def test_exact_confusion_is_undone():
    rows = np.random.default_rng(0).dirichlet(np.ones(4), size=20)
    np.testing.assert_allclose(mitigate_readout(confused(rows), CONFUSION), rows, atol=1e-12)


def test_without_errors_nothing_changes():
    rows = np.random.default_rng(0).dirichlet(np.ones(8), size=5)
    np.testing.assert_allclose(mitigate_readout(rows, [np.eye(2)] * 3), rows, atol=1e-15)


def test_bit_i_has_matrix_i():
    prepared = np.array([[0.0, 1.0, 0.0, 0.0]])  # qubit 0 in 1, qubit 1 in 0
    measured = confused(prepared)[0]
    assert measured[0b00] == pytest.approx(0.12 * 0.9)
    np.testing.assert_allclose(mitigate_readout(measured[None], CONFUSION), prepared, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(any))
def test_counts_stay_probabilities(counts):
    rows = mitigate_readout(np.array([counts]) / sum(counts), CONFUSION)
    assert (rows >= 0).all()
    assert rows.sum() == pytest.approx(1, abs=1e-12)


def test_the_nearest_probabilities_are_the_nearest():
    rng = np.random.default_rng(3)
    for row in rng.normal(0.25, 0.4, size=(10, 4)):
        found = nearest_probabilities(row[None])[0]
        best = minimize(
            lambda p, row=row: ((p - row) ** 2).sum(),
            np.full(4, 0.25),
            bounds=[(0, 1)] * 4,
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        np.testing.assert_allclose(found, best.x, atol=1e-5)


def test_probabilities_are_their_own_nearest():
    rows = np.random.default_rng(0).dirichlet(np.ones(6), size=10)
    np.testing.assert_allclose(nearest_probabilities(rows), rows, atol=1e-15)


def test_calibration_counts_give_each_qubits_matrix():
    zeros, ones = confused(np.eye(4)[[0, 3]])
    for found, expected in zip(confusion_from_counts(zeros, ones), CONFUSION, strict=True):
        np.testing.assert_allclose(found, expected)


def test_a_readout_that_says_nothing_is_refused():
    with pytest.raises(TargetError, match="logical qubit 1 tells 0 from 1 no better than chance"):
        mitigate_readout(np.full((1, 4), 0.25), [np.eye(2), np.full((2, 2), 0.5)])


class TestTargets:
    @pytest.mark.parametrize("kind", [True, "calibrated", "measured"])
    def test_biased_readout_is_improved(self, ring, kind):
        readout = (0.03, 0.15)
        plain = synthetic(3, readout=readout, shots=20_000)
        mended = synthetic(3, readout=readout, shots=20_000, readout_mitigation=kind)
        exact = Target.parse("exact")
        circuit = ring(3)
        values = np.random.default_rng(0).uniform(-3, 3, (10, 9))
        ideal = exact.probabilities(exact.compile(circuit), values)
        before = plain.probabilities(plain.compile(circuit), values)
        after = mended.probabilities(mended.compile(circuit), values)
        errors = [np.abs(rows - ideal).sum(axis=1).mean() for rows in (before, after)]
        assert errors[1] < errors[0] / 4
        assert (after >= 0).all()
        np.testing.assert_allclose(after.sum(axis=1), 1)

    def test_without_shots_only_gate_noise_is_left(self, ring):
        mended = synthetic(3, p2=0.02, readout=(0.03, 0.15), shots=None, readout_mitigation=True)
        gates_only = synthetic(3, p2=0.02, shots=None)
        values = np.random.default_rng(0).uniform(-3, 3, (4, 9))
        rows = [t.probabilities(t.compile(ring(3)), values) for t in (mended, gates_only)]
        np.testing.assert_allclose(*rows, atol=1e-10)

    @pytest.mark.parametrize("name", ["fake_manila", "fake_torino"])
    def test_measured_errors_are_the_devices(self, name):
        target = DeviceTarget(fake_backend(name), readout_mitigation="measured")
        circuit = QuantumCircuit(4)
        for first in range(4):
            for second in range(first):
                circuit.cx(first, second)
        compiled = target.compile(circuit)
        noisy = compiled.program.noisy
        known = noisy.readout
        where = [noisy.qubits.index(qubit) for qubit in compiled.measured]
        for matrix, qubit in zip(compiled.program.confusion, where, strict=True):
            np.testing.assert_allclose(matrix, known[qubit], atol=0.008)
            np.testing.assert_allclose(matrix.sum(axis=1), 1)

    def test_calibrated_errors_follow_the_layout(self):
        target = DeviceTarget(fake_backend("fake_manila"), readout_mitigation=True)
        circuit = QuantumCircuit(4)
        for first in range(4):
            for second in range(first):
                circuit.cx(first, second)
        compiled = target.compile(circuit)
        whole = compiled.program.noisy.channels.readout
        for matrix, physical in zip(compiled.program.confusion, compiled.measured, strict=True):
            error = target.backend.target["measure"][(physical,)].error
            assert matrix[0, 1] == pytest.approx(error)
        assert len({round(m[0, 1], 6) for m in whole.values()}) == 4

    @pytest.mark.parametrize("simulator", ["density", "aer"])
    def test_measuring_is_one_pub_and_seeded(self, ring, simulator, monkeypatch):
        from qiskit_aer.primitives import SamplerV2

        pubs = []
        run = SamplerV2.run
        monkeypatch.setattr(
            SamplerV2, "run", lambda self, given: pubs.extend(given) or run(self, given)
        )
        first, second = (
            synthetic(2, readout=0.1, readout_mitigation="measured", simulator=simulator).compile(
                ring(2)
            )
            for _ in range(2)
        )
        assert len(pubs) == (2 if simulator == "aer" else 0)
        for mine, theirs in zip(first.program.confusion, second.program.confusion, strict=True):
            np.testing.assert_array_equal(mine, theirs)
            np.testing.assert_allclose(mine, [[0.9, 0.1], [0.1, 0.9]], atol=0.01)

    @pytest.mark.parametrize(
        ("name", "recorded"),
        [
            ("fake_manila", None),
            ("fake_manila:mitigated", "calibrated"),
            ("fake_manila:scale=2:mitigated=measured", "measured"),
            ("synthetic:qubits=2:readout=0.1:mitigated:exact", "calibrated"),
        ],
    )
    def test_it_is_named_and_recorded(self, name, recorded):
        target = Target.parse(name)
        assert target.name == name
        assert target.options["readout_mitigation"] == recorded

    def test_an_argument_overrides_the_name(self):
        assert Target.parse("fake_manila", readout_mitigation=True).name == "fake_manila:mitigated"
        assert Target.parse("fake_manila:mitigated", readout_mitigation=False).name == "fake_manila"

    def test_a_scaled_target_keeps_it(self):
        target = Target.parse("fake_manila:mitigated").scaled(0.5)
        assert target.name == "fake_manila:scale=0.5:mitigated"
        assert target.readout_mitigation == "calibrated"

    def test_scale_zero_has_nothing_to_take_back(self, ring):
        target = synthetic(2, readout=0.1, scale=0, readout_mitigation=True)
        values = np.zeros((1, 6))
        rows = target.probabilities(target.compile(ring(2)), values)
        np.testing.assert_allclose(rows, [[1, 0, 0, 0]], atol=1e-12)

    def test_an_unknown_kind_is_refused(self):
        with pytest.raises(TargetError, match="'calibrated', 'measured'"):
            Target.parse("fake_manila:mitigated=often")
        with pytest.raises(TargetError, match="takes no options"):
            Target.parse("aer", readout_mitigation=True)
