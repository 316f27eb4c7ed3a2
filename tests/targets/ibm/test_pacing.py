"""A run creates jobs as fast as the service takes them, and not faster."""

import time

import pytest
from fake_service import QUICK, SPLIT, WORK, FakeService, assert_right, pub

from qkd_qiskit.errors import BudgetError
from qkd_qiskit.recipe import RuntimeSpec
from qkd_qiskit.targets.ibm.job_runner import Runner
from qkd_qiskit.targets.ibm.journal import Journal, read_journal
from qkd_qiskit.targets.ibm.pacing import HELD_S
from qkd_qiskit.targets.ibm.service_errors import ServiceError
from qkd_qiskit.targets.ibm.service_limits import ServiceLimits


@pytest.fixture
def slept(monkeypatch):
    """How long was slept; the clock goes on by that, and nobody waits."""
    waits, start = [], time.time()
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(time, "time", lambda: start + sum(waits))
    return waits


def runner_of(service, folder, *, mode="job", **settings):
    journal = Journal(folder)
    return journal, Runner(
        service, journal=journal, options=RuntimeSpec(mode=mode), policy=QUICK, **settings
    )


def run_all(service, folder, jobs, **settings):
    journal, runner = runner_of(service, folder, **settings)
    with journal, runner:
        for number in jobs:
            runner.run(f"job/{number}", [pub(1, start=number)])


class TestCreation:
    def test_six_jobs_wait_once(self, tmp_path, slept):
        service = FakeService(limits=ServiceLimits(jobs=5, window_s=60.0))
        run_all(service, tmp_path, range(6))
        assert [round(wait) for wait in slept if wait] == [60]
        assert service.calls["limits"] == 1

    def test_the_next_process_counts_those_of_the_one_before(self, tmp_path, slept):
        service = FakeService(limits=ServiceLimits(jobs=5, window_s=60.0))
        run_all(service, tmp_path, range(4))
        assert not any(slept)
        run_all(service, tmp_path, range(4, 6))
        assert [round(wait) for wait in slept if wait] == [60]

    def test_requests_that_failed_count(self, tmp_path, slept):
        service = FakeService(limits=ServiceLimits(jobs=2, window_s=60.0))
        service.script["submit"] = [
            ServiceError("server", "broken"),
            ServiceError("server", "again"),
        ]
        run_all(service, tmp_path, range(1))
        assert [round(wait) for wait in slept if wait > 1] == [60]

    def test_a_session_is_not_held_for_it(self, tmp_path, slept):
        service = FakeService(limits=ServiceLimits(jobs=2, window_s=60.0))
        run_all(service, tmp_path, range(6), mode="session")
        assert [round(wait) for wait in slept if wait] == [60, 60]
        assert (service.calls["open"], service.calls["close"]) == (3, 3)
        assert read_journal(tmp_path).totals().finished == 6

    def test_a_short_wait_keeps_the_session(self, tmp_path, slept):
        service = FakeService(limits=ServiceLimits(jobs=2, window_s=HELD_S - 1))
        run_all(service, tmp_path, range(6), mode="session")
        assert (service.calls["open"], service.calls["close"]) == (1, 1)

    def test_a_batch_costs_nothing_and_stays(self, tmp_path, slept):
        service = FakeService(limits=ServiceLimits(jobs=2, window_s=60.0))
        run_all(service, tmp_path, range(6), mode="batch")
        assert (service.calls["open"], service.calls["close"]) == (1, 1)


class Busy(FakeService):
    """Takes so many jobs at once; one has ended after it was looked at some times."""

    room = 2
    looks = 2

    def submit(self, pubs, **settings):
        if sum(job.ends == "waiting" for job in self.jobs.values()) >= self.room:
            self.calls["full"] += 1
            raise ServiceError("full", "You have reached the limit of 2 pending jobs.")
        job = super().submit(pubs, **settings)
        job.ends, job.left = "waiting", self.looks
        job.state = lambda: self.look(job)
        return job

    def look(self, job):
        job.left -= 1
        job.ends = "waiting" if job.left > 0 else "done"
        return job.ends


class TestPending:
    def test_no_more_are_on_their_way_than_may_be(self, tmp_path, slept):
        service = Busy(limits=ServiceLimits(pending=2))
        journal, runner = runner_of(service, tmp_path)
        with journal, runner:
            for key, pubs in WORK.items():
                runner.submit(key, pubs)
            assert_right({key: runner.collect(key) for key in WORK})
        assert service.calls["full"] == 0
        assert len(service.jobs) == 3

    def test_others_have_taken_the_room(self, tmp_path, slept):
        service = Busy(limits=ServiceLimits(pending=3))
        journal = Journal(tmp_path)
        with journal, Runner(service, journal=journal, options=SPLIT, policy=QUICK) as runner:
            for key, pubs in WORK.items():
                runner.submit(key, pubs)
            assert_right({key: runner.collect(key) for key in WORK})
        assert service.calls["full"] >= 1
        assert journal.totals().jobs == len(service.jobs) == 4
        assert journal.totals().failed == 0

    def test_where_none_is_our_own_it_is_tried_again(self, tmp_path, slept):
        service = FakeService()
        service.script["submit"] = [ServiceError("full", "3 pending jobs")] * 2
        run_all(service, tmp_path, range(1))
        assert len(service.jobs) == 1


class TestBudget:
    def test_a_job_that_takes_too_long_is_cancelled(self, tmp_path, slept):
        service = FakeService()
        service.ends.append({"ends": "waiting", "so_far": 9.0, "told": 9.5})
        with pytest.raises(BudgetError, match="has used 9 so far: the 8 that are allowed"):
            run_all(service, tmp_path, range(1), max_qpu_seconds=8.0)
        assert service.calls["cancel"] == 1
        totals = read_journal(tmp_path).totals()
        assert (totals.failed, totals.usage_s) == (1, 9.5)

    @pytest.mark.parametrize("so_far", [None, 1.9, 7.9])
    def test_one_within_it_is_not(self, tmp_path, slept, so_far):
        service = Busy()
        service.ends.append({"so_far": so_far})
        run_all(service, tmp_path, range(1), max_qpu_seconds=8.0)
        assert service.calls["cancel"] == 0
        assert service.calls["usage_so_far"] == 1

    def test_without_a_budget_nothing_is_asked(self, tmp_path, slept):
        service = Busy()
        run_all(service, tmp_path, range(2))
        assert service.calls["usage_so_far"] == 0
