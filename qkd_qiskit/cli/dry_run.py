"""What `qkd submit --dry-run` shows."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING

from qkd_qiskit.cli.output import console

if TYPE_CHECKING:
    from qkd_qiskit.experiments.submission import Budget


def show_budget(budget: Budget, options: Namespace, *, rate: float | None) -> int:
    """Show what is planned beside the alternatives; returns the exit status."""
    from rich.table import Table

    if options.json:
        print(json.dumps(budget.as_dict(rate=rate), indent=2))
        return 0
    if options.quiet:
        return 0
    heads = ["jobs", "PUBs", "circuits", "shots", "executions", "2-qubit gates", "QPU s"]
    table = Table(title=f"nothing is sent; on {budget.device} this would be")
    table.add_column("")
    for head in [*heads, *(["money"] if rate is not None else [])]:
        table.add_column(head, justify="right")
    for place, one in enumerate((budget.chosen, *budget.others)):
        numbers = (one.jobs, one.pubs, one.circuits, one.shots, one.executions, one.two_qubit_gates)
        money = one.money(rate)
        table.add_row(
            one.what if place == 0 else f"or {one.what}",
            *(f"{number:,}" for number in numbers),
            f"{one.seconds:,.1f}",
            *([] if money is None else [f"{money:,.2f}"]),
            style="bold" if place == 0 else "",
            end_section=place == 0,
        )
    screen = console()
    screen.print(table)
    lines = [
        f"circuit: {budget.qubits} qubits, {budget.two_qubit_gates} two-qubit gates, depth "
        f"{budget.depth}, {1e6 * budget.duration_s:.2f} us on {budget.device}"
        + (f", calibrated {budget.calibration_date}" if budget.calibration_date else ""),
        *(part for part in [budget.note] if part),
        f"estimate, by IBM's model of a job's usage: {budget.chosen.formula}",
    ]
    if budget.chosen.wait_seconds:
        lines.append(
            "a session is billed while it is open: what the device waits for this computer counts"
        )
    for line in lines:
        screen.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0
