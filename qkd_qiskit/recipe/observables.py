"""Observables as text: sums of Pauli strings, such as `ZZII` or `0.5*ZIII - 0.5*IZII`."""

from __future__ import annotations

import math
import re

_TERM = re.compile(
    r"(?P<sign>[+-]?)(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\*)?(?P<letters>[IXYZ]+)"
)
_LONGEST = 10_000  # letters of one observable


def read_pauli_sum(text: str) -> list[tuple[str, float]] | None:
    """Return the Pauli strings of a sum with their coefficients, or None where it is none.

    A string has one letter, I, X, Y or Z, for each qubit; qubit 0 is its last, as in Qiskit.

    Args:
        text: Terms with + or - between them, each a string or NUMBER*STRING; spaces do not count.
    """
    rest, terms = "".join(text.split()), list[tuple[str, float]]()
    if len(rest) > _LONGEST:
        return None
    while rest:
        match = _TERM.match(rest)
        if match is None or (terms and not match["sign"]):
            return None
        coefficient = float(match["number"] or 1) * (-1 if match["sign"] == "-" else 1)
        terms.append((match["letters"], coefficient))
        rest = rest[match.end() :]
    lengths = {len(letters) for letters, _ in terms}
    finite = all(math.isfinite(coefficient) for _, coefficient in terms)
    return terms if len(lengths) == 1 and finite else None


def write_pauli_sum(terms: list[tuple[str, float]]) -> str:
    """Return Pauli strings with their coefficients as text that `read_pauli_sum` reads back."""
    text = "".join(
        f"{'-' if math.copysign(1, number) < 0 else '+'}"
        f"{'' if abs(number) == 1 else f'{abs(number)!r}*'}{letters}"
        for letters, number in terms
    )
    return text.removeprefix("+")
