"""Tables and lines of `qkd runs`; they fit a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from qkd_qiskit.experiments.result_tables import gain_text, mean_text
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_list import RunSummary, recipe_name
from qkd_qiskit.experiments.side_by_side import Difference, SideBySide
from qkd_qiskit.experiments.statistics import Gain
from qkd_qiskit.report.text import making
from qkd_qiskit.run import Run

_STATES = {"finished": "done", "unfinished": "open", "damaged": "damaged"}
_MOST_NAMED = 12  # seeds


def list_table(runs: Sequence[RunSummary], *, root: str) -> Table:
    """Return the runs, one a row."""
    table = _table(title=f"runs in {root}")
    for name in ("run", "recipe"):
        table.add_column(name, overflow="fold")
    for name in ("seeds", "arms", "gain, points"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("date", "state"):
        table.add_column(name, no_wrap=True)
    for run in runs:
        known = run.state != "damaged"
        table.add_row(
            _below(run, root),
            run.recipe,
            str(run.seeds) if known else "",
            str(len(run.arms)) if known else "",
            "" if run.gain is None else gain_text(run.gain),
            run.date,
            _STATES[run.state],
        )
    return table


def run_facts(run: Run) -> dict[str, str]:
    """Return what a run is and how it was made: name -> text."""
    recipe, result = run.recipe, run.folder.result
    seeds, name = recipe.member_seeds, recipe_name(result)
    which = ", ".join(map(str, seeds[:_MOST_NAMED])) + (", ..." if len(seeds) > _MOST_NAMED else "")
    data, spec = recipe.data, recipe.student
    per_class, drawn = data.train_per_class, data.train_points
    labels = f"{drawn} labels" if drawn else f"{per_class} labels per class" if per_class else "all"
    built = spec.circuit or f"{spec.encoding}, {spec.ansatz}, {spec.layers} layers"
    facts = {
        "run": f"{run.path}" + (f", from {name}" if name else ""),
        "state": "finished" if result is not None else _unfinished(run),
        "data": f"{data.name}, {labels}" if labels != "all" else f"{data.name}, all labels",
        "teacher": recipe.teacher.kind + (", of the same draw" if recipe.teacher.same_draw else ""),
        "student": f"{spec.kind}, {spec.qubits} qubits, {built}",
        "seeds": f"{len(seeds)} ({which})",
        "arms": ", ".join(recipe.arms),
        "targets": ", ".join(recipe.targets if result is None else result.targets),
    }
    if run.folder.result is None and run.folder.earlier:
        facts["state"] += f"; {len(run.folder.earlier)} students are from before the extension"
    made = making(run.provenance) or {"made": "by a version that did not keep when and where"}
    return facts | made


def comparison_tables(found: SideBySide) -> list[Table]:
    """Return what differs in the recipes, accuracies, and what differs between the runs."""
    runs = found.runs
    keys = _table(title="what differs in the recipes")
    keys.add_column("key", overflow="fold")
    for name in runs:
        keys.add_column(name, overflow="fold")
    for key, values in found.recipes.items():
        keys.add_row(key, *(_written(value) for value in values))
    means = _table(title=f"test accuracy in %, mean ± 95 %, on {found.target}")
    means.add_column("arm", overflow="fold")
    for name in runs:
        means.add_column(name, justify="right", overflow="fold")
    for arm in dict.fromkeys(arm for by_arm in found.accuracies.values() for arm in by_arm):
        cells = (found.accuracies[name].get(arm) for name in runs)
        means.add_row(
            arm.replace("_", " "), *("" if it is None else mean_text(it, sign="±") for it in cells)
        )
    gains = _table(title="differences in points, with their 95 % interval")
    gains.add_column("", overflow="fold")
    for name in ("difference", "p (Holm)", "pairs"):
        gains.add_column(name, justify="right", no_wrap=True)
    for entry in found.gains:
        over = f"{entry.arm} - {entry.over_arm}".replace("_", " ")
        gains.add_row(f"{entry.run}: {over}", *_figures(entry))
    if found.gains and found.differences:
        gains.add_section()
    for entry in found.differences:
        arm = entry.arm.replace("_", " ")
        gains.add_row(f"{arm}: {entry.run} - {entry.over_run}", *_figures(entry))
    shown = [means, gains] if found.gains or found.differences else [means]
    return [keys, *shown] if found.recipes else shown


def pairing_lines(found: SideBySide) -> list[str]:
    """Return what has to be known to read a comparison."""
    tests = sum(entry.p is not None for entry in (*found.gains, *found.differences))
    lines = [] if found.recipes else ["the recipes are equal"]
    lines += [
        f"{name} was tested on other images than {found.runs[0]}: not paired, Welch's t test"
        for name, same in zip(found.runs, found.same_test_set, strict=True)
        if not same
    ]
    unpaired = {it.run for it in found.differences if not it.paired}
    lines += [
        f"{name} shares fewer than two seeds with {found.runs[0]}: not paired, Welch's t test"
        for name, same in zip(found.runs, found.same_test_set, strict=True)
        if same and name in unpaired
    ]
    return [
        *lines,
        f"p is corrected by Holm's method for the {tests} test{'s' * (tests != 1)} shown",
    ]


def accuracy_table(results: Mapping[str, Result]) -> Table:
    """Return mean accuracies of several runs, a run and arm a row."""
    targets = list(dict.fromkeys(key for result in results.values() for key in result.targets))
    table = _table(title="test accuracy in %, mean ± half of its 95 % interval")
    table.add_column("run", overflow="fold")
    table.add_column("arm", overflow="fold")
    table.add_column("seeds", justify="right")
    for name in targets:
        table.add_column(name, justify="right", overflow="fold")
    for name, result in results.items():
        for arm, metrics in result.arms.items():
            cells = (
                mean_text(result.accuracies(arm, key, result.kept_rows(arm, target=key)), sign="±")
                if key in metrics
                else ""
                for key in targets
            )
            table.add_row(name, arm.replace("_", " "), str(len(result.seeds)), *cells)
        table.add_section()
    return table


def _table(*, title: str) -> Table:
    return Table(
        title=title,
        min_width=len(title),  # or the title is broken
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title_justify="left",
    )


def _below(run: RunSummary, root: str) -> str:
    try:
        name = str(run.path.relative_to(root))
    except ValueError:
        name = str(run.path)
    return run.path.absolute().name if name == "." else name


def _written(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "null" if value is None else str(value)


def _figures(entry: Difference) -> list[str]:
    gain = Gain(mean=entry.mean, ci95=entry.ci95, seeds=entry.seeds)
    p = entry.p_holm
    return [
        gain_text(gain),
        "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}",
        str(entry.seeds) if entry.paired else "unpaired",
    ]


def _unfinished(run: Run) -> str:
    weights = [run.folder.member(*member) / "weights.safetensors" for member in run.folder.members]
    done = sum(path.exists() for path in weights)
    return (
        f"unfinished, {done} of {len(weights)} students trained; "
        f"to continue: qkd distill --resume {run.path}"
    )
