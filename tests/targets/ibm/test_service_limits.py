import pytest

from qkd_qiskit.targets.ibm.service_limits import UNLIMITED, CreationPace, ServiceLimits


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def send(pace, clock, jobs, *, each_s=0.0):
    """When jobs are created that wait as they are told."""
    times = []
    for _ in range(jobs):
        clock.now += pace.wait_s()
        pace.created()
        times.append(clock.now)
        clock.now += each_s
    return times


def most_in_a_window(times, window_s):
    return max(sum(first <= time < first + window_s for time in times) for first in times)


class TestPace:
    @pytest.mark.parametrize("each_s", [0.0, 3.0, 11.9, 30.0])
    def test_no_window_has_more_than_five(self, each_s):
        clock = Clock()
        times = send(
            CreationPace(ServiceLimits.of_plan("open"), clock=clock), clock, 43, each_s=each_s
        )
        assert most_in_a_window(times, 60.0) <= 5
        slowest = max(60.2 * 8, 42 * each_s)  # nothing waits longer than it must
        assert times[-1] - times[0] == pytest.approx(slowest, abs=5 * each_s + 1)

    def test_what_an_earlier_process_sent_counts(self):
        clock = Clock()
        pace = CreationPace(ServiceLimits(jobs=2, window_s=10.0), clock=clock, margin_s=0.0)
        for at in (900.0, 993.0, 998.0):
            pace.created(at)
        assert pace.wait_s() == pytest.approx(3.0)

    def test_a_request_counts_from_its_answer(self):
        clock = Clock()
        pace = CreationPace(ServiceLimits(jobs=1, window_s=10.0), clock=clock, margin_s=0.0)
        pace.created()
        clock.now += 4.0
        pace.answered()
        assert pace.wait_s() == 10.0

    def test_a_clock_that_was_set_back_does_not_wait_for_ever(self):
        clock = Clock()
        pace = CreationPace(ServiceLimits(jobs=1, window_s=10.0), clock=clock, margin_s=0.0)
        pace.created(99_999.0)
        assert pace.wait_s() == 10.0

    def test_without_limits_nothing_waits(self):
        clock = Clock()
        assert send(CreationPace(UNLIMITED, clock=clock), clock, 20)[-1] == 1000.0


def test_limits_of_plans_in_words():
    assert ServiceLimits.of_plan("open").describe() == "5 new jobs a minute, 3 that wait or run"
    assert ServiceLimits.of_plan("premium").describe() == "5 new jobs a minute"
    assert UNLIMITED.describe() == ""


@pytest.mark.parametrize(
    ("jobs", "seconds"), [(0, 0), (1, 0), (5, 0), (6, 60), (11, 120), (50, 540)]
)
def test_creation_takes_at_least(jobs, seconds):
    assert ServiceLimits.of_plan(None).creation_s(jobs) == seconds
