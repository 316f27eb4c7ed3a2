"""What result.json holds: who was trained, what it reached on each target, whether it helped.

Accuracies are fractions, gains points. Tuples with an entry for each seed follow `Result.seeds`;
their entry is None where a seed was not evaluated on a target. The order of the fields is that of
the keys in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any

from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.json_codec import OMITTED, decode, encode
from qkd_qiskit.experiments.result_tables import csv_text, gain_text, latex_table, mean_text
from qkd_qiskit.experiments.statistics import Gain
from qkd_qiskit.experiments.target_summary import DeviceJobs, TargetSummary, TrainingCost
from qkd_qiskit.recipe.arms import BASELINE, FULL_TWIN, NOISE_AWARE, TREATMENT, TUNED, TWIN
from qkd_qiskit.recipe.display import html_table

COMPARISONS = {
    "gain": (TREATMENT, BASELINE),
    "gain_over_twin": (TREATMENT, TWIN),
    "gain_over_full": (TREATMENT, FULL_TWIN),
    "gain_of_noise": (NOISE_AWARE, TREATMENT),
}
Row = dict[str, str | int | float | None]
"""An arm and a seed on a target, and its figures."""


@dataclass(frozen=True, kw_only=True)
class TeacherSummary:
    """The teacher, or the teachers of the seeds.

    Attributes:
        kind: Its architecture, or `module` for one of your own.
        accuracy: On all test images; a mean where each seed has a teacher. None where its outputs
            for them are not known.
        accuracies: Of the teacher of each seed; None where one teaches all.
        parameters: Number of its trained parameters, of an ensemble in all.
        members: Of an ensemble, the accuracy of each network; a mean over seeds. None of one
            network.
        train_accuracy: On the training images, of soft labels that came with them.
        confusion: Counts on all test images, row = label, column = choice; a sum over teachers.
    """

    kind: str
    accuracy: float | None
    accuracies: tuple[float, ...] | None = field(default=None, metadata=OMITTED)
    parameters: int | None = field(default=None, metadata=OMITTED)
    members: tuple[float, ...] | None = field(default=None, metadata=OMITTED)
    train_accuracy: float | None = field(default=None, metadata=OMITTED)
    confusion: list[list[int]] | None = field(default=None, metadata=OMITTED, repr=False)

    @property
    def title(self) -> str:
        """What tables call it: `softmax`, or of an ensemble `3 × softmax`."""
        return self.kind if self.members is None else f"{len(self.members)} × {self.kind}"


@dataclass(frozen=True, kw_only=True)
class StudentSummary:
    """Size of the student; what a student of its kind does not have is None.

    Attributes:
        qubits: Of its circuit.
        weights: Trained angles of its circuit.
        parameters: All trained parameters.
        filter_parameters: Trained parameters of its quanvolutional filters.
        two_qubit_gates: Of its circuit before transpiling.
        depth: Of its circuit before transpiling.
    """

    qubits: int | None = field(default=None, metadata=OMITTED)
    weights: int | None = field(default=None, metadata=OMITTED)
    parameters: int
    filter_parameters: int | None = field(default=None, metadata=OMITTED)
    two_qubit_gates: int | None = field(default=None, metadata=OMITTED)
    depth: int | None = field(default=None, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """One arm on one target, an entry for each seed.

    Attributes:
        accuracy: Share of test images whose class was chosen.
        exact_accuracy: The same without noise and shots.
        agreement: Share of images with the choice of the teacher; None without its logits.
        divergence: KL(teacher || student) at temperature 1, a mean in nats; None as above.
        calibration_error: Expected calibration error, 15 bins of equal width.
        images: Number of test images.
        shots: Shots per image; None where nothing was sampled.
        confusion: Counts, row = label, column = choice.
    """

    accuracy: tuple[float | None, ...]
    exact_accuracy: tuple[float | None, ...]
    agreement: tuple[float | None, ...]
    divergence: tuple[float | None, ...]
    calibration_error: tuple[float | None, ...]
    images: tuple[int | None, ...]
    shots: tuple[int | None, ...]
    confusion: tuple[list[list[int]] | None, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TriedSetting:
    """A setting of a tuned arm that was tried.

    Attributes:
        lr: Learning rate at the start.
        weight_decay: Decoupled weight decay.
        epochs: Passes over the images.
        validation_accuracy: Of each tuning seed; None where its training failed.
    """

    lr: float
    weight_decay: float
    epochs: int
    validation_accuracy: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a tuned arm got its setting.

    Attributes:
        seeds: Seeds on which settings were compared.
        chosen: The setting of the best mean validation accuracy.
        tried: All settings.
    """

    seeds: tuple[int, ...]
    chosen: TriedSetting
    tried: tuple[TriedSetting, ...]


