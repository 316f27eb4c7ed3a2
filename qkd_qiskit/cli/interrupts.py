"""Signals that end a command as Ctrl-C does: what runs is left resumable, a session is closed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NAMES = ("SIGTERM", "SIGHUP")  # a scheduler or `kill`, and a terminal that is closed


class Interrupts:
    """What has interrupted a command.

    Attributes:
        number: The signal; SIGINT before one came.
    """

    def __init__(self) -> None:
        self.number: int = signal.SIGINT

    @property
    def status(self) -> int:
        """The exit status that shells give a command that this signal ended: 128 + its number."""
        return 128 + self.number

    def raise_interrupt(self, number: int, frame: Any) -> None:
        """Raise KeyboardInterrupt; a handler of signals."""
        self.number = number
        raise KeyboardInterrupt


@contextmanager
def as_interrupts() -> Iterator[Interrupts]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt, as SIGINT does, until the context ends.

    A signal that is ignored, as by `nohup`, stays so. In another thread than the main one, which
    receives no signals, nothing is changed.
    """
    interrupts = Interrupts()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, interrupts.raise_interrupt)
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
