"""The slides' classical-to-quantum settings: parameters, accuracy and gain of every student.

    python benchmarks/slides_c2q.py [run|bins|figures] [--sets generated] [--difficulties 0,0.25]

run: on generated data with all labels and with 100, an MLP of 4,355 parameters teaches a hybrid
student (139), a fully quantum one (72; gamma = 1 as the slides, and 8), their classical twins of
the same size, on all features (139 and 71) and on six principal components (133 and 63), and a
classical student of full size (547); each is trained with the slides' loss, CE + KL at T = 1, and
from the labels alone.
bins: the fully quantum student with contiguous, modulo and learned bins, and what its outcomes
stand for before and after training.
figures: only the tables and figures of what is there.

The learning rate of each student and arm is the best of six on the validation points, with
seeds that the result does not use; the weights are those of the best epoch on validation. Draw,
order and start of a seed are shared by both arms. Finished students are found in slides_c2q.csv
and not done again: a stopped run goes on with the same command. Writes slides_c2q.csv (a row per
student), slides_c2q_summary.csv (means and paired gains with 95 % t intervals), slides_c2q.png and
slides_bins.png under benchmarks/results/.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import csv
import io
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import torch

from qkd_qiskit.data.splits import Data, load_data
from qkd_qiskit.distillation.population import Member, TrainingResult
from qkd_qiskit.distillation.trainer import make_distillation_data, train_population
from qkd_qiskit.errors import QKDError
from qkd_qiskit.experiments.evaluation import exact_logits
from qkd_qiskit.experiments.statistics import mean_interval, paired_gain
from qkd_qiskit.recipe import DataSpec, DistillSpec, StudentSpec, TeacherSpec
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.storage import write_text
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.class_bins import bins_of, class_distributions, learn_bins
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.students.quantum import QuantumStudent
from qkd_qiskit.teachers.base import Teacher
from qkd_qiskit.teachers.teacher import make_teacher

RESULTS = Path(__file__).parent / "results"
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
TUNING_SEEDS = (100, 101, 102)
ARMS = ("label_only", "distilled")
EPOCHS = 60
BATCH = {None: 64, 100: 20}
FAILED = 1 / 3 + 1 / 18 * 2 / 3  # validation accuracy below which a student was not trained

HYBRID = load_recipe("slides_c2q_hybrid").student
QUANTUM = load_recipe("slides_c2q_quantum").student


def _pca_twin(width: int) -> StudentSpec:
    """A tanh layer on six principal components: 10 numbers for each of its units, and 3."""
    of_angles = replace(HYBRID, reduction="pca", encoding="angle")  # six features, not 64
    return replace(of_angles, kind="classical_full", full_width=width)


STUDENTS = {
    "hybrid": HYBRID,
    "quantum, gamma 1": QUANTUM,
    "quantum, gamma 8": replace(QUANTUM, sharpness=8.0),
    "twin of the hybrid": replace(HYBRID, kind="classical"),
    "twin of the quantum": replace(QUANTUM, kind="classical"),
    "PCA twin of the hybrid": _pca_twin(13),
    "PCA twin of the quantum": _pca_twin(6),
    "full size": replace(HYBRID, kind="classical_full"),
}
BINS = {
    f"{readout} bins, gamma {gamma}": replace(QUANTUM, readout=name, sharpness=float(gamma))
    for gamma in (1, 8)
    for name, readout in (("bins", "contiguous"), ("modulo", "modulo"), ("learned", "learned"))
}
COLOURS = {
    "hybrid": "#0072b2",
    "quantum, gamma 1": "#d55e00",
    "quantum, gamma 8": "#009e73",
    "twin of the hybrid": "#7fb8d8",
    "twin of the quantum": "#e5b18f",
    "PCA twin of the hybrid": "#cc79a7",
    "PCA twin of the quantum": "#8c564b",
    "full size": "#444444",
}


@dataclass(frozen=True)
class Row:
    """One trained student.

    Attributes:
        data: Name of the data set.
        difficulty: Its difficulty.
        labels: Labelled training points, or all.
        student: Name of the student.
        parameters: Its trained numbers.
        arm: label_only or distilled.
        seed: Its seed.
        lr: Learning rate that validation chose.
        validation: Accuracy on validation points, a fraction.
        accuracy: Accuracy on test points, a fraction.
        teacher: Test accuracy of the teacher.
        linear: Test accuracy of a softmax regression on all labels, 195 parameters.
    """

    data: str
    difficulty: float
    labels: str
    student: str
    parameters: int
    arm: str
    seed: int
    lr: float
    validation: float
    accuracy: float
    teacher: float
    linear: float


KINDS = {"difficulty": float, "parameters": int, "seed": int, "lr": float, "validation": float}
KINDS |= {"accuracy": float, "teacher": float, "linear": float}


@dataclass(frozen=True)
class Room:
    """What the students of one task share.

    Attributes:
        data: Points.
        spec: How they were drawn.
        teacher: Who teaches.
        linear: Test accuracy of a linear classifier.
    """

    data: Data
    spec: DataSpec
    teacher: Teacher
    linear: float


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", nargs="?", default="run", choices=["run", "bins", "figures"])
    add("--sets", default="generated,extended_xor", help="data sets")
    add("--difficulties", default="0.25,0,0.5", help="of the set generated; XOR has the first")
    add("--labels", default="all,100", help="labelled training points")
    add("--seeds", type=int, default=10)
    add("--results", type=Path, default=RESULTS, help="where tables and figures go")
    options = parser.parse_args()
    try:
        options.results.mkdir(parents=True, exist_ok=True)
        if options.what == "run":
            run(options)
        elif options.what == "bins":
            run_bins(options)
        tell(options.results)
    except QKDError as error:
        print(f"slides_c2q: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def run(options: argparse.Namespace) -> None:
    """Train what is missing, task by task."""
    difficulties = [float(value) for value in options.difficulties.split(",")]
    tasks = [
        (name, difficulty, labels)
        for labels in options.labels.split(",")
        for name in options.sets.split(",")
        for difficulty in (difficulties if name == "generated" else difficulties[:1])
    ]
    for number, (name, difficulty, labels) in enumerate(tasks, start=1):
        room = None
        for student, spec in STUDENTS.items():
            key = (name, difficulty, labels, student)
            if is_there(options, key):
                continue
            room = room or enter(name, difficulty, labels)
            told = f"task {number}/{len(tasks)}: {name} {difficulty:g}, {labels} labels, {student}"
            train(options, room, key, spec, told=told)


def run_bins(options: argparse.Namespace) -> None:
    """Train the quantum student with each kind of bins, on the first difficulty."""
    difficulty = float(options.difficulties.split(",")[0])
    room = None
    for student, spec in BINS.items():
        key = ("generated", difficulty, "all", student)
        if not is_there(options, key):
            room = room or enter("generated", difficulty, "all")
            train(options, room, key, spec, told=f"{student}")
    draw_bins(options.results, room or enter("generated", difficulty, "all"))


def enter(name: str, difficulty: float, labels: str) -> Room:
    """Points, the teacher and a linear classifier."""
    recipe = load_recipe("slides_c2q_hybrid")
    spec = replace(
        recipe.data,
        name=name,
        difficulty=difficulty,
        train_points=None if labels == "all" else int(labels),
    )
    data = load_data(spec, seed=recipe.seed)
    teacher = make_teacher(recipe.teacher, data, seed=recipe.seed)
    linear = make_teacher(TeacherSpec(kind="softmax", epochs=60), data, seed=recipe.seed)
    return Room(data, spec, teacher, linear.accuracy)


def train(
    options: argparse.Namespace,
    room: Room,
    key: tuple[str, float, str, str],
    spec: StudentSpec,
    *,
    told: str,
) -> None:
    """Choose a learning rate for each arm on validation, train all seeds, keep their rows."""
    started = time.perf_counter()
    tried = {rate: population(room, spec, TUNING_SEEDS, ARMS, rate) for rate in RATES}
    chosen = {arm: max(RATES, key=lambda rate: validation(tried[rate], arm)) for arm in ARMS}
    rows = []
    for rate in sorted(set(chosen.values())):
        arms = [arm for arm in ARMS if chosen[arm] == rate]
        shape = fresh(room, spec, 0)
        for one in population(room, spec, range(options.seeds), arms, rate):
            shape.load_parameters(one.state)
            logits = exact_logits(shape, room.data.test.images)
            rows.append(
                Row(
                    *key[:3],
                    student=key[3],
                    parameters=shape.num_parameters,
                    arm=one.member.arm,
                    seed=one.member.seed,
                    lr=rate,
                    validation=round(one.validation_accuracy, 5),
                    accuracy=round(accuracy(logits, room.data.test.labels), 5),
                    teacher=round(room.teacher.accuracy, 5),
                    linear=round(room.linear, 5),
                )
            )
    write_rows(options.results, [*read_rows(options.results), *rows])
    means = {arm: mean_interval([r.accuracy for r in rows if r.arm == arm])[0] for arm in ARMS}
    took = time.perf_counter() - started
    print(
        f"{told}: {100 * means[ARMS[0]]:.1f} -> {100 * means[ARMS[1]]:.1f} %, {took:.0f} s",
        flush=True,
    )


def population(
    room: Room, spec: StudentSpec, seeds: Sequence[int], arms: Sequence[str], rate: float
) -> list[TrainingResult]:
    """All seeds of some arms, trained together."""
    students = {seed: fresh(room, spec, seed) for seed in seeds}
    members = [
        Member(arm=arm, seed=seed, ce_weight=1.0, kd_weight=float(arm == "distilled"))
        for arm in arms
        for seed in seeds
    ]
    draws = torch.stack([room.data.draw_for(room.spec, seed=one.seed) for one in members])
    shape = students[members[0].seed]
    return train_population(
        shape,
        members,
        starts=[dict(students[one.seed].named_parameters()) for one in members],
        examples=make_distillation_data(shape, room.teacher, room.data, draws=draws),
        spec=DistillSpec(
            epochs=EPOCHS,
            batch_size=BATCH.get(room.spec.train_points, 32),
            lr=rate,
            temperature=1.0,
            ce_weight=1.0,
            kd_weight=1.0,
            selection="validation",
        ),
    )


def fresh(room: Room, spec: StudentSpec, seed: int) -> Student:
    """A student before training."""
    shape = {"image_shape": room.data.image_shape, "num_classes": room.data.num_classes}
    student = make_student(spec, **shape, seed=seed)  # type: ignore[arg-type]
    student.fit(room.data.pool.images)
    learn_bins(student, room.data.pool[room.data.draw_for(room.spec, seed=seed)])
    return student


def validation(trained: Sequence[TrainingResult], arm: str) -> float:
    """Mean validation accuracy of an arm; worst of all where a training of it failed."""
    mean, _ = mean_interval([t.validation_accuracy for t in trained if t.member.arm == arm])
    return -math.inf if math.isnan(mean) else mean


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of right choices."""
    return float((logits.argmax(dim=1) == labels).double().mean())