@dataclass(frozen=True, kw_only=True)
class TwinChoice:
    """The twins of a run, and which of them is the strongest; no test image has a say in it.

    Attributes:
        best: The arm of the best mean validation accuracy.
        validation_accuracy: Mean over the seeds of each twin's; None where a training failed.
        parameters: Trained numbers of each twin.
    """

    best: str
    validation_accuracy: Mapping[str, float | None]
    parameters: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class ClassBins:
    """What the outcomes of class-bin circuits stand for, of the first seed.

    Attributes:
        seed: The seed.
        bins: Class of each outcome.
        distributions: Mean probability of each outcome, class by class, at `start` and of each arm.
    """

    seed: int
    bins: tuple[int, ...]
    distributions: Mapping[str, tuple[tuple[float, ...], ...]]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two arms on one target; the figures are those of `PairedTest`.

    Attributes:
        arm: The arm that gains.
        baseline: The arm over which.
        target: Where both were evaluated.
        left_out: Seeds at which one of the two failed to train.
        mean: Mean difference in points.
        ci95: Its 95 % t interval in points.
        seeds: Number of pairs.
        bootstrap95: Its 95 % bootstrap interval in points.
        p: Of the paired t test.
        effect: Cohen's d_z.
        detectable: Gain in points that these pairs tell from zero with a power of 0.8.
        seeds_needed: Number of seeds by planned gain in points.
        p_holm: p corrected for the number of comparisons of the result that have one.
    """

    arm: str
    baseline: str
    target: str
    left_out: tuple[str, ...]
    mean: float | None
    ci95: tuple[float, float] | None
    seeds: int
    bootstrap95: tuple[float, float] | None
    p: float | None
    effect: float | None
    detectable: float | None
    seeds_needed: Mapping[str, int | None]
    p_holm: float | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """All figures of a run; `collect.with_target` gives one with another target added.

    Attributes:
        classes: Names of the classes; empty in files of the first versions.
        sample: What one example is called, `image` or `point`.
        teacher: Who teaches.
        student: Who is taught.
        seeds: Seeds of the students.
        arms: Metrics by arm and target.
        failed: Why students were not trained, by arm and seed.
        gain: Distilled over label only, by target; as are the next three.
        gain_over_twin: Distilled over the classical twin.
        gain_over_full: Distilled over the classical twin of full size.
        gain_of_noise: Trained through noise over distilled.
        targets: Where students were evaluated, by the key of their figures.
        timing: Seconds by stage, those of the last process alone.
        versions: Of the packages.
        command: What was typed; may be empty.
        training_cost: Of populations that were trained from shots.
        tuning: Of the tuned label-only arm; None without it.
        tunings: Of other tuned arms by name; None without them.
        twins: Which twin is the strongest; None where a run has no twin but the classical one.
        outcomes: Of class-bin circuits; None for others.
        comparisons: Of all pairs of arms that are compared, target by target.
        trained_on: The device of a training by jobs; None for others.
    """

    classes: tuple[str, ...] = ()
    sample: str = "image"
    teacher: TeacherSummary
    student: StudentSummary
    seeds: tuple[int, ...]
    arms: Mapping[str, Mapping[str, Metrics]]
    failed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    gain: Mapping[str, Gain] = field(default_factory=dict)
    gain_over_twin: Mapping[str, Gain] = field(default_factory=dict)
    gain_over_full: Mapping[str, Gain] = field(default_factory=dict)
    gain_of_noise: Mapping[str, Gain] = field(default_factory=dict)
    targets: Mapping[str, TargetSummary]
    timing: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    training_cost: Mapping[str, TrainingCost] = field(default_factory=dict)
    tuning: Tuning | None = field(default=None, metadata=OMITTED)
    tunings: Mapping[str, Tuning] | None = field(default=None, metadata=OMITTED)
    twins: TwinChoice | None = field(default=None, metadata=OMITTED)
    outcomes: ClassBins | None = field(default=None, metadata=OMITTED)
    comparisons: tuple[Comparison, ...] = ()
    trained_on: DeviceJobs | None = field(default=None, metadata=OMITTED)

    def tuning_of(self, arm: str) -> Tuning | None:
        """Return how a tuned arm got its setting; None where this is not known."""
        return self.tuning if arm == TUNED else (self.tunings or {}).get(arm)

    def to_json(self) -> dict[str, Any]:
        """Return the content of result.json."""
        content: dict[str, Any] = encode(self)
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, where: object = "result.json") -> Result:
        """Return what a file holds, whatever version wrote it.

        Raises:
            CheckpointError: A value is missing or of another type.
        """
        return decode(cls, content, where=where)

    def kept_rows(self, *arms: str, target: str | None = None) -> list[int]:
        """Return the positions in `seeds` at which none of the arms failed.

        Args:
            arms: Which arms.
            target: Only seeds that were evaluated there; default: all.
        """
        failed = {seed for arm in arms for seed in self.failed.get(arm, {})}
        own = None if target is None else self.targets[target].seeds
        return [
            row
            for row, seed in enumerate(self.seeds)
            if str(seed) not in failed and (own is None or seed in own)
        ]

    def accuracies(self, arm: str, target: str, rows: Sequence[int]) -> list[float]:
        """Return the accuracies of an arm on a target, at positions where it was evaluated."""
        values = self.arms[arm][target].accuracy
        return [value for row in rows if (value := values[row]) is not None]

    def num_images(self, target: str) -> int:
        """Return the number of test images of a target."""
        metrics = next(iter(self.arms.values()))[target]
        return next(images for images in metrics.images if images is not None)

    def gains(self, name: str) -> Mapping[str, Gain]:
        """Return the gains of one of `COMPARISONS`, by target."""
        gains: Mapping[str, Gain] = getattr(self, name)
        return gains

    def comparison(self, arm: str, baseline: str, target: str) -> Comparison | None:
        """Return the comparison of two arms on a target; None where the run has none."""
        wanted = (arm, baseline, target)
        entries = (it for it in self.comparisons if (it.arm, it.baseline, it.target) == wanted)
        return next(entries, None)

    def rows(self) -> list[Row]:
        """Return a row for each arm, target and seed that was evaluated, for tables of your own."""
        names = [item.name for item in fields(Metrics) if item.name != "confusion"]
        return [
            {
                "arm": arm,
                "target": target,
                "seed": seed,
                "failed": self.failed.get(arm, {}).get(str(seed)),
                **{name: getattr(metrics, name)[row] for name in names},
            }
            for arm, by_target in self.arms.items()
            for target, metrics in by_target.items()
            for row, seed in enumerate(self.seeds)
            if metrics.accuracy[row] is not None
        ]

    def to_frame(self) -> Any:
        """Return `rows` as a `pandas.DataFrame`.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise InputError(
                "to_frame needs pandas, which is not installed; pip install pandas, or take rows()"
            ) from error
        return pandas.DataFrame(self.rows())

    def to_csv(self) -> str:
        """Return `rows` as CSV."""
        return csv_text(self.rows())

    def to_latex(self) -> str:
        """Return mean accuracies as a LaTeX table, for the package booktabs."""
        return latex_table(*self._summary(r"$\pm$"), caption=self._caption())

    def __repr__(self) -> str:
        arms, targets, count = ", ".join(self.arms), ", ".join(self.targets), len(self.seeds)
        gains = "".join(f"; gain on {name} {gain_text(gain)}" for name, gain in self.gain.items())
        return f"Result({count} seed{'s' * (count != 1)} of {arms} on {targets}{gains})"

    def _repr_html_(self) -> str:
        heads, rows = self._summary("±")
        for name, arms in COMPARISONS.items():
            gains = self.gains(name)
            if gains:
                cells = (gain_text(gains[it]) if it in gains else "" for it in self.targets)
                rows.append([" - ".join(arms).replace("_", " "), *cells])
        return html_table(
            heads, rows, caption=f"{self._caption()} Differences in points, 95 % t interval."
        )

    def _summary(self, sign: str) -> tuple[list[str], list[list[str]]]:
        """Return heads and rows of the table of mean accuracies, an arm a row."""
        rows = [
            [arm.replace("_", " ")]
            + [
                mean_text(
                    self.accuracies(arm, target, self.kept_rows(arm, target=target)), sign=sign
                )
                for target in self.targets
            ]
            for arm in self.arms
        ]
        return ["arm", *self.targets], rows

    def _caption(self) -> str:
        conditions = []
        for name, target in self.targets.items():
            shots = "no shots" if target.shots is None else f"{target.shots} shots"
            date = f", calibrated {target.calibration_date}" if target.calibration_date else ""
            model = ", a noise model: a best case" if target.noisy else ""
            model += ", shots by Aer" if target.by_aer else ""
            conditions.append(
                f"{name}: {self.num_images(name)} {self.sample}s, {shots}{date}{model}"
            )
        count = len(self.seeds)
        return (
            f"Test accuracy in %, mean of {count} seed{'s' * (count != 1)} and half of its 95 % t "
            f"interval. {'; '.join(conditions)}."
        )
