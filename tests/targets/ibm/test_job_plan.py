"""How PUBs are cut into jobs, counted and told apart."""

from itertools import pairwise

import numpy as np
import pytest
from fake_service import circuit, pub
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit_ibm_runtime.executor.calculate_twirling_shots import calculate_twirling_shots

from qkd_qiskit.errors import InputError
from qkd_qiskit.targets.ibm.job_plan import (
    Limits,
    Pub,
    PubSize,
    executed_shots,
    plan_jobs,
    pubs_digest,
)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(sum),
    shots=st.integers(1, 100),
    room=st.integers(1, 25),
    max_pubs=st.integers(1, 4),
    twirled=st.booleans(),
)
def test_every_row_is_in_one_job_in_order_and_within_the_limits(
    rows, shots, room, max_pubs, twirled
):
    each = executed_shots(shots, twirled=twirled)
    limits = Limits(max_executions=room * each + each - 1, max_pubs=max_pubs)
    plans = plan_jobs([PubSize(n, shots) for n in rows], limits=limits, twirled=twirled)
    sent = [
        (place, row)
        for plan in plans
        for place, first, last in plan.slices
        for row in range(first, last)
    ]
    assert sent == [(place, row) for place, n in enumerate(rows) for row in range(n)]
    for plan in plans:
        assert plan.circuits == sum(last - first for _, first, last in plan.slices) <= room
        assert plan.executions == plan.circuits * each <= limits.max_executions
        assert 1 <= len(plan.slices) <= max_pubs
    if max_pubs >= len(rows):  # no job could take what the next one begins with
        assert all(left.circuits == room for left, _ in pairwise(plans))


def test_one_job_where_it_fits():
    (plan,) = plan_jobs([PubSize(32, 1024), PubSize(32, 1024)])
    assert plan.slices == ((0, 0, 32), (1, 0, 32))
    assert plan.executions == 65_536


@given(shots=st.integers(1, 100_000))
def test_twirling_rounds_as_the_client_does(shots):
    randomizations, each = calculate_twirling_shots(shots, "auto", "auto")
    assert executed_shots(shots, twirled=True) == randomizations * each >= shots
    assert executed_shots(shots, twirled=False) == shots


@pytest.mark.parametrize(
    ("sizes", "limits", "said"),
    [
        ([PubSize(1, 11)], Limits(max_executions=10), "11 shots are more than the 10 executions"),
        ([PubSize(1, 1), PubSize(1, 2)], None, "with 2 rows and shots 1, 2"),
        ([], None, "with 0 rows and shots none"),
        ([PubSize(0, 5)], None, "with 0 rows"),
        ([PubSize(1, 0)], None, "shots 0"),
    ],
)
def test_what_cannot_be_planned(sizes, limits, said):
    with pytest.raises(InputError, match=said):
        plan_jobs(sizes, limits=limits)


@pytest.mark.parametrize("name", ["max_executions", "max_pubs"])
def test_limits_are_checked(name):
    with pytest.raises(InputError, match=f"{name} is 0"):
        Limits(**{name: 0})


def test_equal_pubs_share_a_digest_and_no_others():
    same = pubs_digest([pub(3), pub(2)])
    assert pubs_digest([pub(3), pub(2)]) == same
    others = [
        [pub(2), pub(3)],
        [pub(5)],
        [pub(3), pub(2, shots=11)],
        [pub(3), pub(2, start=np.nextafter(0, 1))],
        [pub(3), pub(2, made=circuit(qubits=3))],
        [pub(3)],
    ]
    assert len({same, *map(pubs_digest, others)}) == 1 + len(others)


def test_values_are_bound_by_name():
    made = QuantumCircuit(1, 1)
    made.ry(Parameter("x_010"), 0)
    made.rz(Parameter("w_002"), 0)
    made.measure(0, 0)
    values = np.arange(6.0).reshape(2, 3)
    live = Pub(made, ("lost", "w_002", "x_010"), values, 5).live
    order = [parameter.name for parameter in made.parameters]
    assert order == ["w_002", "x_010"]
    np.testing.assert_array_equal(live, values[:, 1:])
