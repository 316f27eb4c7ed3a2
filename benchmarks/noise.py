"""Train without and with a device's noise, test without and with it: what does it cost and bring?

    python benchmarks/noise.py --data-root ROOT [--data digits,mnist,fashion_mnist]
        [--devices fake_melbourne,...] [--seeds 10] [--limit 1000]

The grid {trained clean, trained noisy} x {tested clean, tested noisy} for each device and data set,
with the settings of the built-in recipes but for the loss (0.5 cross-entropy + 0.5 divergence, both
softened by 4). Trained noisy: with exact gradients through the device's
noise model. Tested noisy: the exact probabilities under it, no shots. Seeds are paired: draw of
images, their order and initialisation are those of the student that was trained clean. The weights
are the last ones, so that validation images choose nothing; figures are of test images alone: all
of digits, a fixed random thousand of MNIST and Fashion-MNIST.

A cell is a data set, a loss and where it was trained. Finished cells are found in noise.csv and not
done again: a stopped run goes on with the same command. Writes noise.csv (a row per student and
test), noise_summary.csv (means, paired differences, Holm's p values) and noise.png under
benchmarks/results/.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import csv
import io
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import torch

from qkd_qiskit.data.splits import Data, Split, load_data
from qkd_qiskit.distillation.population import EpochMetrics, Member
from qkd_qiskit.distillation.trainer import make_distillation_data, train_population
from qkd_qiskit.experiments.evaluation import calibration_error, exact_logits, subset
from qkd_qiskit.experiments.statistics import differences, holm, paired_gain, paired_p
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.storage import write_text
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.gradients import NoisyExecutor
from qkd_qiskit.teachers.teacher import Teacher, make_teacher

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
TEST_IMAGES = 10_000  # of MNIST and Fashion-MNIST
_WATCHED = 32  # validation images of the training's own display; `selection: last` needs none


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


@dataclass(frozen=True)
class Cell:
    """What is trained together."""

    data: str
    loss: str
    trained: str

    def steps(self, seeds: int) -> float:
        """Work of its training, in samples that pass through noise; without it they are cheap."""
        recipe = load_recipe(self.data)
        images = 10 * (recipe.data.train_per_class or 1000)
        return images * recipe.distill.epochs * seeds * (0.05 if self.trained == CLEAN else 1.0)


@dataclass(frozen=True)
class Room:
    """A data set with what belongs to it."""

    recipe: Recipe
    data: Data
    teacher: Teacher
    test: Split
    teacher_logits: torch.Tensor


class Clock:
    """Prints what is going on, with the time left."""

    def __init__(self, cells: Sequence[Cell], *, seeds: int) -> None:
        self.seeds, self.done, self.number = seeds, 0.0, 0
        self.cells = list(cells)
        self.total = sum(cell.steps(seeds) for cell in cells)
        self.started = time.monotonic()
        self.live = sys.stdout.isatty()

    def epoch(self, figures: Sequence[EpochMetrics], *, epochs: int) -> None:
        """Tell about an epoch, on a terminal only."""
        if self.live:
            share = figures[0].epoch / epochs
            loss = statistics.fmean(one.loss for one in figures)
            text = f"epoch {figures[0].epoch}/{epochs}  loss {loss:.3f}  {self._left(share)}"
            print(f"\r{self._head()}  {text}\033[K", end="", flush=True)

    def cell(self, rows: Sequence[Row]) -> None:
        """Tell about a finished cell."""
        means = {
            tested: statistics.fmean(row.accuracy for row in rows if row.tested == tested)
            for tested in dict.fromkeys(row.tested for row in rows)
        }
        text = "  ".join(f"{tested} {100 * mean:.1f} %" for tested, mean in means.items())
        head = self._head()
        self.done += self.cells[self.number].steps(self.seeds)
        self.number += 1
        print(f"{chr(13) if self.live else ''}{head}  {text}  {self._left(0)}", flush=True)

    def _head(self) -> str:
        cell = self.cells[self.number]
        place = f"[{self.number + 1}/{len(self.cells)}]"
        return f"{place} {cell.data}, {cell.loss}, trained on {cell.trained}:"

    def _left(self, share: float) -> str:
        done = self.done
        if share:
            done += share * self.cells[self.number].steps(self.seeds)
        if not done:
            return ""
        left = (time.monotonic() - self.started) * (self.total - done) / done
        return f"({left / 60:.0f} min left)" if left > 90 else f"({left:.0f} s left)"


def run_cell(
    cell: Cell, room: Room, *, devices: Sequence[str], seeds: int, clock: Clock
) -> list[Row]:
    """Train the students of a cell and test them."""
    recipe, data = room.recipe, room.data
    students = [_student(room, seed=seed) for seed in range(seeds)]
    shape = students[0]
    distilled = cell.loss == "distilled"
    members = [
        Member(
            arm=cell.loss,
            seed=seed,
            ce_weight=recipe.distill.ce_weight if distilled else 1.0,
            kd_weight=recipe.distill.kd_weight if distilled else 0.0,
        )
        for seed in range(seeds)
    ]
    draws = torch.stack([data.draw_for(recipe.data, seed=member.seed) for member in members])
    examples = make_distillation_data(shape, room.teacher, data, draws=draws)
    examples = replace(
        examples,
        validation_inputs=examples.validation_inputs[:_WATCHED],
        validation_labels=examples.validation_labels[:_WATCHED],
    )
    shape.executor = _outcomes(shape, cell.trained)
    trained = train_population(
        shape,
        members,
        starts=[dict(student.named_parameters()) for student in students],
        examples=examples,
        spec=recipe.distill,
        on_epoch=lambda figures: clock.epoch(figures, epochs=recipe.distill.epochs),
    )
    rows = []
    for one in trained:
        shape.load_parameters(one.state)
        rows += list(_test(cell, shape, room, tests=_tests(cell, devices), seed=one.member.seed))
    return rows


def _test(
    cell: Cell, student: Student, room: Room, *, tests: Sequence[str], seed: int
) -> Iterator[Row]:
    student.executor = None
    without_noise = exact_logits(student, room.test.images).argmax(dim=1)
    for tested in tests:
        student.executor = _outcomes(student, tested)
        logits = exact_logits(student, room.test.images).double()
        choices = logits.argmax(dim=1)
        teacher = room.teacher_logits.double().log_softmax(dim=1)
        divergence = (teacher.exp() * (teacher - logits.log_softmax(dim=1))).sum(dim=1).mean()
        yield Row(
            data=cell.data,
            loss=cell.loss,
            trained=cell.trained,
            tested=tested,
            seed=seed,
            fidelity=1.0 if tested == CLEAN else _target(tested).compile(student.circuit).fidelity,
            images=len(room.test),
            accuracy=float((choices == room.test.labels).double().mean()),
            divergence=float(divergence),
            calibration_error=calibration_error(logits.softmax(dim=1), room.test.labels),
            agreement=float((choices == without_noise).double().mean()),
        )
    student.executor = None


def _tests(cell: Cell, devices: Sequence[str]) -> list[str]:
    return [CLEAN, *(devices if cell.trained == CLEAN else [cell.trained])]


@cache
def _target(device: str) -> Target:
    return Target.parse(device, seed=0)


def _outcomes(student: Student, where: str) -> Any:
    if where == CLEAN:
        return None
    return NoisyExecutor(_target(where).compile(student.circuit))


def _student(room: Room, *, seed: int) -> Student:
    student = make_student(
        room.recipe.student,
        image_shape=room.data.image_shape,
        num_classes=room.data.num_classes,
        seed=seed,
    )
    student.fit(room.data.pool.images)
    return student


def open_room(name: str, *, root: str | None, limit: int) -> Room:
    """Load a data set and train its teacher, or take it from the cache."""
    recipe = load_recipe(name, LOSS_SETTINGS | ({} if root is None else {"data.root": root}))
    data = load_data(recipe.data, seed=recipe.seed)
    teacher = make_teacher(recipe.teacher, data, seed=recipe.seed)
    test, rows = data.test, torch.arange(len(data.test))
    if name != "digits":
        test, rows = subset(data.test, limit=limit, seed=recipe.seed)
    return Room(
        recipe=recipe,
        data=data,
        teacher=teacher,
        test=test,
        teacher_logits=teacher.logits(data.test.images)[rows],
    )


def read_rows(path: Path) -> list[Row]:
    """Read what has been done."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [_parse(row) for row in csv.DictReader(file)]


