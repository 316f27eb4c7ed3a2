"""What an instance has left of its QPU seconds, as `service.usage()` tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from qkd_qiskit.targets.ibm.usage import seconds_of


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What an instance has left of its QPU seconds.

    Attributes:
        limit_s: QPU seconds of the period; None = not limited, or not said.
        remaining_s: What is left of them.
        until: ISO date on which the period ends; None = not said, or the period rolls on.
    """

    limit_s: float | None = None
    remaining_s: float | None = None
    until: str | None = None

    def describe(self, needed_s: float | None = None) -> str:
        """Return it in words, beside what is needed; "" where nothing is limited."""
        if self.remaining_s is None:
            return ""
        whole = "" if self.limit_s is None else f" of {self.limit_s:,.0f}"
        until = "" if self.until is None else f" until {self.until}"
        text = f"the instance has {self.remaining_s:,.0f}{whole} QPU seconds left{until}"
        if needed_s is not None and needed_s > self.remaining_s:
            text += (
                f", and {needed_s:,.0f} are needed: jobs that do not fit wait until it has more "
                "(qkd plan RUN --qpu-seconds finds what fits)"
            )
        return text


def read_allowance(usage: Mapping[str, Any]) -> Allowance:
    """Return what the answer of `service.usage()` says of QPU seconds."""

    def number(*names: str) -> float | None:
        given = next((usage[name] for name in names if usage.get(name) is not None), None)
        return seconds_of(given, of="the instance")

    limit = number("usage_limit_seconds", "usage_allocation_seconds")
    remaining = number("usage_remaining_seconds")
    if remaining is None and limit is not None:
        remaining = max(0.0, limit - (number("usage_consumed_seconds") or 0.0))
    period = usage.get("usage_period")
    end = period.get("end_time") if isinstance(period, Mapping) else None
    until = str(end)[:10] if limit is not None and end else None
    if until is not None and until <= date.today().isoformat():
        until = None  # the last 28 days, as they roll on
    return Allowance(limit_s=limit, remaining_s=remaining, until=until)
