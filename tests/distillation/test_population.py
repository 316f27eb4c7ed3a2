from types import SimpleNamespace

import pytest

from qkd_qiskit.distillation.student_modes import without_shots


@pytest.mark.parametrize("sampled", [True, False])
def test_only_a_circuit_that_would_be_sampled_is_run_exactly(sampled):
    executor = SimpleNamespace(sampled=sampled, cost=None)
    student = SimpleNamespace(executor=executor)
    with without_shots(student):
        assert student.executor is (None if sampled else executor)
    assert student.executor is executor
    student.executor = None
    with pytest.raises(KeyError), without_shots(student):
        raise KeyError
    assert student.executor is None
