import shutil

import pytest

from qkd_qiskit.experiments.run_folder import RunFolder


@pytest.fixture
def run_copy(finished, tmp_path):
    """A copy of a finished run: two arms and a twin, two seeds, 10 test images, 50 shots."""
    shutil.copytree(finished.path, tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


@pytest.fixture(autouse=True)
def _no_account(monkeypatch, tmp_path):
    """Keep the user's account, and a rehearsal of theirs, out of the tests."""
    for name in ("QISKIT_IBM_TOKEN", "QISKIT_IBM_INSTANCE", "QKD_RUNTIME_URL", "IAM_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        "qiskit_ibm_runtime.qiskit_runtime_service.QiskitRuntimeService.saved_accounts",
        staticmethod(lambda *_, **__: {}),
    )
    monkeypatch.setattr(
        "qiskit_ibm_runtime.accounts.management._DEFAULT_ACCOUNT_CONFIG_JSON_FILE",
        str(tmp_path / "accounts.json"),
    )
