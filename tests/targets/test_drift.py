"""The synthetic drift of a calibration: its walks, what stays possible, and how it is named."""

import numpy as np
import pytest

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.drift import MEMORY_DAYS, SPREADS, drift_factors, drifted_device
from qkd_qiskit.targets.names import without_day
from qkd_qiskit.targets.synthetic_backends import readout_errors

QUANTITIES = [(name, frozenset([qubit])) for qubit in range(300) for name in SPREADS]


@pytest.fixture(scope="module")
def lima():
    return Target.parse("fake_lima").backend.target


def test_day_0_is_the_device(lima):
    same = drifted_device(lima, day=0)
    for name in lima.operation_names:
        for where, known in (lima[name] or {}).items():
            if getattr(known, "error", None) is not None:
                assert same[name][where].error == pytest.approx(known.error)
                assert same[name][where].duration == known.duration
    assert [q.t1 for q in same.qubit_properties] == [q.t1 for q in lima.qubit_properties]


def test_walks_go_on_from_day_to_day_and_forget(lima):
    logs = [
        np.log(list(drift_factors(QUANTITIES, day=day, walk=3).values())) for day in (1, 2, 60, 61)
    ]
    assert np.std(logs[0]) < 0.15 < np.std(logs[2])
    assert np.corrcoef(logs[2], logs[3])[0, 1] == pytest.approx(1 - 1 / MEMORY_DAYS, abs=0.05)
    assert abs(np.corrcoef(logs[0], logs[2])[0, 1]) < 0.1
    late = np.log(list(drift_factors(QUANTITIES, day=80, walk=3).values())).reshape(300, -1)
    assert late.std(axis=0) == pytest.approx(list(SPREADS.values()), rel=0.15)
    assert drift_factors(QUANTITIES, day=2, walk=3) == drift_factors(QUANTITIES, day=2, walk=3)
    assert drift_factors(QUANTITIES, day=2, walk=3) != drift_factors(QUANTITIES, day=2, walk=4)


@pytest.mark.parametrize("walk", range(5))
def test_a_later_day_is_a_possible_device(walk, lima):
    later = drifted_device(lima, day=200, walk=walk)
    for qubit in later.qubit_properties:
        assert 0 < qubit.t2 <= 2 * qubit.t1 * (1 + 1e-12)
    for where in [(0, 1), (1, 0)]:
        factor = later["cx"][where].error / lima["cx"][where].error
        assert factor == pytest.approx(later["cx"][0, 1].error / lima["cx"][0, 1].error)
    for known in later["measure"].values():
        assert all(0 <= flip <= 0.5 for flip in readout_errors(known))
    assert later["rz"][0,].error == 0


def test_both_readout_errors_drift_together():
    day = Target.parse("fake_lima:readout=asymmetric:day=9").backend.target["measure"][2,]
    start = Target.parse("fake_lima:readout=asymmetric").backend.target["measure"][2,]
    shares = [
        after / before
        for after, before in zip(readout_errors(day), readout_errors(start), strict=True)
    ]
    assert shares[0] == pytest.approx(shares[1])
    assert shares[0] != pytest.approx(1)


def test_a_dead_coupler_is_not_used(lima):
    from qiskit.circuit.library import real_amplitudes

    dead = Target.parse("fake_lima:dead=0-1:exact")
    compiled = dead.compile(real_amplitudes(4, reps=1).decompose())
    used = {
        frozenset(compiled.circuit.find_bit(qubit).index for qubit in it.qubits)
        for it in compiled.circuit.data
        if len(it.qubits) == 2 and it.operation.name == "cx"
    }
    assert used
    assert frozenset([0, 1]) not in used
    with pytest.raises(TargetError, match="no coupler between qubits 0 and 4"):
        Target.parse("fake_lima:dead=0-4")


def test_names_and_dates():
    target = Target.parse("fake_lima:day=30:walk=2:exact")
    assert target.name == "fake_lima:day=30:walk=2:exact"
    assert target.calibration_date == "2021-04-14"
    assert Target.parse("fake_lima:exact").calibration_date == "2021-03-15"
    assert without_day(target.name) == "fake_lima:walk=2:exact"
    assert without_day("snapshots/day=1.json:day=2") == "snapshots/day=1.json"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fake_lima:day=soon", "day is 'soon'; give a whole number"),
        ("fake_lima:day=99999", "accepted are whole numbers from 0 to 3650"),
        ("fake_lima:dead=1", "dead is '1'; give two qubits, as in dead=1-2"),
        ("synthetic:qubits=3:day=2", "no calibration that could drift"),
    ],
)
def test_what_is_not_accepted_is_one_line(name, message):
    with pytest.raises(TargetError, match=message):
        Target.parse(name)
