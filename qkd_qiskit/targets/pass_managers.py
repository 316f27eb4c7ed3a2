"""Qiskit's preset pass managers, made without loading the client of IBM Quantum.

Qiskit loads every transpiler plugin that is installed before it looks which one is asked for. That
of qiskit-ibm-runtime loads the whole client, more than a second of CPU, and is asked for by
backends alone: for a device's description Qiskit takes its own stages.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any

from qiskit.transpiler import PassManager, generate_preset_pass_manager
from stevedore import ExtensionManager

_CLIENT = "qiskit_ibm_runtime"
_GROUP = "qiskit.transpiler.translation"
_lock = threading.RLock()


def preset_pass_manager(**options: Any) -> PassManager:
    """Return `generate_preset_pass_manager(**options)`, of a description and not of a backend."""
    with _without_client():
        return generate_preset_pass_manager(**options)


@contextmanager
def _without_client() -> Iterator[None]:
    """Hide the client's plugin from Qiskit, unless the client is loaded already."""
    with _lock:
        listed = ExtensionManager.ENTRY_POINT_CACHE
        if _CLIENT in sys.modules or _GROUP in listed:
            yield
            return
        others = [
            entry for entry in entry_points(group=_GROUP) if not entry.module.startswith(_CLIENT)
        ]
        listed[_GROUP] = others
        try:
            yield
        finally:
            del listed[_GROUP]
