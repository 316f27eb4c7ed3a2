"""`qkd doctor`: what it finds is what is there, and no secret of an account is shown."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import qkd_qiskit
from qkd_qiskit.cli import main


@pytest.fixture
def findings(tmp_path, monkeypatch, capsys):
    """Runs the command and returns its lines by name."""
    monkeypatch.setenv("QKD_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("QISKIT_IBM_TOKEN", "a-secret-token")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("QKD_RUNTIME_URL", raising=False)

    def run(status=0):
        assert main(["doctor", "--json"]) == status
        shown = capsys.readouterr()
        assert "a-secret-token" not in shown.out + shown.err
        return {line["name"].strip(): line for line in json.loads(shown.out)}

    return run


def test_data_sets_are_found_where_they_are(findings, tmp_path):
    (tmp_path / "data" / "MNIST" / "raw").mkdir(parents=True)
    found = findings()
    assert found["mnist"]["state"] == "ok"
    assert found["fashion_mnist"]["state"] == found["cifar10"]["state"] == "note"
    assert "QKD_DATA" in found["data root"]["text"]
    assert found["account"]["text"] == "in QISKIT_IBM_TOKEN"
    assert found["kernel"]["state"] == "ok"


@pytest.mark.parametrize(
    ("saved", "state"), [(None, "note"), ("{}", "note"), ('{"default": {"token": "x"}}', "ok")]
)
def test_an_account_that_is_saved_is_one(findings, monkeypatch, tmp_path, saved, state):
    monkeypatch.delenv("QISKIT_IBM_TOKEN")
    if saved is not None:
        (tmp_path / ".qiskit").mkdir()
        (tmp_path / ".qiskit" / "qiskit-ibm.json").write_text(saved)
    assert findings()["account"]["state"] == state


def test_a_rehearsal_is_told(findings, monkeypatch):
    monkeypatch.setenv("QKD_RUNTIME_URL", "http://127.0.0.1:1")
    assert "not to IBM Quantum" in findings()["account"]["text"]


def test_a_package_that_is_missing_is_a_problem(findings, monkeypatch):
    monkeypatch.setattr("qkd_qiskit.cli.doctor.PACKAGES", ("torch", "no-such-package"))
    assert findings(status=1)["no-such-package"]["state"] == "problem"


def test_where_nothing_is_installed_it_says_so():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import qkd_qiskit.cli as cli; "
    code += "sys.exit(cli.main(['doctor', '--json']))"
    source = str(Path(qkd_qiskit.__file__).parent.parent)
    command = [sys.executable, "-I", "-S", "-c", code, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    found = {line["name"]: line for line in json.loads(done.stdout)}
    assert found["torch"]["text"] == "not installed: pip install torch"
    assert found["kernel"]["text"].startswith("No module named ")
    assert found["account"]["state"] == "problem"


def test_it_is_a_table(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "0 problems" in shown
    assert "torch" in shown


def test_python_m_is_the_command():
    command = [sys.executable, "-m", "qkd_qiskit", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.startswith("qkd ")
