"""Which versions of qiskit-ibm-runtime this package was tested with, and the schema that they send.

The guards of `client_internals` read names that the client does not promise to keep, and a
rehearsal decodes the programs that it sends: both can break with any of its minor versions, so that
pyproject.toml has a tight cap on it.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version

PACKAGE = "qiskit-ibm-runtime"
FIRST, NEXT = (0, 51), (0, 52)
"""First version that was tested, and the first that was not."""
ACCEPTED = f"{PACKAGE}>={FIRST[0]}.{FIRST[1]},<{NEXT[0]}.{NEXT[1]}"
SCHEMA = "v2.0"
"""The schema of executor programs that a rehearsal understands: that of these versions."""


def version_fault(installed: str | None = None) -> str | None:
    """Return what is to be known of a client that was not tested, or None.

    Args:
        installed: Its version; default: that which is installed.
    """
    found = version(PACKAGE) if installed is None else installed
    parts = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if FIRST <= parts < NEXT:
        return None
    return (
        f"{PACKAGE} {found} was not tested with this package: jobs may be sent twice or lost, so "
        f"rehearse first (qkd targets rehearse), or pip install '{ACCEPTED}'"
    )


def schema_fault(sent: str | None = None) -> str | None:
    """Return why a rehearsal cannot serve the installed client, or None.

    Args:
        sent: The schema of the programs that it sends; default: what it says itself.
    """
    found = sent_schema() if sent is None else sent
    if found in (None, SCHEMA):
        return None
    return (
        f"{PACKAGE} {version(PACKAGE)} sends programs of schema {found}, and a rehearsal "
        f"understands {SCHEMA}: pip install '{ACCEPTED}', or a newer qkd-qiskit"
    )


def sent_schema() -> str | None:
    """Return the schema of what the installed client sends; None where it does not say."""
    executor = getattr(import_module("qiskit_ibm_runtime.executor.executor"), "Executor", None)
    found: str | None = getattr(executor, "_SCHEMA_VERSION", None)
    return found
