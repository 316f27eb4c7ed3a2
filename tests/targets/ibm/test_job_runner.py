"""Every job exactly once: crashes at every moment, faults of every kind, budgets and sessions."""

import logging

import pytest
from fake_service import (
    QUICK,
    SPLIT,
    WORK,
    Crash,
    FakeJob,
    FakeService,
    assert_right,
    damaged,
    pub,
)

from qkd_qiskit.errors import (
    BudgetError,
    CheckpointError,
    InputError,
    StorageError,
    SubmissionError,
    TargetError,
)
from qkd_qiskit.recipe import RuntimeSpec
from qkd_qiskit.targets.ibm.job_runner import Runner
from qkd_qiskit.targets.ibm.journal import Journal, read_journal
from qkd_qiskit.targets.ibm.service_errors import ServiceError
from qkd_qiskit.targets.ibm.usage import seconds_of


def work(folder, service, *, options=SPLIT, journal=Journal, keys=WORK, **settings):
    """Submit everything, collect everything."""
    with (
        journal(folder) as opened,
        Runner(service, journal=opened, options=options, policy=QUICK, **settings) as runner,
    ):
        for key, pubs in keys.items():
            runner.submit(key, pubs)
        return {key: runner.collect(key) for key in keys}


def assert_once(folder, service, *, jobs=4):
    """Every job of the service is finished in the journal, and paid once."""
    records = list(read_journal(folder).records.values())
    finished = [record for record in records if record.state == "finished"]
    assert sorted(record.job for record in finished) == sorted(service.jobs)
    assert len({(record.key, record.part) for record in finished}) == len(finished) == jobs
    assert len({record.tag for record in records}) == len(records)
    totals = read_journal(folder).totals()
    assert totals.usage_s == pytest.approx(sum(job.told for job in service.jobs.values()))


