"""Does a quanvolutional teacher help a convolution of its shape when there are few images?

    python benchmarks/slides_q2c.py --data-root ROOT [--points 50,100,...] [--seeds 10]

The slides' quantum-to-classical setting on Fashion-MNIST: K images are drawn for each seed; a
network of three filters and a linear layer learns from them. The student is a convolution (5,905
parameters); teachers are

* quanvolution: the same network with quanvolutional filters (5,923), trained on the same K images;
* convolution: the same network as the student from another start, on the same K images (control);
* random: quanvolutional filters that stay as they were drawn, on the same K images (control);
* quanvolution_all, convolution_all: one of each for all seeds, on all training images.

An arm adds to the cross-entropy with the labels the divergence from the teacher (logits), the mean
squared difference of the feature maps (feature), or both; `quanvolution_shuffled` gives the maps of
other images of the same draw (control). Every arm chooses its temperature (1 or 4) and the weight
of the maps (1 or 10) on validation images with other seeds, by its mean accuracy; the learning rate
is the one at which label-only students are best, for all arms; `slides` is both with T = 1 and
weights 1, as the slides have it. Draw, order and start of a seed are shared by all arms. The last
weights are kept, and the official test images are used once, by what was chosen.

Finished K are found in slides_q2c.csv and not done again: a stopped run goes on with the same
command. Writes slides_q2c.csv (a row per student), slides_q2c_tuning.csv, slides_q2c_summary.csv
(means and paired differences with 95 % t intervals) and slides_q2c.png under benchmarks/results/.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import csv
import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import torch
from torch import Tensor

from qkd_qiskit.data.splits import Data, Split, load_data
from qkd_qiskit.distillation.population import DistillationData, Member
from qkd_qiskit.distillation.trainer import train_population
from qkd_qiskit.experiments.evaluation import exact_logits
from qkd_qiskit.experiments.statistics import mean_interval, paired_gain
from qkd_qiskit.recipe import DataSpec, DistillSpec, StudentSpec, TeacherSpec
from qkd_qiskit.recipe.seeds import generator
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.teachers.base import Teacher
from qkd_qiskit.teachers.teacher import make_teacher

RESULTS = Path(__file__).parent / "results"
POINTS = (50, 100, 200, 500, 1000, 5000)
EPOCHS = {50: 100, 100: 80, 200: 60, 500: 40, 1000: 30, 5000: 10}
TUNING_SEEDS = (100, 101, 102)
RATES = (0.001, 0.003, 0.01)
TEACHER_RATES = (0.003, 0.01)
TEMPERATURES = (1.0, 4.0)
MAP_WEIGHTS = (1.0, 10.0)
SAME, ALL = ("quanvolution", "convolution", "random"), ("quanvolution_all", "convolution_all")
KINDS = {"random": "random_quanvolution"} | {f"{kind}_all": kind for kind in SAME[:2]}
SHUFFLED = "quanvolution_shuffled"
TEACHERS = (*SAME, *ALL, SHUFFLED)
LAYER = "filters"
_WATCHED = 32  # validation images of the training's own display; `selection: last` needs none
_GROUP = 5  # seeds that train together: feature maps of 5,000 images each


@dataclass(frozen=True)
class Setting:
    """How an arm is trained: what validation images choose."""

    lr: float
    temperature: float = 1.0
    map_weight: float = 1.0


@dataclass(frozen=True)
class Arm:
    """What a student learns from.

    Attributes:
        teacher: One of TEACHERS; none for the student alone.
        terms: alone, logits, feature, both, or slides: both with the slides' setting.
    """

    teacher: str
    terms: str

    @property
    def name(self) -> str:
        """As it stands in the tables."""
        return self.terms if self.terms == "alone" else f"{self.teacher}: {self.terms}"

    def settings(self, lr: float) -> list[Setting]:
        """The settings to choose from."""
        kd, maps = self.terms in ("logits", "both"), self.terms in ("feature", "both")
        return [
            Setting(lr, temperature, weight)
            for temperature in (TEMPERATURES if kd else TEMPERATURES[:1])
            for weight in (MAP_WEIGHTS if maps else MAP_WEIGHTS[:1])
        ]

    def weights(self, setting: Setting) -> dict[str, float]:
        """The weights of the loss terms."""
        return {
            "ce_weight": 1.0,
            "kd_weight": float(self.terms in ("logits", "both", "slides")),
            "feature_weight": setting.map_weight * (self.terms in ("feature", "both", "slides")),
        }


ALONE = Arm("", "alone")
ARMS = (
    ALONE,
    *(Arm("quanvolution", terms) for terms in ("logits", "feature", "both")),
    *(Arm("quanvolution_all", terms) for terms in ("logits", "feature", "both")),
    Arm("quanvolution", "slides"),
    Arm(SHUFFLED, "both"),
    Arm("convolution", "both"),
    Arm("random", "both"),
    Arm("convolution_all", "both"),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One student, or one teacher (arm `teacher: NAME`), on the official test images."""

    points: int
    arm: str
    seed: int
    accuracy: float
    lr: float
    temperature: float
    map_weight: float


