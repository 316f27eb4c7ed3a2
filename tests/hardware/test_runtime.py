"""The account: what is said where there is none, and that nothing secret is repeated."""

import pytest
import qiskit_ibm_runtime
from qiskit.providers.exceptions import QiskitBackendNotFoundError
from qiskit_ibm_runtime.accounts.exceptions import AccountNotFoundError, InvalidAccountError

from qkd_qiskit.errors import TargetError
from qkd_qiskit.hardware.runtime import real_backend

SECRET = "not-a-real-token"


class Named:
    target = None

    def __init__(self, name):
        self.name = name


class Service:
    def backend(self, name):
        if name == "ibm_torino":
            return Named(name)
        raise QiskitBackendNotFoundError("No backend matches the criteria.")

    def backends(self):
        return [Named("ibm_torino"), Named("ibm_fez")]


def raising(error):
    def service():
        raise error

    return service


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AccountNotFoundError("none"), "needs an IBM Quantum account and none is saved here"),
        (InvalidAccountError(f"token {SECRET}"), r"cannot be used \(InvalidAccountError\)"),
    ],
)
def test_an_account_that_is_missing_or_refused_is_one_line(error, said, monkeypatch):
    monkeypatch.setattr(qiskit_ibm_runtime, "QiskitRuntimeService", raising(error))
    with pytest.raises(TargetError, match=said) as caught:
        real_backend("ibm_torino")
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or SECRET not in str(caught.value.__cause__)


def test_a_device_is_found_or_near_names_are_given(monkeypatch):
    monkeypatch.setattr(qiskit_ibm_runtime, "QiskitRuntimeService", Service)
    assert real_backend("ibm_torino").name == "ibm_torino"
    with pytest.raises(TargetError, match=r"no device 'ibm_torin'; it has ibm_torino"):
        real_backend("ibm_torin")
