"""The client's own log, which is loud about every fault that is rehearsed."""

import logging

import pytest


@pytest.fixture(scope="module", autouse=True)
def quiet():
    client = logging.getLogger("qiskit_ibm_runtime")
    level = client.level
    client.setLevel(logging.ERROR)
    yield
    client.setLevel(level)