class Study:
    """Data, teachers and training of one K."""

    def __init__(self, data: Data, points: int, everyone: dict[str, Teacher]) -> None:
        self.data, self.points, self.everyone = data, points, everyone
        self.teachers: dict[tuple[str, int], Teacher] = {}

    def spec(self, setting: Setting) -> DistillSpec:
        """How students are trained."""
        return DistillSpec(
            epochs=EPOCHS[self.points],
            batch_size=64 if self.points > 1000 else 32,
            lr=setting.lr,
            temperature=setting.temperature,
            feature_weight=1.0,
            teacher_layer=LAYER,
            student_layer=LAYER,
            selection="last",
        )

    def draw(self, seed: int) -> Split:
        """The training images of a seed."""
        return self.data.pool[self.data.draw_points(self.points, seed=seed)]

    def make_teacher(self, name: str, seed: int, *, lr: float) -> Teacher:
        """Return a teacher trained on the draw of a seed, from a start that no student has."""
        own = self.spec(Setting(lr))
        spec = TeacherSpec(
            kind=KINDS.get(name, name),
            epochs=own.epochs,
            batch_size=own.batch_size,
            lr=lr,
        )
        return make_teacher(spec, replace(self.data, pool=self.draw(seed)), seed=seed, cache=False)

    def train(
        self, wanted: Sequence[tuple[Arm, Setting]], seeds: Sequence[int]
    ) -> dict[tuple[Arm, Setting, int], dict[str, Tensor]]:
        """Return the trained parameters; arms of one rate and temperature train together."""
        found: dict[tuple[Arm, Setting, int], dict[str, Tensor]] = {}
        groups: dict[tuple[float, float], list[tuple[Arm, Setting]]] = {}
        for arm, setting in wanted:
            groups.setdefault((setting.lr, setting.temperature), []).append((arm, setting))
        for start in range(0, len(seeds), _GROUP):
            some = seeds[start : start + _GROUP]
            names = list(dict.fromkeys(arm.teacher for arm, _ in wanted if arm.teacher))
            examples = self.distillation_data(names, some)
            for pairs in groups.values():
                found |= self._train(pairs, some, names=names, examples=examples)
        return found

    def _train(
        self,
        pairs: Sequence[tuple[Arm, Setting]],
        seeds: Sequence[int],
        *,
        names: Sequence[str],
        examples: DistillationData,
    ) -> dict[tuple[Arm, Setting, int], dict[str, Tensor]]:
        keys = [(arm, setting, seed) for arm, setting in pairs for seed in seeds]
        members = [
            Member(arm=f"{arm.name} {setting}", seed=seed, **arm.weights(setting))
            for arm, setting, seed in keys
        ]
        rows = [seeds.index(seed) * self.points for *_, seed in keys]
        taught = [names.index(arm.teacher) if arm.teacher else 0 for arm, *_ in keys]
        trained = train_population(
            self.student(0),
            members,
            starts=[dict(self.student(seed).named_parameters()) for *_, seed in keys],
            examples=replace(
                examples,
                draws=torch.arange(self.points) + torch.tensor(rows)[:, None],
                teachers=torch.tensor(taught),
            ),
            spec=self.spec(pairs[0][1]),
        )
        return {key: one.state for key, one in zip(keys, trained, strict=True)}

    def examples(self, names: Sequence[str], seeds: Sequence[int]) -> DistillationData:
        """Return examples whose pool is the draws of the seeds, one after the other."""
        splits = [self.draw(seed) for seed in seeds]
        images = torch.cat([split.images for split in splits])
        logits = torch.zeros(max(1, len(names)), len(images), self.data.num_classes)
        maps = torch.zeros(max(1, len(names)), len(images), 3, 14, 14)
        for place, name in enumerate(names):
            for number, (seed, split) in enumerate(zip(seeds, splits, strict=True)):
                own = name.removesuffix("_shuffled")
                teacher = self.everyone.get(own) or self.teachers[own, seed]
                rows = slice(number * self.points, (number + 1) * self.points)
                logits[place, rows] = teacher.logits(split.images, cache=False)
                found = teacher.features(split.images, layer=LAYER, cache=False)
                if name == SHUFFLED:
                    order = generator(seed, "shuffled maps")
                    found = found[torch.randperm(self.points, generator=order)]
                maps[place, rows] = found
        watched = self.data.validation[torch.arange(_WATCHED)]
        return DistillationData(
            inputs=images,
            labels=torch.cat([split.labels for split in splits]),
            teacher_logits=logits,
            teachers=torch.zeros(0, dtype=torch.int64),
            draws=torch.zeros(0, 0, dtype=torch.int64),
            validation_inputs=watched.images,
            validation_labels=watched.labels,
            featured=torch.arange(len(images)),
            teacher_features=maps,
        )

    def student(self, seed: int) -> Student:
        """The student of a seed before training."""
        return make_student(
            StudentSpec(kind="convolution"),
            image_shape=self.data.image_shape,
            num_classes=self.data.num_classes,
            seed=seed,
        )

    def accuracy(self, state: dict[str, Tensor], split: Split) -> float:
        """Share of the images that a student with these parameters classifies rightly."""
        student = self.student(0)
        student.load_parameters(state)
        return share(exact_logits(student, split.images), split.labels)