class TestOnce:
    def test_counts_come_back_in_order_whatever_was_split(self, tmp_path):
        service = FakeService()
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)
        totals = read_journal(tmp_path).totals()
        assert (totals.jobs, totals.circuits, totals.executions) == (4, 11, 110)
        assert (totals.failed, totals.pending, totals.expected_s) == (0, 0, 0.0)

    def test_what_is_on_the_disk_asks_nobody(self, tmp_path):
        work(tmp_path, FakeService())
        silent = FakeService()
        assert_right(work(tmp_path, silent))
        assert not silent.calls

    @pytest.mark.parametrize("before", [True, False])
    @pytest.mark.parametrize("number", range(14))
    def test_a_crash_at_any_line_of_the_journal(self, tmp_path, number, before):
        class Dying(Journal):
            left = number

            def append(self, event, **content):
                self.left -= 1
                if before and self.left < 0:
                    raise Crash
                super().append(event, **content)
                if self.left < 0:
                    raise Crash

        service = FakeService()
        with pytest.raises(Crash):
            work(tmp_path, service, journal=Dying)
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)

    def test_these_were_all_lines(self, tmp_path):
        work(tmp_path, FakeService())
        assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 14

    @pytest.mark.parametrize(
        ("endpoint", "number"),
        [(once, 0) for once in ("status", "open", "close")]
        + [(often, n) for often in ("submit", "state", "counts", "usage") for n in range(4)],
    )
    def test_a_crash_at_any_request(self, tmp_path, endpoint, number):
        service = FakeService()
        service.script[endpoint] = [None] * number + [Crash()]
        with pytest.raises(Crash):
            work(tmp_path, service)
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)

    @pytest.mark.parametrize("number", range(4))
    def test_a_crash_after_the_service_accepted(self, tmp_path, number):
        service = FakeService()
        service.after["submit"] = [None] * number + [Crash()]
        with pytest.raises(Crash):
            work(tmp_path, service)
        assert len(service.jobs) == number + 1
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)

    @pytest.mark.parametrize("kind", ["network", "server", "busy", "missing", "refused"])
    def test_an_answer_that_is_lost_after_the_job_was_accepted(self, tmp_path, kind):
        service = FakeService()
        service.after["submit"] = [ServiceError(kind, "lost")]
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)

    def test_a_job_that_is_listed_late_is_not_sent_again(self, tmp_path):
        service = FakeService()
        service.after["submit"] = [ServiceError("network", "lost")]
        find, late = service.find, [True]
        service.find = lambda tag: [] if late and late.pop() else find(tag)
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)

    def test_a_job_that_was_accepted_twice_is_used_once_and_told(self, tmp_path, caplog):
        service = FakeService()
        submit = service.submit

        def twice(pubs, *, tag, seed, group=None):
            submit(pubs, tag=tag, seed=seed)
            submit(pubs, tag=tag, seed=seed)
            service.submit = submit
            raise ServiceError("server", "lost")

        service.submit = twice
        assert_right(work(tmp_path, service))
        journal = read_journal(tmp_path)
        assert service.jobs["job1"].ends == "cancelled"
        assert "accepted twice" in caplog.text
        assert journal.duplicates == {"job1": 1.5}
        assert journal.totals().jobs == 5
        assert journal.totals().usage_s == pytest.approx(7.5)

    def test_a_job_that_is_accepted_after_it_was_sent_again_is_stopped(self, tmp_path, caplog):
        service = FakeService()
        submit = service.submit

        def late(pubs, *, tag, seed, group=None):
            service.submit = later
            raise ServiceError("network", "no answer in time")

        def later(pubs, *, tag, seed, group=None):
            service.submit = submit
            job = submit(pubs, tag=tag, seed=seed)
            submit(pubs, tag=tag, seed=seed)  # the first try arrives
            return job

        service.submit = late
        assert_right(work(tmp_path, service))
        assert service.jobs["job1"].ends == "cancelled"
        assert read_journal(tmp_path).duplicates == {"job1": 1.5}
        assert "accepted twice" in caplog.text

    def test_other_pubs_under_a_key_are_refused(self, tmp_path):
        work(tmp_path, FakeService())
        for other in ([pub(3, start=1e-12)], [pub(3, shots=11)], [pub(2)], [pub(5)]):
            with pytest.raises(CheckpointError, match=r"holds other circuits, .* under 'a'"):
                work(tmp_path, FakeService(), keys={"a": other})
        with pytest.raises(CheckpointError, match="or another device"):
            work(tmp_path, FakeService(identity="fake/twirled=True"))

    def test_a_lost_file_of_counts_is_fetched_again(self, tmp_path):
        service = FakeService()
        work(tmp_path, service)
        path = tmp_path / "jobs" / "b" / "1.part1.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        (tmp_path / "jobs" / "a.safetensors").unlink()
        assert_right(work(tmp_path, service))
        assert [job.read for job in service.jobs.values()] == [2, 1, 2, 1]
        path.unlink()
        service.local = True
        with pytest.raises(CheckpointError, match="missing or damaged"):
            work(tmp_path, service)

    def test_simulated_jobs_end_with_their_process_and_are_run_again(self, tmp_path):
        service = FakeService(local=True)
        service.script["counts"] = [Crash()]
        with pytest.raises(Crash):
            work(tmp_path, service)
        assert_right(work(tmp_path, FakeService(local=True)))
        totals = read_journal(tmp_path).totals()
        assert (totals.finished, totals.failed, totals.usage_s) == (4, 4, 0.0)

    @pytest.mark.parametrize("key", ["", "a b", "../x", "/x", "a//b", "a/", ".x", "x" * 201])
    def test_keys_name_files(self, tmp_path, key):
        with pytest.raises(InputError, match="job key"):
            work(tmp_path, FakeService(), keys={key: [pub()]})

    def test_collecting_what_was_not_submitted(self, tmp_path):
        with Journal(tmp_path) as journal, pytest.raises(InputError, match="submit it first"):
            Runner(FakeService(), journal=journal).collect("a")


