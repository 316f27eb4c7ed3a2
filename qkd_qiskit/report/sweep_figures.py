"""The table and the figures of a sweep: an arm a line, means over its seeds with intervals."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from qkd_qiskit.experiments.arms import executed_spec
from qkd_qiskit.experiments.statistics import mean_interval
from qkd_qiskit.experiments.sweeps import FOLDER, SweepRow, trained_rows
from qkd_qiskit.experiments.trained_run import TrainedRun
from qkd_qiskit.recipe.arms import TREATMENT
from qkd_qiskit.report.figures import arm_colour, arm_style
from qkd_qiskit.report.svg import INK, RULE, SOFT
from qkd_qiskit.report.text import arm_name
from qkd_qiskit.storage import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "accuracy": "test accuracy",
    "divergence": "KL to the teacher (nats)",
    "calibration_error": "calibration error (ECE)",
    "agreement": "agreement with exact",
}
SHARES = ("accuracy", "agreement")
_OTHER_LINE = (0, (6, 1.5, 1, 1.5))
_DODGE = 0.07  # of the distance between two settings, so that intervals do not hide each other

Value = Callable[[SweepRow], Any]


def scale_of(row: SweepRow) -> float:
    """Return the setting of a noise sweep."""
    return row.scale


def shots_of(row: SweepRow) -> int | None:
    """Return the setting of a sweep over shots."""
    return row.shots


def sweep_table(run: TrainedRun, rows: Sequence[SweepRow], *, setting: Value) -> Table:
    """Return mean accuracy with its 95 % half-width: an arm a row, a setting a column."""
    settings = _distinct(rows, setting)
    seeds = len(_distinct(rows, lambda row: row.seed))
    table = Table(
        title=f"test accuracy in %, {rows[0].images} images: mean over {seeds} "
        f"seed{'s' * (seeds > 1)} ± half of the 95 % interval"
    )
    table.add_column("", no_wrap=True)
    for value in settings:
        table.add_column(_heading(value, setting), justify="right")
    for target in _distinct(rows, lambda row: row.target):
        of_target = [row for row in rows if row.target == target]
        table.add_section()
        table.add_row(target, *[""] * len(settings), style="bold")
        for arm in run.recipe.arms:
            groups = _groups(run, of_target, arm=arm, settings=settings, setting=setting)
            texts = [_spread([row.accuracy for row in group]) for group in groups]
            table.add_row(f"  {arm_label(run, arm)}", *texts)
    return table


def summary(
    run: TrainedRun, rows: Sequence[SweepRow], *, setting: Value
) -> list[dict[str, object]]:
    """Return means and 95 % half-widths of all figures, for scripts."""
    lines: list[dict[str, object]] = []
    settings = _distinct(rows, setting)
    for target in _distinct(rows, lambda row: row.target):
        of_target = [row for row in rows if row.target == target]
        for arm in run.recipe.arms:
            groups = _groups(run, of_target, arm=arm, settings=settings, setting=setting)
            for group in filter(None, groups):
                line: dict[str, object] = {"target": target, "arm": arm, "scale": group[0].scale}
                line |= {"shots": group[0].shots, "images": group[0].images, "seeds": len(group)}
                for name in TITLES:
                    mean, half = mean_interval([getattr(row, name) for row in group])
                    line[name] = {"mean": mean, "half_ci95": half}
                lines.append(line)
    return lines


def write_noise_figures(run: TrainedRun, rows: Sequence[SweepRow]) -> list[Path]:
    """Draw figures against the noise scale, and against devices where there are several.

    Returns:
        The files: RUN/bench/noise.png, and devices.png.
    """
    parent = run.path / FOLDER
    targets = _distinct(rows, lambda row: row.target)
    label = "noise, times the device's own"
    files = [_lines_figure(run, rows, setting=scale_of, label=label, path=parent / "noise.png")]
    own = [row for row in rows if row.scale == 1]
    if len(targets) > 1 and own:
        files.append(_devices_figure(run, own, path=parent / "devices.png"))
    return files


def write_shots_figure(run: TrainedRun, rows: Sequence[SweepRow]) -> list[Path]:
    """Draw figures against shots: RUN/bench/shots.png."""
    path = run.path / FOLDER / "shots.png"
    return [_lines_figure(run, rows, setting=shots_of, label="shots per image", path=path)]


def arm_label(run: TrainedRun, arm: str) -> str:
    """Return what an arm is called; one that was trained through noise names the device."""
    if run.recipe.arm_table[arm].train_target is not None:
        return f"{arm_name(TREATMENT)} through {executed_spec(arm, run.recipe).train_target}"
    return arm.replace("_", " ")


def _lines_figure(
    run: TrainedRun, rows: Sequence[SweepRow], *, setting: Value, label: str, path: Path
) -> Path:
    """Draw a row of panels for each target, a panel for each figure."""
    targets, settings = _distinct(rows, lambda row: row.target), _distinct(rows, setting)
    with _canvas(12.6, 0.6 + 2.75 * len(targets)) as figure:
        grid = figure.subplots(len(targets), len(TITLES), squeeze=False, sharex=True)
        for row, target in zip(grid, targets, strict=True):
            of_target = [row for row in rows if row.target == target]
            for axes, name in zip(row, TITLES, strict=True):
                for number, arm in enumerate(run.recipe.arms):
                    groups = _groups(run, of_target, arm=arm, settings=settings, setting=setting)
                    values = [[getattr(row, name) for row in group] for group in groups]
                    _draw_line(axes, values, name=name, arm=arm, shift=_shift(run, number))
                axes.set_title(f"{target}: {TITLES[name]}", loc="left", fontsize=9, color=INK)
                axes.set_xticks(range(len(settings)), [_heading(it, setting) for it in settings])
                axes.margins(x=0.08)
                _finish(axes, share=name in SHARES, vertical=True)
        for axes in grid[-1]:
            axes.set_xlabel(label)
        _legend(figure, run, grid[0, 0])
        return _save(figure, path)


def _devices_figure(run: TrainedRun, rows: Sequence[SweepRow], *, path: Path) -> Path:
    """Draw a row for each device, the most faithful above, a panel for each figure."""
    fidelity = {
        target: min(row.fidelity for row in rows if row.target == target)
        for target in _distinct(rows, lambda row: row.target)
    }
    targets = sorted(fidelity, key=lambda name: fidelity[name])
    with _canvas(12.6, 1.3 + 0.6 * len(targets)) as figure:
        panels = figure.subplots(1, len(TITLES), sharey=True)
        for axes, name in zip(panels, TITLES, strict=True):
            for number, arm in enumerate(run.recipe.arms):
                groups = _groups(
                    run, rows, arm=arm, settings=targets, setting=lambda row: row.target
                )
                for height, group in enumerate(groups):
                    if group:
                        mean, below, above = _interval([getattr(row, name) for row in group], name)
                        axes.errorbar(
                            mean,
                            height - 2 * _shift(run, number),
                            xerr=[[below], [above]],
                            color=arm_colour(arm),
                            marker=arm_style(arm).marker,
                            markersize=5.5,
                            elinewidth=1.2,
                        )
            axes.set_title(TITLES[name], loc="left", fontsize=9, color=INK)
            names = [f"{target}\nfidelity {fidelity[target]:.2f}" for target in targets]
            axes.set_yticks(range(len(targets)), names)
            axes.set_ylim(-0.5, len(targets) - 0.5)
            _finish(axes, share=name in SHARES, vertical=False)
        _legend(figure, run, panels[0])
        return _save(figure, path)


def _draw_line(
    axes: Axes, values: Sequence[Sequence[float]], *, name: str, arm: str, shift: float
) -> None:
    positions = [position for position, group in enumerate(values) if group]
    spreads = [_interval(values[position], name) for position in positions]
    axes.errorbar(
        [position + shift for position in positions],
        [mean for mean, _, _ in spreads],
        yerr=[[below for _, below, _ in spreads], [above for _, _, above in spreads]],
        color=arm_colour(arm),
        marker=arm_style(arm).marker,
        linestyle=arm_style(arm).line or _OTHER_LINE,
        linewidth=1.6,
        markersize=4.5,
        elinewidth=1.1,
    )


def _interval(values: Sequence[float], name: str) -> tuple[float, float, float]:
    """Return the mean, and how far its interval goes below and above it, as far as possible."""
    mean, half = mean_interval(values)
    most = math.inf if name == "divergence" else 1.0
    return mean, min(half or 0.0, mean), min(half or 0.0, most - mean)


def _finish(axes: Axes, *, share: bool, vertical: bool) -> None:
    axes.grid(axis="y" if vertical else "x", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    if share:
        axis = axes.yaxis if vertical else axes.xaxis
        axis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")


def _legend(figure: Figure, run: TrainedRun, axes: Axes) -> None:
    handles = [
        axes.plot(
            [],
            [],
            color=arm_colour(arm),
            marker=arm_style(arm).marker,
            linestyle=arm_style(arm).line or _OTHER_LINE,
            label=arm_label(run, arm),
        )[0]
        for arm in run.recipe.arms
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


@contextmanager
def _canvas(width: float, height: float) -> Iterator[Figure]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": SOFT,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "axes.labelcolor": SOFT,
        "text.parse_math": False,
    }
    with rc_context(settings):
        yield Figure(figsize=(width, height), layout="constrained", dpi=130)


def _save(figure: Figure, path: Path) -> Path:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_atomic(path, lambda new: new.write_bytes(content.getvalue()))
    return path


def _groups(
    run: TrainedRun, rows: Sequence[SweepRow], *, arm: str, settings: Sequence[Any], setting: Value
) -> list[list[SweepRow]]:
    """Return the trained seeds' rows of an arm at each setting."""
    of_arm = trained_rows(run, [row for row in rows if row.arm == arm])
    return [[row for row in of_arm if setting(row) == value] for value in settings]


def _shift(run: TrainedRun, number: int) -> float:
    return _DODGE * (number - (len(run.recipe.arms) - 1) / 2)


def _distinct(rows: Sequence[SweepRow], value: Value) -> list[Any]:
    """Return different values in ascending order, exact probabilities last; names as they come."""
    values = list(dict.fromkeys(value(row) for row in rows))
    if any(isinstance(item, str) for item in values):
        return values
    return sorted(values, key=lambda item: (item is None, item or 0))


def _heading(value: Any, setting: Value) -> str:
    if value is None:
        return "exact"
    return f"{value:g}" if setting is scale_of else str(value)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "all failed"
    mean, half = mean_interval(values)
    return f"{100 * mean:.1f}" + ("" if half is None else f" ± {100 * half:.1f}")