def share(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(dim=1) == labels).double().mean().item()


def tune(study: Study) -> tuple[dict[Arm, Setting], float, list[dict[str, Any]]]:
    """Return each arm's setting and the teachers' rate, and what was tried, on validation."""
    split, tried = study.data.validation, []

    def note(what: str, setting: Setting, accuracies: Sequence[float]) -> float:
        mean = statistics.fmean(accuracies)
        tried.append({"points": study.points, "what": what, **asdict(setting), "validation": mean})
        return mean

    def best(arms: Sequence[Arm], settings: dict[Arm, list[Setting]]) -> dict[Arm, Setting]:
        wanted = [(arm, setting) for arm in arms for setting in settings[arm]]
        found = study.train(wanted, TUNING_SEEDS)
        means: dict[Arm, list[tuple[float, Setting]]] = {}
        for arm, setting in wanted:
            each = [study.accuracy(found[arm, setting, seed], split) for seed in TUNING_SEEDS]
            means.setdefault(arm, []).append((note(arm.name, setting, each), setting))
        return {arm: max(pairs, key=lambda pair: pair[0])[1] for arm, pairs in means.items()}

    rates = best([ALONE], {ALONE: [Setting(rate) for rate in RATES]})
    lr = rates[ALONE].lr
    teacher_rates = {}
    for rate in TEACHER_RATES:
        for seed in TUNING_SEEDS:
            teacher = study.make_teacher("quanvolution", seed, lr=rate)
            study.teachers[f"{rate}", seed] = teacher
        each = [
            share(study.teachers[f"{rate}", seed].logits(split.images, cache=False), split.labels)
            for seed in TUNING_SEEDS
        ]
        teacher_rates[rate] = note("teacher: quanvolution", Setting(rate), each)
    teacher_lr = max(teacher_rates, key=lambda rate: teacher_rates[rate])
    make_teachers(study, TUNING_SEEDS, lr=lr, quantum_lr=teacher_lr)
    others = [arm for arm in ARMS if arm is not ALONE and arm.terms != "slides"]
    chosen = best(others, {arm: arm.settings(lr) for arm in others})
    slides = {arm: Setting(lr) for arm in ARMS if arm.terms == "slides"}
    return {ALONE: Setting(lr), **slides, **chosen}, teacher_lr, tried


