"""Counts of what will be sent, and their price."""

import pytest

from qkd_qiskit.errors import InputError
from qkd_qiskit.targets.ibm.cost_estimate import SESSION_WAIT_S, Load, estimate, parse_rate
from qkd_qiskit.targets.ibm.job_plan import Limits
from qkd_qiskit.targets.ibm.usage_model import JOB_OVERHEAD_S, Timing

TIMING = Timing(rep_delay_s=250e-6, init_s=2e-6)


def load(rows, duration_s=3e-6, gates=5):
    return Load(rows=rows, duration_s=duration_s, two_qubit_gates=gates)


def test_equal_calls_are_counted_one_by_one():
    one = estimate("x", [(load(7),)], shots=100, timing=TIMING)
    many = estimate("x", [(load(7),)] * 3, shots=100, timing=TIMING)
    assert (one.jobs, one.pubs, one.circuits, one.executions) == (1, 1, 7, 700)
    assert one.seconds == pytest.approx(JOB_OVERHEAD_S + 700 * 255e-6)
    for name in ("jobs", "pubs", "circuits", "executions", "two_qubit_gates"):
        assert getattr(many, name) == 3 * getattr(one, name)
    assert many.seconds == pytest.approx(3 * one.seconds)
    assert many.two_qubit_gates == 3 * 7 * 5


def test_what_is_too_large_for_a_job_takes_several():
    call = (load(7), load(4, duration_s=1e-6, gates=1))
    found = estimate("x", [call], shots=100, limits=Limits(max_executions=500), timing=TIMING)
    assert (found.jobs, found.pubs, found.circuits) == (3, 4, 11)  # 5 | 2 + 3 | 1
    assert found.two_qubit_gates == 7 * 5 + 4
    assert found.seconds == pytest.approx(3 * JOB_OVERHEAD_S + 700 * 255e-6 + 400 * 253e-6)


def test_a_session_is_billed_between_its_jobs():
    calls = [(load(7),)] * 5
    batch = estimate("x", calls, shots=100, timing=TIMING)
    session = estimate("x", calls, shots=100, timing=TIMING, session=True)
    assert session.wait_seconds == 4 * SESSION_WAIT_S
    assert session.seconds == pytest.approx(batch.seconds + session.wait_seconds)


def test_twirling_rounds_shots_up():
    assert estimate("x", [(load(1),)], shots=100, twirled=True).shots == 128


def test_the_formula_says_the_numbers():
    found = estimate("x", [(load(7),)] * 2, shots=100, timing=TIMING, session=True)
    assert found.formula == (
        "2 jobs x 2 s + 1,400 executions x 255 us (250 us between two + 2 us reset + 3 us circuit) "
        "+ 1 waits in the session x 1.5 s = 5.9 QPU seconds"
    )


def test_sums_and_money():
    a, b = (estimate(name, [(load(7),)], shots=100, timing=TIMING) for name in "ab")
    assert (a + b).jobs == 2
    assert (a + b).seconds == pytest.approx(2 * a.seconds)
    assert (a + b).what == "a, b"
    assert a.money(2.0) == pytest.approx(2 * a.seconds)
    assert a.money(None) is None


@pytest.mark.parametrize(
    ("text", "rate"), [("1.6", 1.6), ("1.6/s", 1.6), ("96/min", 1.6), ("96 per minute", 1.6)]
)
def test_prices_are_per_second_or_minute(text, rate):
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "much", "-1", "1/h", "1e9999x", "nan", "9" * 400])
def test_other_prices_are_refused(text):
    with pytest.raises(InputError, match="--rate"):
        parse_rate(text)
