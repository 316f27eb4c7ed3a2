"""What is said of a fault holds no secret."""

import pytest

from qkd_qiskit.targets.ibm.service_errors import ServiceError, hide, scrub

SECRET = "not-a-real-token"
CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/0123abcd:4567-89ef::"


class TestScrub:
    @pytest.mark.parametrize(
        "text",
        [
            f"key {SECRET}.",
            f"in {CRN}, or",
            f"at /instances/{CRN.replace(':', '%3A').replace('/', '%2F')}/x",
            "Authorization: Bearer abc.def-ghi_jkl",
            "apikey AbCdEfGh",
            "token=AbCdEfGh12",
            "api_key: AbCdEfGh12",
            "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2QT4",
        ],
    )
    def test_no_secret_is_left(self, text, monkeypatch):
        monkeypatch.setenv("QISKIT_IBM_TOKEN", SECRET)
        found = scrub(text)
        for secret in (SECRET, CRN[8:], "abc.def", "AbCdEfGh", "eyJ", "0123abcd"):
            assert secret not in found
        assert "..." in found

    def test_the_rest_stays_in_one_line(self):
        assert (
            scrub("job d12\n failed: token of the account")
            == "job d12 failed: token of the account"
        )
        assert len(scrub("x" * 1000)) == 304

    def test_what_is_hidden_stays_hidden(self):
        hide("a-saved-token", None, "short")
        assert scrub("with a-saved-token, short") == "with ..., short"
        assert str(ServiceError("server", f"at {CRN}")) == "at crn:..."


@pytest.mark.parametrize(
    ("kind", "passes"),
    [("busy", True), ("network", True), ("refused", False), ("unauthorized", False)],
)
def test_some_faults_may_pass(kind, passes):
    assert ServiceError(kind, "").transient is passes