def make_teachers(study: Study, seeds: Sequence[int], *, lr: float, quantum_lr: float) -> None:
    """Train the teachers of the same images; a convolution has the students' learning rate."""
    study.teachers = {
        (name, seed): study.make_teacher(
            name, seed, lr=quantum_lr if name == "quanvolution" else lr
        )
        for name in SAME
        for seed in seeds
    }


def run_points(study: Study, seeds: Sequence[int]) -> tuple[list[Row], list[dict[str, Any]]]:
    chosen, teacher_lr, tried = tune(study)
    test = study.data.test
    make_teachers(study, seeds, lr=chosen[ALONE].lr, quantum_lr=teacher_lr)
    rows = [
        Row(study.points, f"teacher: {name}", seed, teacher.accuracy, math.nan, math.nan, math.nan)
        for (name, seed), teacher in study.teachers.items()
    ]
    rows += [
        Row(study.points, f"teacher: {name}", seed, one.accuracy, math.nan, math.nan, math.nan)
        for name, one in study.everyone.items()
        for seed in seeds
    ]
    for (arm, setting, seed), state in study.train(list(chosen.items()), seeds).items():
        accuracy = study.accuracy(state, test)
        rows.append(Row(study.points, arm.name, seed, accuracy, *asdict(setting).values()))
    return rows, tried


