"""Arms of your own: a built-in arm with other values of student and distill."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qkd_qiskit.recipe.arms import ARMS, COUNTING_BASELINE, TREATMENT, Arm
from qkd_qiskit.recipe.display import Style
from qkd_qiskit.recipe.validation import require, shown

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_FOLDERS = ("bench", "certify", "checkpoints", "devices", "teachers", "tuning")
_CHANGED = ("student", "distill")
_TAUGHT = ("distilled", "teacher_only", "logits_only")  # losses with the teacher's logits


def own_arm(name: str, given: Mapping[str, Any]) -> Arm:
    """Return an arm of your own: a base, and values by dotted key that it changes.

    Args:
        name: Its name, also of its folder in a run.
        given: `base` (default: distilled), the keys of student and distill that it changes, such
            as `distill.temperature`, or as a tree, `distill: {temperature: 2.0}`, `taught_by`, the
            arm whose students teach it, and `grown_from`, the arm with fewer layers whose trained
            students it begins as.

    Raises:
        RecipeError: The name is taken or no name, the base is unknown, nothing is changed, or a key
            is changed that all arms of a run share.
    """
    key = f"own_arms.{name}"
    require(
        _NAME.fullmatch(name) is not None and name not in (*ARMS, *_FOLDERS, COUNTING_BASELINE),
        "own_arms",
        name,
        "a name of small letters, digits and _ that no built-in arm or folder of a run has",
    )
    changes = _dotted(given)
    base = changes.pop("base", TREATMENT)
    bases = [known for known, arm in ARMS.items() if not (arm.began or arm.recalibrated)]
    require(base in bases, f"{key}.base", base, f"one of {', '.join(bases)}")
    taught_by = changes.pop("taught_by", ARMS[base].taught_by)
    learns = ARMS[base].loss in _TAUGHT and ARMS[base].targets != "untrained"
    learns = learns and not ARMS[base].tuned  # which is tuned before any student is trained
    require(
        taught_by is None or (isinstance(taught_by, str) and taught_by != name and learns),
        f"{key}.taught_by",
        taught_by,
        "the name of another arm of the run, with a base that learns from the teacher's logits",
    )
    grown_from = changes.pop("grown_from", None)
    require(
        grown_from is None
        or (isinstance(grown_from, str) and grown_from != name and "student.layers" in changes),
        f"{key}.grown_from",
        grown_from,
        "the name of another arm of the run, and student.layers",
    )
    shared = [changed for changed in changes if changed.partition(".")[0] not in _CHANGED]
    require(
        not shared,
        f"{key}.{shared[0] if shared else ''}",
        changes[shared[0]] if shared else None,
        "keys of student and distill: the arms of a run share everything else, or could not be "
        "compared",
    )
    taught = taught_by != ARMS[base].taught_by
    require(len(changes) + taught > 0, key, dict(given), "at least one key that the arm changes")
    values = ", ".join(f"{changed} {shown(value)}" for changed, value in changes.items())
    values += f"{', ' if values else ''}taught by {taught_by}" if taught else ""
    values += f", grown from {grown_from}" if grown_from else ""
    placed = {"distill.gradient", "distill.train_target"} & changes.keys()
    return replace(
        ARMS[base],
        label=name.replace("_", " "),
        description=f"{ARMS[base].label} with {values}",
        train_target=None if placed else ARMS[base].train_target,
        before=None,
        taught_by=taught_by,
        grown_from=grown_from,
        control=False,
        compared_with=tuple(
            dict.fromkeys((COUNTING_BASELINE, base, *([taught_by] if taught_by else ())))
        ),
        population=f"students of {name}",
        style=Style(),
        base=base,
        changes=dict(ARMS[base].changes) | changes,
    )


def _dotted(given: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in given.items():
        if key in _CHANGED and isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": item for inner, item in value.items()}
        else:
            flat[key] = value
    return flat
