import re

import pytest

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets import list_targets
from qkd_qiskit.targets.snapshots import fake_backend


def test_the_list_has_the_simulators_and_every_snapshot():
    targets = {target.name: target for target in list_targets()}
    assert list(targets)[:2] == ["exact", "aer"]
    assert len(targets) > 60
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in targets)
    torino = targets["fake_torino"]
    assert (torino.num_qubits, torino.two_qubit_gate) == (133, "cz")
    assert torino.calibration_date == "2025-02-26"
    assert targets["fake_sherbrooke"].two_qubit_gate == "ecr"
    assert targets["fake_manila"].two_qubit_gate == "cx"
    assert targets["fake_armonk"].two_qubit_gate is None
    assert targets["exact"].calibration_date is None


@pytest.mark.parametrize("name", ["fake_manila", "fake_lagos", "fake_torino"])
def test_the_list_agrees_with_the_backend(name):
    info = next(target for target in list_targets() if target.name == name)
    backend = fake_backend(name)
    assert backend.name == name
    assert backend.num_qubits == info.num_qubits
    assert info.two_qubit_gate in backend.operation_names
    assert backend.properties().last_update_date.date().isoformat() == info.calibration_date


@pytest.mark.parametrize(
    ("given", "near"),
    [("fake_turino", "fake_torino"), ("fake_torinoo", "fake_torino"), ("fake_manilla", "manila")],
)
def test_an_unknown_snapshot_is_refused_with_near_names(given, near):
    with pytest.raises(TargetError, match=near) as caught:
        fake_backend(given)
    assert "qkd targets list" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_snapshots_own_warning_goes_to_the_log(caplog):
    assert fake_backend("fake_nighthawk").num_qubits == 120
    assert "not intended to represent typical" in caplog.text
