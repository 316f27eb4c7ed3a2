"""The journal: written before it is meant, whole lines or none, one process at a time."""

import errno
import json
import os

import numpy as np
import pytest

from qkd_qiskit.errors import CheckpointError, StorageError
from qkd_qiskit.targets.ibm import journal as module
from qkd_qiskit.targets.ibm.journal import JobRecord, Journal, read_journal


def record(tag="qkd:1", *, key="a", part=0, parts=1, attempt=0, executions=30):
    return JobRecord(
        key=key,
        part=part,
        parts=parts,
        attempt=attempt,
        tag=tag,
        digest="d",
        pubs=1,
        circuits=3,
        shots=10,
        executions=executions,
        estimate_s=2.0,
    )


def fill(folder):
    """One finished job, one that failed and was sent again, one that was not accepted."""
    with Journal(folder) as journal:
        journal.append("session", state="opened", id="s0", mode="batch")
        for tag, job in (("t0", "j0"), ("t1", "j1")):
            journal.intend(record(tag, key=tag))
            journal.append("submitted", tag=tag, job=job)
        journal.append("finished", tag="t0", result="r", usage_s=1.5)
        journal.append("failed", tag="t1", reason="broken", usage_s=None)
        journal.intend(record("t2", key="t1", attempt=1))
        journal.append("submitted", tag="t2", job="j2")
        journal.append("usage", tag="t1", usage_s=0.5)
        journal.intend(record("t3", key="t3"))
        journal.append("abandoned", tag="t3", reason="refused")
        journal.append("duplicate", job="j9", usage_s=0.25)
        journal.append("session", state="closed", id="s0", mode="batch", usage_s=None)
    return folder / "journal.jsonl"


def test_what_was_written_is_read(tmp_path):
    fill(tmp_path)
    journal = read_journal(tmp_path)
    assert [r.state for r in journal.records.values()] == [
        "finished",
        "failed",
        "submitted",
        "abandoned",
    ]
    assert journal.latest("t1").tag == "t2"
    assert journal.latest("t1", 1) is journal.latest("nothing") is None
    assert journal.records["t1"].session == "s0"
    assert journal.session is None
    assert journal.keys() == ["t0", "t1", "t3"]
    assert journal.finished("t0")
    assert not journal.finished("t1")
    assert not journal.finished("nothing")
    totals = journal.totals()
    assert (totals.jobs, totals.finished, totals.failed, totals.pending) == (4, 1, 1, 1)
    assert (totals.circuits, totals.executions) == (9, 90)
    assert (totals.usage_s, totals.failed_usage_s, totals.expected_s) == (2.25, 0.75, 2.0)


def test_a_session_is_billed_for_its_waits_and_a_batch_is_not(tmp_path):
    with Journal(tmp_path) as journal:
        for mode in ("session", "batch"):
            journal.append("session", state="opened", id=mode, mode=mode)
            journal.intend(record(mode, key=mode))
            journal.append("submitted", tag=mode, job=mode)
            journal.append("finished", tag=mode, result="r", usage_s=1.5)
            journal.append("session", state="closed", id=mode, mode=mode, usage_s=None)
            assert journal.totals().waiting_s == 0
        for mode in ("session", "batch"):
            journal.append("session_usage", id=mode, usage_s=4.0)
            assert journal.session is None
        assert (journal.totals().usage_s, journal.totals().waiting_s) == (3.0, 2.5)


def test_all_parts_of_a_key_have_to_be_finished(tmp_path):
    with Journal(tmp_path) as journal:
        for part in range(2):
            assert not journal.finished("a")
            journal.intend(record(str(part), part=part, parts=2))
            journal.append("submitted", tag=str(part), job="j")
            journal.append("finished", tag=str(part), result="r", usage_s=0.0)
        assert journal.finished("a")


