"""What the values of a recipe are checked with.

Raises RecipeError in one line: the key, what was given, what is accepted.
"""

from __future__ import annotations

import math

from qkd_qiskit.errors import RecipeError

MAX_LR = 1e30  # what comes near the largest 32-bit number overflows in the optimizer


def require(condition: bool, key: str, given: object, accepted: str) -> None:
    """Refuse what was given for a key, and say what is accepted."""
    if not condition:
        raise RecipeError(f"{key}: {given!r} is not accepted; give {accepted}")


def positive(key: str, value: float) -> None:
    """Accept finite numbers above 0."""
    require(math.isfinite(value) and value > 0, key, value, "a number above 0")


def learning_rate(key: str, value: float) -> None:
    """Accept numbers above 0 that an optimizer can use."""
    require(0 < value <= MAX_LR, key, value, f"a number above 0, at most {MAX_LR}")


def at_least(key: str, value: int, least: int) -> None:
    """Accept whole numbers from `least`."""
    require(value >= least, key, value, f"a whole number of at least {least}")