def _parse(row: dict[str, str]) -> Row:
    kinds = {"str": str, "int": int, "float": float}
    return Row(**{field.name: kinds[str(field.type)](row[field.name]) for field in fields(Row)})


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows, whole or not at all."""
    write_csv(path, [field.name for field in fields(Row)], [astuple(row) for row in rows])


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table, whole or not at all; numbers with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([f"{item:.6g}" if isinstance(item, float) else item for item in row])
    write_text(path, text.getvalue())


def is_done(
    cell: Cell, rows: Sequence[Row], *, devices: Sequence[str], seeds: int, limit: int
) -> bool:
    """Return whether every student of a cell has every test, on as many images as are asked for."""
    found = {
        (row.tested, row.seed)
        for row in rows
        if _cell(row) == cell and (cell.data == "digits" or row.images == min(limit, TEST_IMAGES))
    }
    return found >= {(test, seed) for test in _tests(cell, devices) for seed in range(seeds)}


def _cell(row: Row) -> Cell:
    return Cell(row.data, row.loss, row.trained)


# What it says: one line per data set, loss and device.


@dataclass(frozen=True)
class Line:
    """Mean accuracies (shares) of the four corners, and what training through the noise brings.

    Attributes:
        data: Data set.
        loss: distilled or label_only.
        device: Device.
        seeds: Number of pairs.
        fidelity: Product of 1 - error over the gates and measurements of the compiled circuit.
        clean_clean: Trained clean, tested clean.
        clean_noisy: Trained clean, tested under the device's noise.
        noisy_clean: Trained through the noise, tested clean.
        noisy_noisy: Trained through the noise, tested under it.
        gain: noisy_noisy - clean_noisy in points, the mean over pairs.
        low: Lower end of its 95 % t interval.
        high: Upper end.
        p: Of the paired t test, two-sided.
        p_holm: Corrected over all devices and data sets of this loss (Holm 1979).
        price: noisy_clean - clean_clean in points.
        divergence_clean: KL(teacher || student) under the noise, trained clean.
        divergence_noisy: The same, trained noisy.
        calibration_clean: Expected calibration error under the noise, trained clean.
        calibration_noisy: The same, trained noisy.
    """

    data: str
    loss: str
    device: str
    seeds: int
    fidelity: float
    clean_clean: float
    clean_noisy: float
    noisy_clean: float
    noisy_noisy: float
    gain: float
    low: float
    high: float
    p: float
    p_holm: float
    price: float
    divergence_clean: float
    divergence_noisy: float
    calibration_clean: float
    calibration_noisy: float


def summarise(rows: Sequence[Row]) -> list[Line]:
    """Return a line for each data set, loss and device whose corners are all there."""
    lines: list[Line] = []
    for loss in LOSSES:
        of_loss = [
            line
            for data in DATA_SETS
            for device in dict.fromkeys(row.trained for row in rows if row.trained != CLEAN)
            if (line := _line(rows, data=data, loss=loss, device=device)) is not None
        ]
        corrected = holm([line.p for line in of_loss])
        lines += [replace(line, p_holm=p) for line, p in zip(of_loss, corrected, strict=True)]
    return sorted(lines, key=lambda one: (one.loss, DATA_SETS.index(one.data), one.fidelity))


def _line(rows: Sequence[Row], *, data: str, loss: str, device: str) -> Line | None:
    def corner(trained: str, tested: str, figure: str = "accuracy") -> dict[int, float]:
        wanted = (data, loss, trained, tested)
        return {
            row.seed: getattr(row, figure)
            for row in rows
            if (row.data, row.loss, row.trained, row.tested) == wanted
        }

    corners = [corner(a, b) for a in (CLEAN, device) for b in (CLEAN, device)]
    seeds = sorted(set.intersection(*(set(one) for one in corners)))
    if len(seeds) < 2:
        return None
    cc, cn, nc, nn = ([one[seed] for seed in seeds] for one in corners)
    gain = paired_gain(nn, cn)
    p = paired_p(differences(nn, cn))
    second = {
        figure: [
            statistics.fmean(corner(trained, device, figure)[seed] for seed in seeds)
            for trained in (CLEAN, device)
        ]
        for figure in ("divergence", "calibration_error")
    }
    return Line(
        data=data,
        loss=loss,
        device=device,
        seeds=len(seeds),
        fidelity=corner(CLEAN, device, "fidelity")[seeds[0]],
        clean_clean=statistics.fmean(cc),
        clean_noisy=statistics.fmean(cn),
        noisy_clean=statistics.fmean(nc),
        noisy_noisy=statistics.fmean(nn),
        gain=gain.mean,
        low=gain.ci95[0],
        high=gain.ci95[1],
        p=1.0 if p is None else p,
        p_holm=math.nan,
        price=paired_gain(nc, cc).mean,
        divergence_clean=second["divergence"][0],
        divergence_noisy=second["divergence"][1],
        calibration_clean=second["calibration_error"][0],
        calibration_noisy=second["calibration_error"][1],
    )


def markdown(lines: Sequence[Line], *, loss: str) -> str:
    """Return the lines of one loss as a table."""
    columns: tuple[str, ...]
    columns = ("data", "device", "fidelity", "clean / clean", "clean / noisy", "noisy / clean")
    columns += ("noisy / noisy", "gain under noise (points)", "p (Holm)", "KL", "ECE")
    text = [f"| {' | '.join(columns)} |", "|---|---" + "|--:" * (len(columns) - 2) + "|"]
    for line in lines:
        if line.loss == loss:
            corners = (line.clean_clean, line.clean_noisy, line.noisy_clean, line.noisy_noisy)
            shown = " | ".join(f"{100 * one:.1f}" for one in corners)
            holm_p = "< 0.001" if line.p_holm < 0.001 else f"{line.p_holm:.3f}"
            text.append(
                f"| {line.data} | {line.device} | {line.fidelity:.2f} | {shown} "
                f"| {line.gain:+.2f} [{line.low:+.2f}, {line.high:+.2f}] | {holm_p} "
                f"| {line.divergence_clean:.2f} → {line.divergence_noisy:.2f} "
                f"| {line.calibration_clean:.3f} → {line.calibration_noisy:.3f} |"
            )
    return "\n".join(text)


def teaching(rows: Sequence[Row], devices: Sequence[str]) -> str:
    """Return what the teacher brings under each noise, distilled - label_only, as a table."""
    found = []
    for data in DATA_SETS:
        for device in devices:
            gains = [
                paired_gain(*pair)
                for trained in (CLEAN, device)
                if (pair := _pairs(rows, data=data, trained=trained, device=device))
            ]
            if len(gains) == 2:
                texts = [
                    f"{gain.mean:+.2f} [{gain.ci95[0]:+.2f}, {gain.ci95[1]:+.2f}]" for gain in gains
                ]
                found.append(f"| {data} | {device} | {' | '.join(texts)} |")
    head = ["| data | device | both trained clean | both trained through the noise |"]
    return "\n".join([*head, "|---|---|--:|--:|", *found])


def _pairs(
    rows: Sequence[Row], *, data: str, trained: str, device: str
) -> tuple[list[float], list[float]] | None:
    by_seed: list[dict[int, float]] = []
    for loss in LOSSES:
        wanted = (data, loss, trained, device)
        by_seed.append(
            {
                row.seed: row.accuracy
                for row in rows
                if (row.data, row.loss, row.trained, row.tested) == wanted
            }
        )
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    if len(seeds) < 2:
        return None
    return [by_seed[0][seed] for seed in seeds], [by_seed[1][seed] for seed in seeds]


def draw(lines: Sequence[Line], path: Path) -> None:
    """Draw accuracy under each device's noise, trained clean and trained through the noise."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = [line for line in lines if line.loss == "distilled"]
    names = [name for name in DATA_SETS if any(line.data == name for line in shown)]
    faithful = {line.device: line.fidelity for line in shown}
    devices = sorted(faithful, key=lambda name: -faithful[name])  # the last is at the top
    settings = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with rc_context(settings):
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
            of_data = [line for line in shown if line.data == name]
            for line in of_data:
                height = devices.index(line.device)
                before, after = 100 * line.clean_noisy, 100 * line.noisy_noisy
                axes.plot([before, after], [height] * 2, color="#b9bdc1", linewidth=2, zorder=1)
                axes.plot(before, height, "s", color="#d55e00", markersize=9, fillstyle="none")
                axes.plot(after, height, "o", color="#0072b2", markersize=5.5)
                text = f"{line.gain:+.1f} [{line.low:+.1f}, {line.high:+.1f}]".replace("-", "−")
                axes.annotate(
                    text,
                    (max(before, after), height),
                    xytext=(-5, 7),
                    textcoords="offset points",
                    ha="right",
                    fontsize=7.5,
                    color="#1d1f21" if line.p_holm < 0.05 else "#7c7f83",
                )
            exact = 100 * statistics.fmean(line.clean_clean for line in of_data)
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
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    names, devices = options.data.split(","), options.devices.split(",")
    losses, seeds, path = options.losses.split(","), options.seeds, options.out / "noise.csv"
    grid = [
        Cell(data, loss, trained)
        for loss in losses
        for data in names
        for trained in (CLEAN, *devices)
    ]
    rows = read_rows(path)
    asked: dict[str, Any] = {"devices": devices, "seeds": seeds, "limit": options.limit}
    missing = [cell for cell in grid if not is_done(cell, rows, **asked)]
    print(f"{len(grid)} cells, {len(grid) - len(missing)} of them done", flush=True)
    rooms: dict[str, Room] = {}
    clock = Clock(missing, seeds=seeds)
    for cell in missing:
        if cell.data not in rooms:
            rooms[cell.data] = open_room(cell.data, root=options.data_root, limit=options.limit)
        found = run_cell(cell, rooms[cell.data], devices=devices, seeds=seeds, clock=clock)
        rows = [row for row in rows if _cell(row) != cell] + found
        write_rows(path, rows)
        clock.cell(found)
    lines = summarise(rows)
    header = [field.name for field in fields(Line)]
    write_csv(options.out / "noise_summary.csv", header, [astuple(line) for line in lines])
    draw(lines, options.out / "noise.png")
    for loss in losses:
        print(f"\n{loss}\n\n{markdown(lines, loss=loss)}")
    print(f"\ndistilled - label_only (points)\n\n{teaching(rows, devices)}")


if __name__ == "__main__":
    main()
