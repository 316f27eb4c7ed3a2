"""The private names that guards rest on are there, in the versions that are installed."""

import inspect
import logging
from types import SimpleNamespace

import pytest
from qiskit_aer import noise as aer_noise
from qiskit_aer.noise.device import basic_device_gate_errors, basic_device_readout_errors
from qiskit_ibm_runtime import Batch, Session
from qiskit_ibm_runtime.api import auth

from qkd_qiskit.targets.ibm import client_internals
from qkd_qiskit.targets.ibm.account import real_backend
from qkd_qiskit.targets.ibm.client_internals import (
    RAW_KEY_WARNING,
    clients_of,
    instance_of,
    instances_with_devices,
    known_session,
    send_once,
)


@pytest.fixture(autouse=True)
def nothing_missing_yet(monkeypatch):
    monkeypatch.setattr(client_internals, "_missing", set())


def test_the_installed_client_has_every_name(rehearsal, caplog):
    server = rehearsal()
    with caplog.at_level(logging.WARNING):
        backend = real_backend("ibm_manila")
        account = backend.service
        (instance,) = clients_of(account)
        assert instances_with_devices(account) == {instance} == {instance_of(backend)}
        transport = clients_of(account)[instance]._session
        for kind in (Session, Batch):
            session = known_session(kind, "abc", backend=backend)
            assert session.session_id == "abc"
    assert "has no" not in caplog.text
    assert not server.ledger.sessions
    assert transport._timeout == (10.0, 120.0)
    assert {adapter.max_retries.total for adapter in transport.adapters.values()} == {0}
    # Both are used by name, where the transport sends.
    assert "self._timeout" in inspect.getsource(type(transport))


def test_the_installed_client_warns_in_the_words_that_are_looked_for():
    assert RAW_KEY_WARNING in inspect.getsource(auth)


def test_the_installed_aer_builds_its_noise_with_the_functions_that_are_used():
    source = inspect.getsource(aer_noise.NoiseModel.from_backend)
    for function in (basic_device_gate_errors, basic_device_readout_errors):
        assert f"{function.__name__}(" in source
    # How a description says that both readout errors differ.
    assert "prob_meas1_prep0" in inspect.getsource(basic_device_readout_errors)


@pytest.mark.parametrize(
    ("read", "name", "lost"),
    [
        (clients_of, "_api_clients", "only one instance"),
        (instances_with_devices, "_backends_info_per_instance", "without devices"),
        (instance_of, "_instance", "the plan that pays"),
        (send_once, "_session", "may send a job twice"),
    ],
)
def test_a_guard_that_cannot_be_applied_says_so_once(read, name, lost, caplog):
    for _ in range(2):
        assert not read(SimpleNamespace())
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"SimpleNamespace.{name}: " in record.getMessage()
    assert lost in record.getMessage()


def test_a_session_without_the_private_name_is_asked_for_in_the_public_way():
    class Renamed:
        def __init__(self, *, backend, create_new):
            assert not create_new

        @staticmethod
        def from_id(session_id, *, service):
            return session_id, service

    backend = SimpleNamespace(service="service")
    assert known_session(Renamed, "abc", backend=backend) == ("abc", "service")
