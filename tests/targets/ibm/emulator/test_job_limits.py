"""What a rehearsal refuses when it enforces limits, as the true client sees it."""

from types import SimpleNamespace

import pytest

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.ibm.client import service_error_of
from qkd_qiskit.targets.ibm.emulator import ServiceEmulator
from qkd_qiskit.targets.ibm.emulator.job_limits import JobLimits
from qkd_qiskit.targets.ibm.emulator.sessions import Refused
from qkd_qiskit.targets.ibm.service_limits import UNLIMITED, ServiceLimits


def test_the_sixth_request_in_a_minute():
    limits = JobLimits(ServiceLimits.of_plan("premium"))
    for _ in range(5):
        limits.check(pending=99)
    with pytest.raises(Refused, match="limit is 5 per 60 seconds") as caught:
        limits.check(pending=0)
    assert (caught.value.status, caught.value.code, limits.refused) == (429, 1202, 1)


def test_the_fourth_pending_job():
    limits = JobLimits(ServiceLimits.of_plan("open"))
    limits.check(pending=2)
    with pytest.raises(Refused, match="limit of 3 pending jobs"):
        limits.check(pending=3)


@pytest.mark.parametrize(
    ("given", "plan", "enforced"),
    [
        (False, "open", UNLIMITED),
        (True, "open", ServiceLimits(jobs=5, pending=3)),
        (True, "premium", ServiceLimits(jobs=5)),
        (ServiceLimits(jobs=1, window_s=2.0), "open", ServiceLimits(jobs=1, window_s=2.0)),
    ],
)
def test_what_is_enforced(given, plan, enforced):
    assert ServiceEmulator("fake_manila", plan=plan, limits=given).limits.limits == enforced


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (429, "Too many job creation requests received: limit is 5 per 60 seconds.", "busy"),
        (429, "You have reached the limit of 3 pending jobs.", "full"),
        (400, "You have reached the limit of 3 pending jobs.", "full"),
        (400, "Something else.", "refused"),
        (503, "pending jobs cannot be counted", "server"),
    ],
)
def test_what_an_answer_means(status, message, kind):
    answer = {"errors": [{"code": 1, "message": message}]}
    error = TargetError("outer")
    error.response = SimpleNamespace(status_code=status, headers={}, json=lambda: answer)
    assert service_error_of(error).kind == kind