class TestFaults:
    @pytest.mark.parametrize(
        "endpoint", ["status", "open", "submit", "state", "counts", "usage", "find"]
    )
    @pytest.mark.parametrize("kind", ["busy", "server", "network", "missing"])
    def test_what_may_pass_is_tried_again(self, tmp_path, endpoint, kind):
        service = FakeService()
        service.script[endpoint] = [ServiceError(kind, "later")] * 2
        service.after["submit"] = [ServiceError("network", "lost")]
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)

    @pytest.mark.parametrize("endpoint", ["status", "open", "submit", "state", "counts"])
    def test_what_does_not_pass_stops_and_goes_on(self, tmp_path, endpoint):
        service = FakeService()
        service.script[endpoint] = [ServiceError("server", "down")] * 4
        with pytest.raises(SubmissionError, match=r"fake: .* failed 4 times: down; do this"):
            work(tmp_path, service, resume_hint="do this")
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)

    @pytest.mark.parametrize("endpoint", ["status", "open", "submit", "state", "counts"])
    def test_a_refused_account_stops_at_once(self, tmp_path, endpoint):
        service = FakeService()
        service.script[endpoint] = [ServiceError("unauthorized", "not you")]
        with pytest.raises(SubmissionError, match=r"failed: not you") as caught:
            work(tmp_path, service)
        assert caught.value.__context__ is None
        assert service.calls[endpoint] == 1
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)

    def test_usage_that_cannot_be_had_waits_for_the_end(self, tmp_path):
        service = FakeService()
        service.script["usage"] = [ServiceError("server", "down")] * 4
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)

    def test_usage_that_is_not_final_is_asked_for_until_it_is(self, tmp_path, caplog):
        service = FakeService()
        service.ends.append({"told": None})
        work(tmp_path, service)
        journal = read_journal(tmp_path)
        assert "not told yet what 1 jobs used" in caplog.text
        assert (journal.totals().usage_s, journal.totals().expected_s) == (4.5, 2.0)
        service.jobs["job0"].told = 3.0
        work(tmp_path, service)
        assert read_journal(tmp_path).totals().usage_s == 7.5

    def test_a_refused_job_is_told_and_may_be_sent_later(self, tmp_path):
        service = FakeService()
        service.script["submit"] = [ServiceError("refused", "too many shots")]
        with pytest.raises(SubmissionError, match="submitting a failed: too many shots"):
            work(tmp_path, service)
        assert [r.state for r in read_journal(tmp_path).records.values()] == ["abandoned"]
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)

    def test_a_failed_job_is_sent_again_as_a_new_attempt(self, tmp_path):
        service = FakeService()
        service.ends.extend([{"ends": "failed", "told": 0.25}] * 2)
        assert_right(work(tmp_path, service, keys={"c": WORK["c"]}), keys={"c": WORK["c"]})
        records = list(read_journal(tmp_path).records.values())
        assert [r.attempt for r in records] == [0, 1, 2]
        assert [r.reason for r in records] == ["broken", "broken", None]
        totals = read_journal(tmp_path).totals()
        assert (totals.jobs, totals.finished, totals.failed) == (3, 1, 2)
        assert (totals.usage_s, totals.failed_usage_s) == (2.0, 0.5)

    def test_a_job_that_fails_too_often_stops(self, tmp_path):
        service = FakeService()
        service.ends.extend([{"ends": "failed"}] * 3)
        with pytest.raises(SubmissionError, match=r"job2 \(a\) failed 3 times: broken; again"):
            work(tmp_path, service, resume_hint="again", keys={"a": WORK["a"]})
        assert_right(work(tmp_path, service))
        assert read_journal(tmp_path).totals().failed == 3

    def test_a_job_that_would_fail_again_stops_at_once(self, tmp_path):
        service = FakeService()
        service.ends.append({"ends": "failed", "text": "too long", "final": True})
        with pytest.raises(SubmissionError, match=r"job0 \(a\) failed: too long"):
            work(tmp_path, service)

    def test_a_cancelled_job_stops_and_is_sent_again_when_told_to_go_on(self, tmp_path):
        service = FakeService()
        service.ends.append({"ends": "cancelled"})
        with pytest.raises(SubmissionError, match=r"job0 \(a\) was cancelled"):
            work(tmp_path, service)
        assert_right(work(tmp_path, service))

    def test_a_job_that_does_not_end(self, tmp_path):
        service = FakeService()
        service.ends.append({"ends": "waiting"})
        policy = QUICK.__class__(poll_s=0.001, longest_poll_s=0.001, job_timeout_s=0.02)
        with (
            Journal(tmp_path) as journal,
            Runner(service, journal=journal, policy=policy) as runner,
            pytest.raises(SubmissionError, match=r"has not ended after 0\.02 s"),
        ):
            runner.run("a", WORK["a"])
        service.jobs["job0"].ends = "done"
        assert_right(work(tmp_path, service, keys={"a": WORK["a"]}), keys={"a": WORK["a"]})
        assert len(service.jobs) == 1

    def test_a_device_that_is_down_is_said_before_anything_is_written(self, tmp_path):
        service = FakeService()
        service.script["status"] = [TargetError("it takes no jobs now")]
        with pytest.raises(TargetError, match="takes no jobs"):
            work(tmp_path, service)
        assert not read_journal(tmp_path).records

    def test_a_full_disk_loses_no_job(self, tmp_path, monkeypatch):
        service = FakeService()

        def full(*_):
            raise StorageError("no space")

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "save_counts", full)
            with pytest.raises(StorageError):
                work(tmp_path, service)
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)


