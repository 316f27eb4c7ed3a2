"""What is kept of how a run was made: enough to account for it, and nothing secret."""

import getpass
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from qkd_qiskit import Run, load_data
from qkd_qiskit.experiments import provenance as module
from qkd_qiskit.experiments.provenance import git_state, read_provenance
from qkd_qiskit.run import resume_experiment
from qkd_qiskit.storage import tensor_digest


def test_a_run_keeps_when_where_and_with_what(finished):
    known = Run(finished).provenance
    (session,) = known.sessions
    assert session.began <= session.ended
    assert known.date == session.ended[:10]
    assert session.command == "qkd distill tiny.yaml"
    assert session.python.endswith(platform.python_version())
    assert session.cpu
    assert session.packages["qiskit"]
    assert session.packages["torch"]
    assert len(session.packages) > 30
    data = load_data(finished.recipe.data, seed=finished.recipe.seed)
    assert list(known.data) == ["pool", "validation", "test"]
    own = {"images": data.test.images, "labels": data.test.labels}
    assert known.data["test"] == tensor_digest(own)


def test_every_process_that_worked_on_it_is_kept(finished, tmp_path):
    path = shutil.copytree(finished.path, tmp_path / "run")
    home = str(Path.home())
    resume_experiment(path, command=f"qkd distill {home}/recipe.yaml")
    first, second = Run.open(path).provenance.sessions
    assert first == Run(finished).provenance.sessions[0]
    assert second.command == "qkd distill ~/recipe.yaml"
    assert second.ended


def test_nothing_of_the_user_and_the_computer_is_in_it(finished, monkeypatch):
    text = (finished.path / "provenance.json").read_text()
    assert f'"{Path.home()}' not in text
    assert f" {Path.home()}/" not in text
    for secret in (platform.node(), getpass.getuser()):
        assert len(secret) < 5 or secret not in text
    monkeypatch.setenv("QISKIT_IBM_TOKEN", "abcdefgh1234")
    assert "abcdefgh1234" not in str(module.describe_process())


def test_a_run_of_an_early_version_has_none(finished, tmp_path):
    path = shutil.copytree(finished.path, tmp_path / "run")
    (path / "provenance.json").unlink()
    known = read_provenance(Run.open(path).folder)
    assert (known.sessions, known.data, known.date) == ((), {}, None)


def test_the_commit_is_that_of_the_folder(tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    assert git_state(tmp_path) is None
    git("init", "-q")
    assert git_state(tmp_path) is None  # there is no commit
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "a")
    commit = git("rev-parse", "HEAD")
    assert git_state(tmp_path) == module.GitState(commit=commit, modified=False)
    (tmp_path / "other").write_text("not tracked")
    assert not git_state(tmp_path).modified
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path) == module.GitState(commit=commit, modified=True)


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() is None


@pytest.mark.parametrize("home", ["/", "/home/me"])
def test_the_home_folder_is_not_shown(home, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path(home))
    shown = module._without_home("qkd distill /home/me/a.yaml")
    assert shown == ("qkd distill ~/a.yaml" if home != "/" else "qkd distill /home/me/a.yaml")
