"""Snapshots read from their files are what the client makes of them."""

import subprocess
import sys

import pytest

from qkd_qiskit.targets import Target
from qkd_qiskit.targets.packaged_snapshots import packaged_snapshot
from qkd_qiskit.targets.snapshots import fake_backend

NAMES = ("fake_torino", "fake_manila", "fake_rochester", "fake_armonk", "fake_sherbrooke")


def table(device, name):
    entries = device[name]
    if entries is None or None in entries:
        return entries
    return {
        where: known and (known.duration, known.error) for where, known in sorted(entries.items())
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_snapshot_is_the_clients(name):
    read, made = packaged_snapshot(name), fake_backend(name)
    ours, theirs = read.target, made.target
    assert sorted(ours.operation_names) == sorted(theirs.operation_names)
    for operation in ours.operation_names:
        assert table(ours, operation) == table(theirs, operation), operation
    for key in ("num_qubits", "dt", "granularity", "min_length", "pulse_alignment"):
        assert getattr(ours, key) == getattr(theirs, key)
    for own, other in zip(ours.qubit_properties, theirs.qubit_properties, strict=True):
        assert (own.t1, own.t2, own.frequency) == (other.t1, other.t2, other.frequency)
    assert read.name == made.name
    assert read.properties().last_update_date == made.properties().last_update_date


@pytest.mark.parametrize("name", ["fake_nighthawk", "fake_fractional", "fake_none", "fake_../a"])
def test_what_has_code_or_gates_of_its_own_is_left_to_the_client(name):
    assert packaged_snapshot(name) is None


def test_both_readout_errors_come_from_the_client():
    asymmetric = Target.parse("fake_manila:readout=asymmetric").backend.target["measure"][0,]
    assert asymmetric.prob_meas1_prep0 != asymmetric.prob_meas0_prep1


def test_a_circuit_is_evaluated_on_a_device_without_loading_the_client():
    """In a process of its own: other tests load it."""
    code = (
        "import sys; from qiskit import QuantumCircuit; from qkd_qiskit import Target\n"
        "target = Target.parse('fake_manila', shots=None); bell = QuantumCircuit(2)\n"
        "bell.h(0); bell.cx(0, 1); rows = target.probabilities(target.compile(bell), [[]])\n"
        "assert 0.4 < rows[0, 0] < 0.5 and 0.4 < rows[0, 3] < 0.5\n"
        "assert 'qiskit_ibm_runtime' not in sys.modules\n"
        "from qiskit.transpiler import generate_preset_pass_manager\n"
        "generate_preset_pass_manager(optimization_level=0, translation_method='ibm_backend')\n"
        "assert 'qiskit_ibm_runtime' in sys.modules\n"  # the plugin is there for who asks for it
    )
    subprocess.run([sys.executable, "-c", code], check=True)
