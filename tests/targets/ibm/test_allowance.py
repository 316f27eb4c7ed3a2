import pytest

from qkd_qiskit.targets.ibm.allowance import Allowance, read_allowance

PERIOD = {
    "usage_period": {"start_time": "2026-11-01T00:00:00Z", "end_time": "2096-11-29T10:00:00Z"}
}


def test_what_the_client_has_calculated():
    usage = {
        "usage_limit_seconds": 600,
        "usage_consumed_seconds": 188.0,
        "usage_remaining_seconds": 412,
    }
    left = read_allowance(usage | PERIOD)
    assert left == Allowance(limit_s=600.0, remaining_s=412.0, until="2096-11-29")
    assert left.describe() == "the instance has 412 of 600 QPU seconds left until 2096-11-29"
    assert left.describe(400.0) == left.describe()
    assert "and 2,120 are needed: jobs that do not fit wait" in left.describe(2120.4)


def test_a_period_that_rolls_on_has_no_end():
    usage = {"usage_limit_seconds": 600, "usage_consumed_seconds": 0}
    assert (
        read_allowance(usage | {"usage_period": {"end_time": "2026-01-01T00:00:00Z"}}).until is None
    )


def test_what_it_has_not():
    left = read_allowance({"usage_allocation_seconds": 600, "usage_consumed_seconds": 700})
    assert (left.remaining_s, left.until) == (0.0, None)


@pytest.mark.parametrize(
    "usage", [{}, PERIOD, {"usage_limit_seconds": "many"}, {"usage_limit_seconds": -1}]
)
def test_no_limit_that_can_be_read(usage):
    assert read_allowance(usage) == Allowance()
    assert Allowance().describe(10.0) == ""