class TestBudget:
    def test_it_stops_before_it_is_passed_and_goes_on(self, tmp_path):
        service = FakeService()
        with pytest.raises(BudgetError, match=r"2 QPU seconds; with 4 used, the 5 that are"):
            work(tmp_path, service, max_qpu_seconds=5)  # 2 s expected of each, 1.5 s used
        assert len(service.jobs) == 2
        assert_right(work(tmp_path, service, max_qpu_seconds=8))
        assert_once(tmp_path, service)

    def test_what_was_meant_before_a_crash_counts_when_it_is_sent(self, tmp_path):
        service = FakeService()
        service.script["submit"] = [Crash()]
        with pytest.raises(Crash):
            work(tmp_path, service)
        with pytest.raises(BudgetError, match="with 0 used"):
            work(tmp_path, service, max_qpu_seconds=1)
        assert not service.jobs
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)

    def test_used_seconds_count_when_they_are_known(self, tmp_path):
        service = FakeService()
        with (
            Journal(tmp_path) as journal,
            Runner(service, journal=journal, policy=QUICK, max_qpu_seconds=6.5) as runner,
        ):
            for key in "abcd":  # 3 * 1.5 + 2
                runner.run(key, [pub()])
            with pytest.raises(BudgetError, match="with 6 used"):
                runner.run("e", [pub()])

    def test_its_own_estimate(self, tmp_path):
        service = FakeService()
        with pytest.raises(BudgetError, match="expected to take 30 QPU seconds"):
            work(
                tmp_path,
                service,
                max_qpu_seconds=5,
                estimate=lambda pubs: 10.0 * len(pubs[0].values),
            )
        assert not service.jobs

    @pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
    def test_bad_limits(self, tmp_path, seconds):
        with pytest.raises(InputError, match="max_qpu_seconds"):
            work(tmp_path, FakeService(), max_qpu_seconds=seconds)


class TestSessions:
    def test_one_is_opened_when_a_job_is_sent_and_closed_at_the_end(self, tmp_path):
        service = FakeService()
        work(tmp_path, service)
        assert service.sessions == {"s0": False}
        work(tmp_path, service)
        assert service.calls["open"] == service.calls["close"] == 1

    def test_none_in_job_mode(self, tmp_path):
        service = FakeService()
        assert_right(work(tmp_path, service, options=RuntimeSpec(mode="job", max_executions=40)))
        assert not service.sessions

    def test_a_plan_without_sessions_gets_a_batch_and_is_told(self, tmp_path, caplog):
        service = FakeService(modes=("batch",))
        options = RuntimeSpec(mode="session")
        with (
            caplog.at_level(logging.WARNING),
            Journal(tmp_path) as journal,
            Runner(service, journal=journal, options=options, policy=QUICK) as runner,
        ):
            assert runner.mode == "session"
            runner.run("a", WORK["a"])
            assert runner.mode == "batch"
        assert "this plan has no sessions" in caplog.text
        assert '"mode": "batch"' in (tmp_path / "journal.jsonl").read_text()

    def test_a_service_that_refuses_both_stops(self, tmp_path):
        service = FakeService(modes=())
        with pytest.raises(SubmissionError, match="opening a session failed: not in this plan"):
            work(tmp_path, service, options=RuntimeSpec(mode="session"))

    def test_another_is_opened_where_one_has_closed(self, tmp_path):
        service = FakeService()
        submit = service.submit

        def closing(pubs, *, tag, seed, group=None):
            if len(service.jobs) == 2 and service.session == "s0":
                service.sessions["s0"] = False
            return submit(pubs, tag=tag, seed=seed)

        service.submit = closing
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)
        assert list(service.sessions) == ["s0", "s1"]

    def test_a_job_that_its_session_took_along_is_sent_again(self, tmp_path):
        service = FakeService()
        service.ends.append({"ends": "cancelled"})
        state = service.submit

        def expiring(pubs, *, tag, seed, group=None):
            job = state(pubs, tag=tag, seed=seed)
            if job.ends == "cancelled":
                service.sessions[service.session] = False
            return job

        service.submit = expiring
        assert_right(work(tmp_path, service))
        assert list(service.sessions) == ["s0", "s1"]

    def test_a_job_that_a_session_took_along_between_two_processes(self, tmp_path):
        service = FakeService()
        service.ends.append({"ends": "cancelled"})
        service.script["state"] = service.script["close"] = [Crash()]
        with pytest.raises(Crash):
            work(tmp_path, service, keys={"a": WORK["a"]})
        service.sessions["s0"] = False
        assert_right(work(tmp_path, service, keys={"a": WORK["a"]}), keys={"a": WORK["a"]})
        assert list(service.sessions) == ["s0", "s1"]

    def test_an_open_one_is_found_again_after_a_crash(self, tmp_path):
        service = FakeService()
        service.after["submit"] = [Crash()]
        service.script["close"] = [Crash()]
        with pytest.raises(Crash):
            work(tmp_path, service)
        assert_right(work(tmp_path, service))
        assert service.sessions == {"s0": False}

    def test_what_it_costs_beyond_its_jobs_counts(self, tmp_path):
        service = FakeService(billed=None)
        options = RuntimeSpec(mode="session", max_executions=40)
        work(tmp_path, service, options=options)
        assert read_journal(tmp_path).totals().waiting_s == 0
        service.billed = 10.0  # 6 of them for jobs
        work(tmp_path, service, options=options)
        assert read_journal(tmp_path).totals().waiting_s == 4.0
        with pytest.raises(BudgetError, match="with 10 used"):
            work(tmp_path, service, keys={"more": [pub()]}, max_qpu_seconds=11.9)

    def test_that_of_a_process_that_died_is_closed_though_nothing_is_left_to_send(self, tmp_path):
        service = FakeService()
        service.script["close"] = [Crash()]
        with pytest.raises(Crash):
            work(tmp_path, service)
        assert service.sessions == {"s0": True}
        assert_right(work(tmp_path, service))
        assert service.sessions == {"s0": False}
        assert read_journal(tmp_path).session is None

    def test_that_of_another_mode_is_closed(self, tmp_path):
        service = FakeService()
        service.script["close"] = [ServiceError("server", "down")] * 4
        work(tmp_path, service)
        options = RuntimeSpec(mode="session", max_executions=40)
        more = WORK | {"d": [pub()]}
        assert_right(work(tmp_path, service, options=options, keys=more), keys=more)
        assert service.sessions == {"s0": False, "s1": False}

    def test_one_that_cannot_be_closed_does_not_hide_what_happened(self, tmp_path, caplog):
        service = FakeService()
        service.script["close"] = [ServiceError("server", "down")] * 4
        service.ends.append({"ends": "cancelled"})
        with pytest.raises(SubmissionError, match="was cancelled"):
            work(tmp_path, service)
        assert "session not closed: fake: closing the session failed 4 times: down" in caplog.text


