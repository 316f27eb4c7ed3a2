"""What a session waits between its jobs, which is billed as the jobs are."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from qkd_qiskit.targets.ibm.usage_model import INTERACTIVE_TTL_S


class SessionWaits:
    """Waits between the jobs of sessions, as a journal's lines tell them.

    After a job that leaves none behind: until the end of the next, less its QPU seconds, and at
    most the time after which an idle session is no longer billed.
    """

    def __init__(self) -> None:
        self.of_keys: dict[str, float] = {}
        """Seconds waited before the jobs of each key."""
        self.of_sessions: dict[str, float] = {}
        """Seconds waited in each session, by its id."""
        self._keys: dict[str, str] = {}
        self._session: str | None = None
        self._pending: set[str] = set()
        self._ended: datetime | None = None

    def add(self, entry: Mapping[str, Any]) -> None:
        """Take in a line of the journal."""
        event = entry["event"]
        if event == "session":
            opened = entry["state"] == "opened" and entry["mode"] == "session"
            self._session = str(entry["id"]) if opened else None
            self._ended = None
        elif event == "intent":
            self._keys[entry["tag"]] = entry["key"]
        elif event == "submitted":
            self._pending.add(entry["tag"])
        elif event in ("finished", "failed") and self._session is not None:
            self._pending.discard(entry["tag"])
            now = datetime.fromisoformat(entry["time"])
            if self._ended is not None:
                key = self._keys[entry["tag"]]
                wait = (now - self._ended).total_seconds() - (entry["usage_s"] or 0.0)
                billed = min(max(0.0, wait), INTERACTIVE_TTL_S)
                self.of_keys[key] = self.of_keys.get(key, 0.0) + billed
                self.of_sessions[self._session] = self.of_sessions.get(self._session, 0.0) + billed
            self._ended = None if self._pending else now
