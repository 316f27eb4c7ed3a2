"""What goes wrong between here and a service, in words without its secrets."""

import os
import re
from typing import Literal

ServiceErrorKind = Literal[
    "busy",
    "full",
    "server",
    "network",
    "missing",
    "unauthorized",
    "refused",
    "no_sessions",
    "closed",
]
TRANSIENT: frozenset[ServiceErrorKind] = frozenset({"busy", "full", "server", "network", "missing"})
"""Kinds that may pass."""

_SECRETS = [
    (re.compile(r"(?i)crn(?::|%3A)[^\s'\",;)\]}]*"), "crn:..."),
    (re.compile(r"(?i)\b(bearer|apikey)\s+[\w.+/~-]+=*"), r"\1 ..."),
    (re.compile(r"(?i)\b(api[_ ]?key|token)\s*[=:]\s*[\w.+/~-]+=*"), r"\1: ..."),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+(\.[\w-]*)?"), "..."),
]
_CREDENTIALS = ("QISKIT_IBM_TOKEN", "QISKIT_IBM_INSTANCE")
_LONGEST = 300


class ServiceError(Exception):
    """A failure that a service answers with, or its silence; the text holds no secret.

    Attributes:
        kind: Busy (429), full (too many jobs wait or run), server (5xx, unreadable), network (no
            answer), missing (404), unauthorized (401, 403, no token), refused (other 4xx),
            no_sessions (the plan has none), closed (the session takes no more jobs).
        retry_after: Seconds that the service asks to wait, or None.
    """

    def __init__(self, kind: ServiceErrorKind, text: str, *, retry_after: float | None = None):
        super().__init__(scrub(text))
        self.kind, self.retry_after = kind, retry_after

    @property
    def transient(self) -> bool:
        """Whether it may pass."""
        return self.kind in TRANSIENT


_hidden: set[str] = set()


def hide(*secrets: str | None) -> None:
    """Take note of texts that `scrub` removes, such as the token of a saved account."""
    _hidden.update(secret for secret in secrets if secret and len(secret) >= 8)


def scrub(text: str) -> str:
    """Return a text in one line, cut to 300 characters, without tokens and resource names."""
    given = (os.environ.get(name, "") for name in _CREDENTIALS)
    for secret in sorted({*_hidden, *(word for word in given if len(word) >= 8)}, key=len)[::-1]:
        text = text.replace(secret, "...")
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
