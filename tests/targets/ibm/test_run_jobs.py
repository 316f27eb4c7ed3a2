"""Jobs that a journal lost are found again; a second copy of a run pays for nothing again."""

import shutil

import pytest
from fake_service import QUICK, SPLIT, WORK, FakeService, assert_right

from qkd_qiskit.errors import CheckpointError
from qkd_qiskit.targets.ibm.job_runner import Runner
from qkd_qiskit.targets.ibm.journal import Journal, read_journal
from qkd_qiskit.targets.ibm.run_jobs import RunJobs


def work(folder, service, *, begun=True, adopt=False, keys=WORK, run_id="r"):
    with Journal(folder) as journal:
        jobs = RunJobs(run_id, journal=journal, begun=begun, adopt=adopt, adopt_hint="adopt them")
        with Runner(service, journal=journal, options=SPLIT, policy=QUICK, run_jobs=jobs) as runner:
            for key, pubs in keys.items():
                runner.submit(key, pubs)
            return {key: runner.collect(key) for key in keys}


def test_a_lost_journal_is_refused_and_rebuilt(tmp_path):
    service = FakeService()
    assert_right(work(tmp_path, service))
    (tmp_path / "journal.jsonl").unlink()
    with pytest.raises(
        CheckpointError, match=r"has 4 jobs of this run .* \(job0, job1, job2 and 1"
    ):
        work(tmp_path, service)
    assert_right(work(tmp_path, service, adopt=True))
    assert len(service.jobs) == 4
    records = list(read_journal(tmp_path).records.values())
    assert [record.job for record in records] == list(service.jobs)
    assert read_journal(tmp_path).totals().usage_s == pytest.approx(6.0)


@pytest.mark.parametrize("lines", range(1, 14))
def test_a_journal_of_an_earlier_moment(tmp_path, lines):
    service = FakeService()
    work(tmp_path, service)
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))
    assert_right(work(tmp_path, service, adopt=True))
    assert len(service.jobs) == 4
    assert {record.job for record in read_journal(tmp_path).records.values()} == set(service.jobs)


def test_a_job_that_failed_before_is_followed_to_its_last_attempt(tmp_path):
    service = FakeService()
    service.ends.extend([{}, {"ends": "failed"}])
    assert_right(work(tmp_path, service))
    assert len(service.jobs) == 5
    (tmp_path / "journal.jsonl").unlink()
    assert_right(work(tmp_path, service, adopt=True))
    assert len(service.jobs) == 5
    assert read_journal(tmp_path).totals().failed == 1


def test_a_second_copy_of_a_run_is_noticed_before_it_sends(tmp_path):
    service = FakeService()
    work(tmp_path / "one", service, keys={"a": WORK["a"]})
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert_right(work(tmp_path / "one", service))
    with pytest.raises(CheckpointError, match="another copy of the run has sent them"):
        work(tmp_path / "two", service)
    assert len(service.jobs) == 4


def test_other_content_is_not_taken_for_the_same_job(tmp_path):
    service = FakeService()
    work(tmp_path / "one", service, keys={"a": WORK["a"]})
    other = {"a": WORK["c"]}
    assert_right(work(tmp_path / "two", service, adopt=True, keys=other), keys=other)
    assert len(service.jobs) == 2


def test_a_new_run_asks_for_nothing(tmp_path):
    service = FakeService()
    work(tmp_path, service, begun=False)
    assert service.calls["find"] == 0
    work(tmp_path, service)  # all is there: nothing is asked either
    assert service.calls["find"] == 0


def test_runs_of_earlier_versions_have_no_tag_of_their_own(tmp_path):
    service = FakeService()
    work(tmp_path, service, run_id="")
    assert service.calls["find"] == 0
    assert all(len(job.tags) == 1 for job in service.jobs.values())
