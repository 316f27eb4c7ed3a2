"""Train without and with a device's noise, test without and with it: what does it cost and bring?

    python benchmarks/noise.py --data-root ROOT [--data digits,mnist,fashion_mnist]
        [--devices fake_melbourne,...] [--seeds 10] [--limit 1000] [--runs runs/noise] [--jobs 1]

The grid {trained clean, trained noisy} x {tested clean, tested noisy} for each device and data set,
with the settings of the built-in recipes but for the loss (0.5 cross-entropy + 0.5 divergence, both
softened by 4). Trained noisy: with exact gradients through the device's
noise model. Tested noisy: the exact probabilities under it, no shots. Seeds are paired: draw of
images, their order and initialisation are those of the student that was trained clean. The weights
are the last ones, so that validation images choose nothing; figures are of test images alone: all
of digits, a fixed random thousand of MNIST and Fashion-MNIST.

A data set is a run folder under --runs, with an arm for each loss and device; it goes on where it
was stopped. Writes noise.csv (a row per student and test; rows of students that were not asked for
stay), noise_summary.csv (means, paired differences, Holm's p values) and noise.png under
benchmarks/results/.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import csv
import itertools
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from helps import open_study, write_csv
from rich.console import Console

from qkd_qiskit.cli.terminal import Terminal
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.statistics import Gain, differences, holm, paired_gain, paired_p
from qkd_qiskit.experiments.trained_run import TrainedRun
from qkd_qiskit.experiments.workers import Workers
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.targets import Target

RESULTS = Path(__file__).parent / "results"
DATA_SETS = ("digits", "mnist", "fashion_mnist")
# Three generations: their two-qubit gates are cx, cx, cx, ecr, cz and cz.
DEVICES = (
    "fake_melbourne",
    "fake_lima",
    "fake_manila",
    "fake_sherbrooke",
    "fake_torino",
    "fake_fez",
)
# The recipes were given better loss weights since: the grid keeps those that it was started with.
LOSS_SETTINGS = {
    "distill.temperature": 4.0,
    "distill.student_temperature": None,
    "distill.ce_weight": 0.5,
    "distill.kd_weight": 0.5,
}
CLEAN = "exact"
LOSSES = ("distilled", "label_only")
FIGURES = ("images", "accuracy", "divergence", "calibration_error")
SUMMARY = ("data", "loss", "device", "seeds", "fidelity", "clean_clean", "clean_noisy")
SUMMARY += ("noisy_clean", "noisy_noisy", "gain", "low", "high", "p", "p_holm", "price")
SUMMARY += ("divergence_clean", "divergence_noisy", "calibration_clean", "calibration_noisy")


@dataclass(frozen=True)
class Row:
    """One student on one test.

    Attributes:
        data: Data set.
        loss: distilled or label_only.
        trained: exact, or the device through whose noise it was trained.
        tested: exact, or a device.
        seed: Seed of draw, order and initialisation.
        fidelity: Product of 1 - error over the gates and measurements of the tested circuit.
        images: Number of test images.
        accuracy: Share of them whose class was chosen.
        divergence: KL(teacher || student) in nats.
        calibration_error: Expected calibration error, 15 bins.
        agreement: Share of images with the choice of the same student without noise.
    """

    data: str
    loss: str
    trained: str
    tested: str
    seed: int
    fidelity: float
    images: int
    accuracy: float
    divergence: float
    calibration_error: float
    agreement: float

    @property
    def key(self) -> tuple[str | int, ...]:
        """What its figures are of."""
        return self.data, self.loss, self.trained, self.tested, self.seed


def recipe_for(
    name: str, *, losses: Sequence[str], devices: Sequence[str], seeds: int, root: str | None
) -> Recipe:
    """Return the study of a data set: each loss as an arm, and as one through each device."""
    own = {
        f"{loss}_{device.removeprefix('fake_')}": {
            "base": loss,
            "distill.gradient": "noisy",
            "distill.train_target": device,
        }
        for loss in losses
        for device in devices
    }
    arms = [
        arm for loss in losses for arm in (loss, *(it for it in own if own[it]["base"] == loss))
    ]
    changes = {"arms": arms, "own_arms": own, "targets": [CLEAN], "seeds": seeds}
    return load_recipe(name, LOSS_SETTINGS | changes | {"data.root": root})


def evaluated_rows(run: TrainedRun, *, limit: int | None, callback: Callback) -> list[Row]:
    """Return a row for each student and test of a run, evaluating what is not there yet.

    Those trained clean are tested on every device, the others clean and on their own.

    Args:
        run: A finished run of `recipe_for`.
        limit: Test images; None = all.
        callback: Hears of the progress.
    """
    arms, table, rows = run.recipe.arms, run.recipe.arm_table, {}
    trained = {arm: run.recipe.distill_of(arm).train_target for arm in arms}
    circuit = run.student(arms[0]).circuit
    for tested in dict.fromkeys((CLEAN, *trained.values())):
        exactly = tested if tested == CLEAN else f"{tested}:exact"
        target = Target.parse(exactly, seed=run.recipe.seed)
        fidelity = 1.0 if target.ideal else target.compile(circuit).fidelity
        students = [
            (arm, seed)
            for arm, seed in run.folder.members
            if tested == CLEAN or trained[arm] in (CLEAN, tested)
        ]
        key = run.evaluate_members(
            target, students, limit=limit, compare_exact=True, callback=callback
        )
        for arm, seed in students:
            figures = run.folder.evaluations(arm, seed)[key]
            rows[arm, seed, tested] = Row(
                data=run.recipe.data.name,
                loss=table[arm].base or arm,
                trained=trained[arm],
                tested=tested,
                seed=seed,
                fidelity=fidelity,
                agreement=figures.exact_agreement,
                **{name: getattr(figures, name) for name in FIGURES},
            )
    return [rows[key] for key in sorted(rows, key=lambda key: (arms.index(key[0]), key[1]))]


def read_rows(path: Path) -> list[Row]:
    """Return the rows that a file holds already."""
    if not path.exists():
        return []
    kinds = {"str": str, "int": int, "float": float}
    of = {field.name: kinds[str(field.type)] for field in fields(Row)}
    with path.open(newline="", encoding="utf-8") as file:
        return [Row(**{key: of[key](row[key]) for key in of}) for row in csv.DictReader(file)]


# What it says: a line for each data set, loss and device.


class Pairs:
    """Rows by corner: the data set, the loss, where trained and where tested."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.devices = dict.fromkeys(row.trained for row in rows if row.trained != CLEAN)
        self._corners: dict[tuple[str, ...], dict[int, Row]] = {}
        for row in rows:
            corner = row.data, row.loss, row.trained, row.tested
            self._corners.setdefault(corner, {})[row.seed] = row

    def at(self, *corners: tuple[str, str, str, str]) -> list[list[Row]]:
        """Return the rows of each corner at the seeds of all; none where these are fewer than 2."""
        by_seed = [self._corners.get(corner, {}) for corner in corners]
        seeds = sorted(set.intersection(*map(set, by_seed)))
        return [[rows[seed] for seed in seeds] for rows in by_seed] if len(seeds) > 1 else []