class TestWrongResults:
    HOW = (
        "a row too few",
        "a bit too many",
        "a shot too few",
        "a shot too many",
        "below zero",
        "a PUB too few",
        "a PUB too many",
    )

    @pytest.mark.parametrize("how", HOW)
    def test_they_are_asked_for_again(self, tmp_path, how, monkeypatch):
        right, wrong = FakeJob.counts, [True, True]

        def counts(job, pubs):
            given = right(job, pubs)
            return damaged(how, given) if wrong and wrong.pop() else given

        monkeypatch.setattr(FakeJob, "counts", counts)
        service = FakeService()
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)

    @pytest.mark.parametrize("how", HOW)
    def test_and_never_kept(self, tmp_path, how, monkeypatch):
        right = FakeJob.counts
        monkeypatch.setattr(FakeJob, "counts", lambda job, pubs: damaged(how, right(job, pubs)))
        service = FakeService()
        with pytest.raises(SubmissionError, match="results of job job0 failed 4 times"):
            work(tmp_path, service)
        assert not list((tmp_path / "jobs").rglob("*.safetensors"))
        monkeypatch.setattr(FakeJob, "counts", right)
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)

    def test_a_long_wait_that_is_asked_for_stops_the_run(self, tmp_path):
        service = FakeService()
        service.script["state"] = [ServiceError("busy", "429", retry_after=7200.0)]
        with pytest.raises(SubmissionError, match="asks to wait 7200 s; after that run the same"):
            work(tmp_path, service)
        assert service.sessions == {"s0": False}
        assert_right(work(tmp_path, service))
        assert_once(tmp_path, service)


@pytest.mark.parametrize(
    ("reported", "counted"),
    [
        (1.5, 1.5),
        (0, 0.0),
        *((wrong, None) for wrong in (-1.0, float("nan"), float("inf"), "2", None, True, [3])),
    ],
)
def test_usage_that_is_no_number_of_seconds_is_not_counted(reported, counted, caplog):
    assert seconds_of(reported, of="job j") == counted
    assert ("is not counted" in caplog.text) == (counted is None and reported is not None)