def is_there(options: argparse.Namespace, key: tuple[str, float, str, str]) -> bool:
    """Whether all seeds of a student are in the table."""
    rows = [
        r for r in read_rows(options.results) if (r.data, r.difficulty, r.labels, r.student) == key
    ]
    return {(r.arm, r.seed) for r in rows} >= {
        (arm, seed) for arm in ARMS for seed in range(options.seeds)
    }


def read_rows(folder: Path) -> list[Row]:
    """The rows of slides_c2q.csv, none where it is not there."""
    path = folder / "slides_c2q.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(**{name: KINDS.get(name, str)(value) for name, value in line.items()})
            for line in csv.DictReader(file)
        ]


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """Write slides_c2q.csv, a later row in place of an earlier one of the same student."""
    kept = {(r.data, r.difficulty, r.labels, r.student, r.arm, r.seed): r for r in rows}
    write_csv(folder / "slides_c2q.csv", [vars(row) for row in kept.values()])


def write_csv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write a table, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def tell(folder: Path) -> None:
    """Print the table, and write the summary and the figure."""
    summary = summarise(read_rows(folder))
    if not summary:
        return
    write_csv(folder / "slides_c2q_summary.csv", summary)
    draw_students(folder, summary)
    heading = None
    for line in summary:
        task = f"{line['data']} {line['difficulty']}, {line['labels']} labels"
        if task != heading:
            heading = task
            print(f"\n{task}: teacher {line['teacher']} %, linear {line['linear']} %\n")
            print("| student | parameters | label only | distilled | gain | failed |")
            print("|---|---|---|---|---|---|")
        print(
            f"| {line['student']} | {line['parameters']} | {line['label_only']} ± "
            f"{line['label_only_half']} | {line['distilled']} ± {line['distilled_half']} | "
            f"{line['gain']} [{line['gain_low']}, {line['gain_high']}] | {line['failed']} |"
        )


