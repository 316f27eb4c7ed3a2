"""What a session waits between its jobs: counted by our own clock until it is billed."""

from datetime import datetime

import pytest

from qkd_qiskit.experiments.submission.device import WatchedJournal
from qkd_qiskit.experiments.submission.session_waits import SessionWaits
from qkd_qiskit.targets.ibm.journal import JobRecord


def journal(mode, ends, *, ahead):
    """The lines of jobs that end at these seconds, sent one by one or all ahead."""
    yield {"event": "session", "state": "opened", "id": "s", "mode": mode}
    tags = [f"t{number}" for number in range(len(ends))]
    for number, tag in enumerate(tags):
        yield {"event": "intent", "tag": tag, "key": f"train/{number:06d}"}
    if ahead:
        yield from ({"event": "submitted", "tag": tag} for tag in tags)
    for tag, second in zip(tags, ends, strict=True):
        if not ahead:
            yield {"event": "submitted", "tag": tag}
        time = f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}.000+00:00"
        yield {"event": "finished", "tag": tag, "time": time, "usage_s": 4.0}


@pytest.mark.parametrize(
    ("mode", "ahead", "expected"),
    [
        # 10 - 4 seconds, then 186, of which an idle session is billed 60.
        ("session", False, {"train/000001": 6.0, "train/000002": 60.0}),
        ("session", True, {}),  # the device went on with the next at once
        ("batch", False, {}),
    ],
)
def test_what_a_session_waits_for_is_counted(mode, ahead, expected):
    waits = SessionWaits()
    for entry in journal(mode, (0, 10, 200), ahead=ahead):
        waits.add(entry)
    assert waits.of_keys == expected


@pytest.fixture
def waited(tmp_path, monkeypatch):
    """A journal of two jobs in a session, of 4 s each and 6 s apart."""
    journal = WatchedJournal(tmp_path, None)
    journal.append("session", state="opened", id="s", mode="session")
    for number in range(2):
        record = JobRecord(
            key=f"train/{number:06d}",
            part=0,
            parts=1,
            attempt=0,
            tag=f"t{number}",
            digest="d",
            pubs=1,
            circuits=1,
            shots=1,
            executions=1,
            estimate_s=4.0,
        )
        journal.append("intent", **record.intent)
        journal.append("submitted", tag=record.tag, job=f"job{number}")
        monkeypatch.setattr("qkd_qiskit.experiments.submission.device.datetime", Clock(10 * number))
        journal.append("finished", tag=record.tag, result="r", usage_s=4.0)
    yield journal
    journal.close()


class Clock:
    """Says that it is so many seconds past the hour."""

    def __init__(self, second):
        self.second = second

    def now(self, zone):
        return datetime(2026, 1, 1, 0, 0, self.second, tzinfo=zone)


def test_waits_count_once_before_and_after_the_bill(waited):
    totals = waited.totals()
    assert (totals.usage_s, totals.waiting_s, totals.spent_s) == (8.0, 6.0, 14.0)
    waited.append("session", state="closed", id="s", mode="session", usage_s=None)
    assert waited.totals().spent_s == 14.0
    waited.append("session_usage", id="s", usage_s=13.5)
    totals = waited.totals()
    assert (totals.usage_s, totals.waiting_s, totals.spent_s) == (8.0, 5.5, 13.5)
