"""How many threads the kernel takes, and torch beside it."""

import threading

import pytest
import torch

from qkd_qiskit.simulator import threads


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_torch_is_held_to_one_thread_and_the_kernel_is_not():
    with threads.one_torch_thread():
        assert torch.get_num_threads() == 1
        assert threads.threads_for(1e9) == 3
        with threads.one_torch_thread():
            assert threads.threads_for(1e9) == 3
    assert torch.get_num_threads() == 3
    torch.set_num_threads(2)
    assert threads.threads_for(1e9) == 2


def test_little_work_is_worth_one_thread():
    assert threads.threads_for(1e4) == 1


def test_parts_run_side_by_side_and_come_back_in_their_order():
    both = threading.Barrier(2, timeout=20)

    def work(number, name):
        both.wait()
        return number, name, threading.get_ident()

    first, second = threads.in_threads(work, [(0, "a"), (1, "b")])
    assert (first[:2], second[:2]) == ((0, "a"), (1, "b"))
    assert first[2] == threading.get_ident() != second[2]


def test_an_error_in_a_thread_is_raised():
    def work(number):
        if number:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        threads.in_threads(work, [(0,), (1,)])
