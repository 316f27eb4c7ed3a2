"""Runs on IBM Quantum: their cost, students evaluated and trained on a device, and collected.

plan_dry_run     what it will cost; nothing is sent
submit_run      trained students on a device
begin_training  a new run whose students are trained on a device
collect_run     what was begun, brought to its end
"""

from qkd_qiskit.experiments.submission.dry_run import DryRun, plan_dry_run
from qkd_qiskit.experiments.submission.request import Request, Training
from qkd_qiskit.experiments.submission.submit import (
    SubmittedRun,
    begin_training,
    collect_run,
    submit_run,
)

__all__ = [
    "DryRun",
    "Request",
    "SubmittedRun",
    "Training",
    "begin_training",
    "collect_run",
    "plan_dry_run",
    "submit_run",
]
