"""The installed client is one of those that were tested; of another it is said what to do."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from qiskit_ibm_runtime.quantum_program.params_converters import QUANTUM_PROGRAM_PARAMS_CONVERTERS

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.ibm import client_version
from qkd_qiskit.targets.ibm.client_version import (
    ACCEPTED,
    PACKAGE,
    SCHEMA,
    schema_fault,
    sent_schema,
    version_fault,
)
from qkd_qiskit.targets.ibm.emulator import ServiceEmulator


def test_the_cap_is_that_of_the_package():
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert re.findall(rf'^ +"({PACKAGE}.*)",', project, re.MULTILINE) == [ACCEPTED]


def test_the_installed_client_sends_what_a_rehearsal_decodes():
    assert sent_schema() == SCHEMA
    assert version_fault() is None
    assert schema_fault() is None


def test_the_schemas_of_the_installed_client():
    """Another list means that the client has moved: read its notes, and what it sends, first."""
    assert list(QUANTUM_PROGRAM_PARAMS_CONVERTERS) == ["v0.1", "v0.2", "v1.0", "v1.1", "v2.0"]
    assert list(QUANTUM_PROGRAM_PARAMS_CONVERTERS)[-1] == SCHEMA


@pytest.mark.parametrize("installed", ["0.51.0", "0.51.3", "0.51.0rc1"])
def test_versions_that_were_tested(installed):
    assert version_fault(installed) is None


@pytest.mark.parametrize("installed", ["0.50.0", "0.52.0", "0.60.1", "1.0.0", "0.52.dev0+g1"])
def test_versions_that_were_not(installed):
    assert version_fault(installed) == (
        f"{PACKAGE} {installed} was not tested with this package: jobs may be sent twice or lost, "
        f"so rehearse first (qkd targets rehearse), or pip install '{ACCEPTED}'"
    )


def test_a_client_that_sends_another_schema_is_refused_at_the_start(monkeypatch):
    monkeypatch.setattr(client_version, "sent_schema", lambda: "v3.0")
    with pytest.raises(TargetError, match=r"sends programs of schema v3\.0") as caught:
        ServiceEmulator("fake_manila").start()
    assert f"pip install '{ACCEPTED}'" in str(caught.value)
    assert version(PACKAGE) in str(caught.value)
