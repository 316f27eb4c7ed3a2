"""Runs on IBM Quantum: their cost, students evaluated and trained on a device, and collected.

plan_budget     what it will cost; nothing is sent
submit_run      trained students on a device
begin_training  a new run whose students are trained on a device
collect_run     what was begun, brought to its end
"""

from qkd_qiskit.experiments.submission.dry_run import Budget, plan_budget
from qkd_qiskit.experiments.submission.request import Request, Training
from qkd_qiskit.experiments.submission.submit import (
    Outcome,
    begin_training,
    collect_run,
    submit_run,
)

__all__ = [
    "Budget",
    "Outcome",
    "Request",
    "Training",
    "begin_training",
    "collect_run",
    "plan_budget",
    "submit_run",
]