def summarise(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Means with half intervals in percent, and paired gains in points; failed pairs left out."""
    summary: list[dict[str, object]] = []
    for key in dict.fromkeys((r.data, r.difficulty, r.labels, r.student) for r in rows):
        group = [r for r in rows if (r.data, r.difficulty, r.labels, r.student) == key]
        failed = {r.seed for r in group if not r.validation > FAILED}
        arms = {
            arm: {r.seed: r.accuracy for r in group if r.arm == arm and r.seed not in failed}
            for arm in ARMS
        }
        seeds = sorted(arms["distilled"])
        if not seeds:
            continue
        gain = paired_gain(
            [arms["distilled"][seed] for seed in seeds],
            [arms["label_only"][seed] for seed in seeds],
        )
        line: dict[str, object] = dict(
            zip(("data", "difficulty", "labels", "student"), key, strict=True)
        )
        line["parameters"] = group[0].parameters
        for arm in ARMS:
            mean, half = mean_interval([100 * value for value in arms[arm].values()])
            line |= {arm: f"{mean:.1f}", f"{arm}_half": "" if half is None else f"{half:.1f}"}
        low, high = gain.ci95 or (None, None)
        line |= {
            "gain": f"{gain.mean:+.1f}",
            "gain_low": "" if low is None else f"{low:+.1f}",
            "gain_high": "" if high is None else f"{high:+.1f}",
            "pairs": len(seeds),
            "failed": len(failed),
            "teacher": f"{100 * group[0].teacher:.1f}",
            "linear": f"{100 * group[0].linear:.1f}",
        }
        summary.append(line)
    return summary


def draw_students(folder: Path, summary: Sequence[dict[str, object]]) -> None:
    """Accuracy of the distilled students and their gain, against difficulty."""
    from matplotlib.figure import Figure

    lines = [one for one in summary if one["data"] == "generated" and one["student"] in STUDENTS]
    columns = [name for name in ("all", "100") if any(one["labels"] == name for one in lines)]
    if not columns:
        return
    figure = Figure(figsize=(4.6 * len(columns), 6.4), layout="constrained")
    grid = figure.subplots(2, len(columns), squeeze=False, sharex=True, sharey="row")
    for column, labels in enumerate(columns):
        for name, colour in COLOURS.items():
            own = sorted(
                (one for one in lines if one["labels"] == labels and one["student"] == name),
                key=lambda one: float(str(one["difficulty"])),
            )
            if not own:
                continue
            x = [float(str(one["difficulty"])) for one in own]
            label = f"{name} ({own[0]['parameters']})"
            mean = [float(str(one["distilled"])) for one in own]
            half = [float(str(one["distilled_half"] or "nan")) for one in own]
            style = {"color": colour, "marker": "o", "markersize": 4, "capsize": 3}
            grid[0][column].errorbar(x, mean, half, label=label, **style)
            gain = [float(str(one["gain"])) for one in own]
            ends = [float(str(one["gain_high"] or "nan")) for one in own]
            bars = [end - middle for end, middle in zip(ends, gain, strict=True)]
            shift = 0.012 * (list(COLOURS).index(name) - 3.5)
            grid[1][column].errorbar([v + shift for v in x], gain, bars, linestyle="none", **style)
        every = {one["difficulty"]: float(str(one["teacher"])) for one in lines}
        levels = sorted(every, key=float)  # type: ignore[arg-type]
        grid[0][column].plot(
            [float(str(v)) for v in levels],
            [every[v] for v in levels],
            "k--",
            label="teacher (4,355)",
        )
        grid[0][column].set_title(f"{labels} labels" if labels != "all" else "all labels (1,600)")
        grid[1][column].axhline(0, color="black", linewidth=0.8)
        grid[1][column].set_xlabel("difficulty")
        for axes in grid[:, column]:
            axes.grid(axis="y", alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
    grid[0][0].set_ylabel("test accuracy of the distilled student, %")
    grid[1][0].set_ylabel("gain of distillation, points")
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(folder / "slides_c2q.png", dpi=130)


def draw_bins(folder: Path, room: Room) -> None:
    """What outcomes stand for before and after distillation, with each kind of bins, seed 0."""
    import numpy as np
    from matplotlib.figure import Figure

    chosen = {r.student: r.lr for r in read_rows(folder) if r.arm == "distilled"}
    names = [name for name in BINS if name in chosen]
    figure = Figure(figsize=(10, 1.75 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), 2, squeeze=False)
    for row, name in zip(grid, names, strict=True):
        before, after = fresh(room, BINS[name], 0), fresh(room, BINS[name], 0)
        (trained,) = population(room, BINS[name], [0], ["distilled"], chosen[name])
        after.load_parameters(trained.state)
        for axes, student, when in zip(row, (before, after), ("before", "after"), strict=True):
            assert isinstance(student, QuantumStudent)
            bins = np.array(bins_of(student))
            means = class_distributions(student, room.data.test).numpy()
            order = np.argsort(bins, kind="stable")
            axes.imshow(means[:, order], aspect="auto", cmap="Blues", vmin=0, interpolation="none")
            for edge in np.cumsum(np.bincount(bins))[:-1]:
                axes.axvline(edge - 0.5, color="black", linewidth=1)
            for label, line in enumerate(means):
                share = f"{100 * line[bins == label].sum():.0f} %"
                axes.text(64.5, label, share, va="center", fontsize=8)
            middles = [float(np.flatnonzero(np.sort(bins) == label).mean()) for label in range(3)]
            axes.set_xticks(middles, [f"class {label}" for label in range(3)])
            axes.set_yticks(range(3), [f"class {label}" for label in range(3)])
            axes.tick_params(length=0, labelsize=8)
            axes.set_title(f"{name}, {when} distillation", fontsize=9)
    figure.supxlabel("64 outcomes, by the class that they count for (22, 21, 21)", fontsize=9)
    figure.supylabel("class of the points", fontsize=9)
    figure.savefig(folder / "slides_bins.png", dpi=130)


if __name__ == "__main__":
    sys.exit(main())
