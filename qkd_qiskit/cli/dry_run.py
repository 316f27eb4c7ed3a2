"""What `qkd submit --dry-run` shows."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING

from qkd_qiskit.cli.output import say, show_table

if TYPE_CHECKING:
    from qkd_qiskit.experiments.submission import DryRun


def show_dry_run(plan: DryRun, options: Namespace, *, rate: float | None) -> int:
    """Show what is planned beside the alternatives; return the exit status."""
    from rich.table import Table

    if options.json:
        print(json.dumps(plan.as_dict(rate=rate), indent=2))
        return 0
    if options.quiet:
        return 0
    heads = ["jobs", "PUBs", "circuits", "shots", "executions", "2-qubit gates", "QPU s"]
    table = Table(title=f"nothing is sent; on {plan.device} this would be")
    table.add_column("")
    for head in [*heads, *(["money"] if rate is not None else [])]:
        table.add_column(head, justify="right")
    for index, work in enumerate((plan.chosen, *plan.others)):
        names = ("jobs", "pubs", "circuits", "shots", "executions", "two_qubit_gates")
        money = work.money(rate)
        table.add_row(
            f"or {work.what}" if index else work.what,
            *(f"{getattr(work, name):,}" for name in names),
            f"{work.seconds:,.1f}",
            *([] if money is None else [f"{money:,.2f}"]),
            style="" if index else "bold",
            end_section=not index,
        )
    show_table(table)
    lines = [
        f"circuit: {plan.qubits} qubits, {plan.two_qubit_gates} two-qubit gates, depth "
        f"{plan.depth}, {1e6 * plan.duration_s:.2f} us on {plan.device}"
        + (f", calibrated {plan.calibration_date}" if plan.calibration_date else ""),
        *(part for part in [plan.note] if part),
        *(f"options: {part}" for part in [plan.options] if part),
        f"estimate, by IBM's model of a job's usage: {plan.chosen.formula}",
    ]
    if plan.unlabelled:
        lines.append(
            f"of the circuits, {plan.unlabelled * plan.members:,} are of {plan.unlabelled} "
            "unlabelled images, to recalibrate with"
        )
    limits = plan.limits.describe()
    if limits:
        minutes = plan.limits.creation_s(plan.chosen.jobs) / 60
        created = f"; {plan.chosen.jobs:,} jobs take {minutes:.0f} minutes or more to be created"
        lines.append(f"limits of the service: {limits}{created if minutes else ''}")
    left = plan.allowance.describe(plan.chosen.seconds)
    if left:
        lines.append(left)
    if plan.chosen.wait_seconds:
        lines.append(
            "a session is billed while it is open: what the device waits for this computer counts; "
            "it is closed while the limits of the service make it wait"
        )
    for line in lines:
        say(line)
    return 0