def summarise(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a line for each data set, loss and device whose corners are all there.

    NOISE.md says what the columns are.
    """
    pairs, lines = Pairs(rows), []
    for loss in LOSSES:
        made = []
        for data, device in itertools.product(DATA_SETS, pairs.devices):
            places = itertools.product((CLEAN, device), repeat=2)
            corners = pairs.at(*((data, loss, *place) for place in places))
            if corners:
                made.append({"data": data, "loss": loss, "device": device, **_figures(*corners)})
        for line, p in zip(made, holm([line["p"] for line in made]), strict=True):
            line["p_holm"] = p
        lines += made
    return sorted(
        lines, key=lambda line: (line["loss"], DATA_SETS.index(line["data"]), line["fidelity"])
    )


def _figures(
    clean_clean: Sequence[Row],
    clean_noisy: Sequence[Row],
    noisy_clean: Sequence[Row],
    noisy_noisy: Sequence[Row],
) -> dict[str, Any]:
    gain = _gain(noisy_noisy, clean_noisy)
    p = paired_p(differences(_values(noisy_noisy), _values(clean_noisy)))
    return {
        "seeds": gain.seeds,
        "fidelity": clean_noisy[0].fidelity,
        "clean_clean": _mean(clean_clean),
        "clean_noisy": _mean(clean_noisy),
        "noisy_clean": _mean(noisy_clean),
        "noisy_noisy": _mean(noisy_noisy),
        "gain": gain.mean,
        "low": gain.ci95[0],
        "high": gain.ci95[1],
        "p": 1.0 if p is None else p,
        "price": _gain(noisy_clean, clean_clean).mean,
        "divergence_clean": _mean(clean_noisy, "divergence"),
        "divergence_noisy": _mean(noisy_noisy, "divergence"),
        "calibration_clean": _mean(clean_noisy, "calibration_error"),
        "calibration_noisy": _mean(noisy_noisy, "calibration_error"),
    }


def _values(rows: Sequence[Row], figure: str = "accuracy") -> list[float]:
    return [getattr(row, figure) for row in rows]


def _mean(rows: Sequence[Row], figure: str = "accuracy") -> float:
    return statistics.fmean(_values(rows, figure))


def _gain(treated: Sequence[Row], baseline: Sequence[Row]) -> Gain:
    return paired_gain(_values(treated), _values(baseline))


def markdown(lines: Sequence[Mapping[str, Any]], *, loss: str) -> str:
    """Return the lines of one loss as a table."""
    cells = {
        "data": "{data}",
        "device": "{device}",
        "fidelity": "{fidelity:.2f}",
        "clean / clean": "{clean_clean:.1%}",
        "clean / noisy": "{clean_noisy:.1%}",
        "noisy / clean": "{noisy_clean:.1%}",
        "noisy / noisy": "{noisy_noisy:.1%}",
        "gain under noise (points)": "{gain:+.2f} [{low:+.2f}, {high:+.2f}]",
        "p (Holm)": "{holm}",
        "KL": "{divergence_clean:.2f} → {divergence_noisy:.2f}",
        "ECE": "{calibration_clean:.3f} → {calibration_noisy:.3f}",
    }
    text = [f"| {' | '.join(cells)} |", "|---|---" + "|--:" * (len(cells) - 2) + "|"]
    for line in lines:
        if line["loss"] == loss:
            corrected = "< 0.001" if line["p_holm"] < 0.001 else f"{line['p_holm']:.3f}"
            shown = " | ".join(cells.values()).format_map({**line, "holm": corrected})
            text.append(f"| {shown.replace('%', '')} |")
    return "\n".join(text)


def teaching(rows: Sequence[Row], devices: Sequence[str]) -> str:
    """Return what the teacher brings under each noise, distilled - label_only, as a table."""
    pairs = Pairs(rows)
    text = ["| data | device | both trained clean | both trained through the noise |"]
    text.append("|---|---|--:|--:|")
    for data in DATA_SETS:
        for device in devices:
            both = [
                pairs.at(*((data, loss, trained, device) for loss in LOSSES))
                for trained in (CLEAN, device)
            ]
            if all(both):
                gains = [_gain(*pair) for pair in both]
                shown = [f"{it.mean:+.2f} [{it.ci95[0]:+.2f}, {it.ci95[1]:+.2f}]" for it in gains]
                text.append(f"| {data} | {device} | {' | '.join(shown)} |")
    return "\n".join(text)


def draw(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw accuracy under each device's noise, trained clean and trained through the noise."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = [line for line in lines if line["loss"] == LOSSES[0]]
    if not shown:
        return
    names = [name for name in DATA_SETS if any(line["data"] == name for line in shown)]
    faithful = {line["device"]: line["fidelity"] for line in shown}
    devices = sorted(faithful, key=lambda name: -faithful[name])  # the last is at the top
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(3.3 * len(names) + 0.8, 4.2), layout="constrained", dpi=150)
        figure.suptitle(
            "Distilled students under a device's noise. Numbers: paired gain in points with its "
            "95 % interval; grey where Holm's p is 0.05 or more",
            x=0.005,
            ha="left",
            fontsize=9,
        )
        panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            of_data = [line for line in shown if line["data"] == name]
            for line in of_data:
                height = devices.index(line["device"])
                before, after = 100 * line["clean_noisy"], 100 * line["noisy_noisy"]
                axes.plot([before, after], [height] * 2, color="#b9bdc1", linewidth=2, zorder=1)
                axes.plot(before, height, "s", color="#d55e00", markersize=9, fillstyle="none")
                axes.plot(after, height, "o", color="#0072b2", markersize=5.5)
                text = f"{line['gain']:+.1f} [{line['low']:+.1f}, {line['high']:+.1f}]".replace(
                    "-", "−"
                )
                axes.annotate(
                    text,
                    (max(before, after), height),
                    xytext=(-5, 7),
                    textcoords="offset points",
                    ha="right",
                    fontsize=7.5,
                    color="#1d1f21" if line["p_holm"] < 0.05 else "#7c7f83",
                )
            exact = 100 * statistics.fmean(line["clean_clean"] for line in of_data)
            axes.axvline(exact, color="#7c7f83", linestyle=(0, (1, 1.2)), zorder=0)
            axes.set_title(name.replace("_", "-"), loc="left")
            axes.set_xlabel("test accuracy under the noise (%)")
            axes.set_ylim(-0.5, len(devices) - 0.3)
            axes.margins(x=0.08)
            axes.grid(axis="x", color="#dddfe1", linewidth=0.7)
            axes.set_axisbelow(True)
            labels = [f"{device}\nfidelity {faithful[device]:.2f}" for device in devices]
            axes.set_yticks(range(len(devices)), labels)
        handles = [
            panels[0].plot([], [], style, color=colour, label=label, fillstyle=fill)[0]
            for style, colour, label, fill in (
                ("s", "#d55e00", "trained clean", "none"),
                ("o", "#0072b2", "trained through the noise", "full"),
                (":", "#7c7f83", "trained and tested clean", "none"),
            )
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", help="folder of MNIST and FashionMNIST; default: $QKD_DATA")
    parser.add_argument("--data", default=",".join(DATA_SETS))
    parser.add_argument("--devices", default=",".join(DEVICES))
    parser.add_argument("--losses", default=",".join(LOSSES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--limit", type=int, default=1000, help="test images, digits: all")
    parser.add_argument("--runs", type=Path, default=Path("runs/noise"))
    parser.add_argument("--jobs", type=int, default=1, help="processes that train")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    devices, losses = options.devices.split(","), options.losses.split(",")
    rows = {row.key: row for row in read_rows(options.out / "noise.csv")}
    for name in options.data.split(","):
        print(name, flush=True)
        grid = {"losses": losses, "devices": devices, "seeds": options.seeds}
        recipe = recipe_for(name, **grid, root=options.data_root)
        limit = None if name == "digits" else options.limit
        with Terminal(Console()) as terminal:
            workers = Workers(jobs=options.jobs)
            run = open_study(recipe, options.runs / name, workers=workers, callback=terminal)
            found = evaluated_rows(run, limit=limit, callback=terminal)
        rows |= {row.key: row for row in found}
        columns = [field.name for field in fields(Row)]
        write_csv(options.out / "noise.csv", columns, [asdict(row) for row in rows.values()])
    lines = summarise(list(rows.values()))
    write_csv(options.out / "noise_summary.csv", SUMMARY, lines)
    draw(lines, options.out / "noise.png")
    for loss in losses:
        print(f"\n{loss}\n\n{markdown(lines, loss=loss)}")
    print(f"\ndistilled - label_only (points)\n\n{teaching(list(rows.values()), devices)}")


if __name__ == "__main__":
    main()