def test_a_last_line_that_was_cut_is_dropped_and_written_over(tmp_path):
    path = fill(tmp_path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    last = len(lines[-1])
    for cut in (1, 2, last // 2, last - 1, last):
        path.write_bytes(whole[: len(whole) - cut])
        assert read_journal(tmp_path).session == ("s0", "batch")
        with Journal(tmp_path) as journal:
            assert path.read_bytes() == b"".join(lines[:-1])
            journal.append("session", state="closed", id="s0", mode="batch", usage_s=None)
        assert len(path.read_bytes().splitlines()) == len(lines)
        assert read_journal(tmp_path).session is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:-2] + b"x",
        lambda line: line.replace(b"qkd", b"qkx").replace(b"t1", b"t0", 1),
        lambda line: b"",
        lambda line: b"\xff\xfe",
        lambda line: json.dumps({"event": "intent"}).encode(),
        lambda line: line + b" ",
    ],
)
def test_any_other_damage_is_an_error(tmp_path, damage):
    path = fill(tmp_path)
    lines = path.read_bytes().split(b"\n")
    lines[3] = damage(lines[3])
    path.write_bytes(b"\n".join(lines))
    for opened in (read_journal, Journal):
        with pytest.raises(CheckpointError, match=r"is damaged in line 4 .* bring back a copy"):
            opened(tmp_path)
    # The lock is free again.
    path.unlink()
    Journal(tmp_path).close()


def test_lines_that_do_not_follow_from_those_before_are_damage(tmp_path):
    path = fill(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    for wrong in (lines[1:2] * 2, lines[2:3], [lines[1], lines[1]]):
        path.write_bytes(b"".join(wrong))
        with pytest.raises(CheckpointError, match="is damaged"):
            read_journal(tmp_path)


def test_one_process_at_a_time(tmp_path):
    with Journal(tmp_path):
        with pytest.raises(CheckpointError, match="another process works on"):
            Journal(tmp_path)
        read_journal(tmp_path)
    Journal(tmp_path).close()


def test_the_lock_ends_with_its_process(tmp_path):
    child = os.fork()
    if not child:
        Journal(tmp_path)
        os._exit(0)  # without closing
    os.waitpid(child, 0)
    Journal(tmp_path).close()


def test_a_line_that_cannot_be_written_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    path = fill(tmp_path)
    before = path.read_bytes()
    with Journal(tmp_path) as journal:
        with monkeypatch.context() as patch:

            def full(_):
                raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr(module.os, "fsync", full)
            with pytest.raises(StorageError, match=r"journal.jsonl: No space left .* make room"):
                journal.intend(record("t9"))
        assert path.read_bytes() == before
        assert "t9" not in journal.records
        journal.intend(record("t9"))
    assert "t9" in read_journal(tmp_path).records


def test_each_line_is_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(module.os, "fsync", lambda handle: synced.append(handle) or fsync(handle))
    with Journal(tmp_path) as journal:
        synced.clear()
        journal.intend(record())
        assert len(synced) == 1


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write in"):
        Journal(tmp_path / "file")


def test_counts_are_kept_whole_or_not_at_all(tmp_path):
    counts = [np.arange(8, dtype=np.int64).reshape(2, 4), np.ones((1, 2), dtype=np.int64)]
    with Journal(tmp_path) as journal:
        journal.intend(record(key="b/1"))
        digest = journal.save_counts(record(key="b/1"), counts)
        journal.append("submitted", tag="qkd:1", job="j")
        journal.append("finished", tag="qkd:1", result=digest, usage_s=0.0)
        known = journal.latest("b/1")
        for mine, theirs in zip(journal.load_counts(known), counts, strict=True):
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == np.int64
        path = journal.result_path(known)
        content = path.read_bytes()
        for damaged in (content[:-1], content[:-1] + b"\x07", b""):
            path.write_bytes(damaged)
            assert journal.load_counts(known) is None
        # Whole, but not the counts that the journal speaks of.
        journal.save_counts(known, counts[::-1])
        assert journal.load_counts(known) is None
        path.unlink()
        assert journal.load_counts(known) is None
