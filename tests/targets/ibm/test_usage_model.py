import math

import pytest

from qkd_qiskit.targets.ibm.usage_model import (
    Timing,
    device_timing,
    job_seconds,
    quantum_seconds,
    session_seconds,
)
from qkd_qiskit.targets.snapshots import fake_backend
from qkd_qiskit.targets.synthetic_backends import SyntheticBackend, synthetic_device


def test_one_job_follows_the_documented_formula():
    # IBM's quick formula, 2 + 0.00035 n, is this one with circuits of 100 us.
    assert quantum_seconds(executions=40_000, circuit_duration_s=100e-6) == pytest.approx(16.0)


def test_jobs_pay_their_overhead_each():
    one = quantum_seconds(executions=1000, circuit_duration_s=1e-5)
    four = quantum_seconds(executions=1000, circuit_duration_s=1e-5, jobs=4)
    assert four - one == pytest.approx(6.0)


def test_a_job_of_equal_circuits_is_the_sum_of_its_loads_in_any_order():
    timing = Timing(rep_delay_s=1e-4, init_s=3e-6)
    loads = [(4096 * 7, 2.5e-5), (1024, 3.1e-6), (33, 1.7e-4)]
    total = job_seconds(loads, timing=timing)
    assert total == job_seconds(loads[::-1], timing=timing)
    assert total == pytest.approx(
        2 + sum(number * (1e-4 + 3e-6 + duration) for number, duration in loads)
    )
    assert job_seconds([(500, 2e-5), (500, 2e-5)]) == pytest.approx(
        quantum_seconds(executions=1000, circuit_duration_s=2e-5)
    )


def test_times_are_those_of_the_device():
    backend = fake_backend("fake_torino")
    timing = device_timing(backend)
    assert timing.rep_delay_s == backend.configuration().default_rep_delay
    resets = backend.target["reset"].values()
    assert timing.init_s == max(known.duration for known in resets) > 0
    described = SyntheticBackend(synthetic_device(2), name="synthetic")
    assert device_timing(described) == Timing(rep_delay_s=250e-6, init_s=0)


def test_a_session_is_billed_for_its_waits_until_it_is_deactivated():
    assert session_seconds([3.0, 4.0]) == 7
    assert session_seconds([3.0, 4.0], waits=[10.0, 500.0]) == 77
    assert session_seconds([3.0], waits=[5.0], interactive_ttl_s=2) == 5
    assert math.isclose(session_seconds([]), 0)