def teachers_of_all(data: Data) -> dict[str, Teacher]:
    """Return a teacher of each kind, trained on all images of the pool."""
    spec = TeacherSpec(epochs=10, batch_size=128, lr=0.003)
    return {name: make_teacher(replace(spec, kind=KINDS[name]), data, seed=0) for name in ALL}


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return means, and paired differences to the student alone, with 95 % t intervals."""
    found = []
    values: dict[tuple[int, str], list[float]] = {}
    for row in sorted(rows, key=lambda row: row.seed):
        values.setdefault((row.points, row.arm), []).append(row.accuracy)
    for (points, arm), accuracies in values.items():
        mean, half = mean_interval([100 * accuracy for accuracy in accuracies])
        gain = paired_gain(accuracies, values[points, "alone"])
        low, high = gain.ci95
        found.append(
            {
                "points": points, "arm": arm, "seeds": len(accuracies), "accuracy": mean,
                "half_width": half, "gain": gain.mean, "gain_low": low, "gain_high": high,
            }
        )  # fmt: skip
    return found


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_rows(path: Path) -> list[Row]:
    kinds = {"points": int, "seed": int, "arm": str}
    return [
        Row(**{field.name: kinds.get(field.name, float)(line[field.name]) for field in fields(Row)})
        for line in read(path)
    ]


def draw(table: Sequence[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    styles = {
        "alone": ("student alone", "0.35", "o", "-"),
        "teacher: quanvolution": ("the quanvolutional teacher itself", "#8d6a9f", "x", ":"),
        "quanvolution: logits": ("logits", "#28587b", "^", "-"),
        "quanvolution: feature": ("feature maps", "#c8553d", "s", "-"),
        "quanvolution: both": ("both", "#0b6e4f", "D", "-"),
        "quanvolution: slides": ("both, T = 1 and weights 1", "#6cb28e", "D", "--"),
        f"{SHUFFLED}: both": ("both, maps shuffled", "0.6", "v", "--"),
        "convolution: both": ("both, convolutional teacher", "#d9a441", "P", "--"),
        "random: both": ("both, random filters", "#b56576", "*", "--"),
        "quanvolution_all: logits": ("logits", "#28587b", "^", "-"),
        "quanvolution_all: feature": ("feature maps", "#c8553d", "s", "-"),
        "quanvolution_all: both": ("both", "#0b6e4f", "D", "-"),
        "convolution_all: both": ("both, convolutional teacher", "#d9a441", "P", "--"),
    }
    panels = (
        ("Test accuracy, %", "accuracy", list(styles)[:5]),
        ("Gain, teacher of the same K images", "gain", list(styles)[2:9]),
        ("Gain, teacher of all images", "gain", list(styles)[9:]),
    )
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.8), layout="constrained")
    for axis, (title, key, arms) in zip(axes, panels, strict=True):
        for place, arm in enumerate(arms):
            chosen = sorted((r for r in table if r["arm"] == arm), key=lambda r: r["points"])
            label, color, marker, line = styles[arm]
            shift = 1 + 0.035 * (place - len(arms) / 2)
            bars = [
                (r["half_width"],) * 2
                if key == "accuracy"
                else (r["gain"] - r["gain_low"], r["gain_high"] - r["gain"])
                for r in chosen
            ]
            axis.errorbar(
                [r["points"] * shift for r in chosen],
                [r[key] for r in chosen],
                yerr=list(zip(*bars, strict=True)) or None,
                label=label, color=color, marker=marker, ls=line, ms=4, capsize=2, lw=1.2,
            )  # fmt: skip
        axis.set(xscale="log", xlim=(40, 6300), title=title, xlabel="training images K")
        axis.set_xticks(POINTS, [str(points) for points in POINTS])
        axis.minorticks_off()
        axis.grid(True, alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
        if key == "gain":
            axis.axhline(0, color="0.35", lw=0.8)
            axis.set_ylabel("points over the student alone")
    seeds = max((r["seeds"] for r in table), default=0)
    figure.suptitle(
        f"Fashion-MNIST: a convolution taught by a quanvolution; means of {seeds} seeds, "
        "95 % intervals"
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--points", default=",".join(map(str, POINTS)))
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = {name: RESULTS / f"slides_q2c{name}" for name in (".csv", "_tuning.csv")}
    rows, tried = read_rows(paths[".csv"]), read(paths["_tuning.csv"])
    wanted = [int(points) for points in options.points.split(",") if points]
    data = load_data(DataSpec(name="fashion_mnist", root=options.data_root))
    seeds = range(options.seeds)
    for points in wanted:
        if {row.seed for row in rows if row.points == points} >= set(seeds):
            print(f"K = {points}: found", flush=True)
            continue
        begin = time.perf_counter()
        found, more = run_points(Study(data, points, teachers_of_all(data)), list(seeds))
        rows = [row for row in rows if row.points != points] + found
        tried = [row for row in tried if int(row["points"]) != points] + more
        write(paths[".csv"], [asdict(row) for row in rows])
        write(paths["_tuning.csv"], tried)
        print(f"K = {points}: {time.perf_counter() - begin:.0f} s", flush=True)
        for line in summary(found):
            print({k: round(v, 2) if isinstance(v, float) else v for k, v in line.items()})
    table = sorted(summary(rows), key=lambda row: row["points"])
    write(RESULTS / "slides_q2c_summary.csv", table)
    draw(table, RESULTS / "slides_q2c.png")


if __name__ == "__main__":
    main()
