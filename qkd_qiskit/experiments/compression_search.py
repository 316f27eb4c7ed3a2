"""Which small circuit to compress into: a search with a budget, beside random search with the same.

Candidates are native to the device: CZ (or what it has in its place) or RZZ on a line, a ring or a
patch of a heavy-hexagonal lattice, on four to six qubits so that exact noise can be afforded, as
deep as the gates allow. Validation images are halved: one half chooses, the other is looked at
once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Final

import torch
from torch import Tensor

from qkd_qiskit.circuits.encodings import ROTATIONS_PER_LAYER
from qkd_qiskit.data.splits import Data, Split
from qkd_qiskit.distillation.population import Member
from qkd_qiskit.distillation.trainer import make_distillation_data, train_population
from qkd_qiskit.errors import InputError, TargetError
from qkd_qiskit.experiments.arms import arm_data, draw_images, training_spec
from qkd_qiskit.experiments.compression import Method, Search, SearchedStudent
from qkd_qiskit.experiments.evaluation import exact_logits, logits_on
from qkd_qiskit.experiments.tasks import new_student
from qkd_qiskit.experiments.teachers import TeachersBySeed
from qkd_qiskit.recipe import CLASS_BINS, Recipe, StudentSpec
from qkd_qiskit.recipe.seeds import derive_seed, generator
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.targets import DeviceTarget, Target
from qkd_qiskit.targets.names import without_option

SPACE: Final[dict[str, tuple[Any, ...]]] = {
    "qubits": (4, 5, 6),
    "ansatz": ("ry_cz_brick", "ry_cz_line", "cz_line", "ry_cz_ring", "ry_cz_patch", "ry_rzz_line"),
    "features_per_qubit": (2, 4, 6),
    "sharpness": (4.0, 8.0, 16.0),
}
SEEDS = 2
FIRST_SHARE = 4  # of the epochs, and of the candidates that go on
MOST_IMAGES = 100  # of a half, under noise
_TRANSPILATIONS = 2
_SHORTEST = 1.0  # seconds


@dataclass(frozen=True)
class _Candidate:
    spec: StudentSpec
    gates: int


class _Trial:
    """Trains candidates and tests them on one half of the validation images."""

    def __init__(
        self, recipe: Recipe, data: Data, *, teachers: TeachersBySeed, arm: str, device: Target
    ) -> None:
        self.recipe, self.data, self.arm, self.device = recipe, data, arm, device
        self.seeds = recipe.member_seeds[:SEEDS]
        self.teachers = teachers
        order = torch.randperm(
            len(data.validation), generator=generator(recipe.seed, "search halves")
        )
        half = len(order) // 2
        self.halves = tuple(
            data.validation[rows[:MOST_IMAGES]] for rows in (order[:half], order[half:])
        )
        self.draws = torch.stack([draw_images(arm, recipe, data, seed=seed) for seed in self.seeds])

    def train(self, spec: StudentSpec, *, share: int = 1) -> list[Student]:
        """Return the students of a specification, trained for a share of the epochs."""
        recipe = replace(self.recipe, student=spec)
        distill = training_spec(self.arm, recipe, self.data)
        distill = replace(distill, epochs=max(1, distill.epochs // share), selection="last")
        if share > 1:
            distill = replace(distill, steps=None)
        students = [new_student(recipe, self.data, arm=self.arm, seed=it) for it in self.seeds]
        teachers = self.teachers.teachers
        examples = make_distillation_data(
            students[0],
            teachers,
            arm_data(self.arm, recipe, self.data),
            draws=self.draws,
            taught_by=torch.tensor([self.teachers.index_of(seed) for seed in self.seeds]),
            temperature=distill.temperature,
        )
        trained = train_population(
            students[0],
            [Member(arm=self.arm, seed=seed, ce_weight=0.0, kd_weight=1.0) for seed in self.seeds],
            starts=[student.member_parameters() for student in students],
            examples=examples,
            spec=distill,
        )
        for student, result in zip(students, trained, strict=True):
            student.load_parameters(result.state)
        return students

    def accuracy(self, students: Sequence[Student], half: int, *, noisy: bool) -> float:
        """Return the mean accuracy on a half of the validation images."""
        split = self.halves[half]
        return fmean(_accuracy(self._logits(it, split, noisy=noisy), split) for it in students)

    def _logits(self, student: Student, split: Split, *, noisy: bool) -> Tensor:
        with torch.no_grad():
            if noisy:
                logits, _ = logits_on(student, split.images, target=self.device)
                assert logits is not None
                return logits
            return exact_logits(student, split.images)


def parse_budget(text: str) -> float:
    """Return seconds from text such as 60s, 2m or 90.

    Raises:
        InputError: It is no such text, or less than a second.
    """
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
    try:
        seconds = float(text if unit is None else text[:-1]) * (unit or 1.0)
    except ValueError:
        seconds = 0.0
    if not _SHORTEST <= seconds < float("inf"):
        raise InputError(f"--budget: {text!r} is not accepted; give a time such as 60s or 5m")
    return seconds


def search_student(
    recipe: Recipe,
    data: Data,
    *,
    teachers: TeachersBySeed,
    arm: str,
    device: DeviceTarget,
    limit: int,
    seconds: float,
    fixed: Mapping[str, Any],
    on_candidate: Callable[[str], None] = lambda text: None,
) -> tuple[StudentSpec, Search]:
    """Return the student of the best candidate, and what was found.

    Half of the seconds are the search's: it trains candidates for a quarter of the epochs, and the
    best quarter of them in full. The other half is random search: candidates trained in full.

    Args:
        recipe: Of the compressed run; its student is the default.
        data: Its images.
        teachers: Who teaches the first seeds.
        arm: Arm that says which images are trained on.
        device: What the circuits must fit.
        limit: How many two-qubit gates they may have.
        seconds: For both together.
        fixed: Settings of student, by field, that are not searched.
        on_candidate: Hears of each candidate.

    Raises:
        InputError: No candidate fits.
    """
    noisy = _with_exact_noise(device)
    trial = _Trial(recipe, data, teachers=teachers, arm=arm, device=noisy)
    fitting = _Fitting(recipe.student, device=device, data=data, limit=limit)
    own = seconds / 2
    default = fitting.deepest(recipe.student)
    if default is None:
        raise InputError(
            f"--search: not even one layer of {recipe.student.ansatz} on {recipe.student.qubits} "
            f"qubits has {limit} two-qubit gates on {device.name}; give more"
        )
    entries: list[tuple[_Candidate, list[Student], int, Method]] = [
        (default, trial.train(default.spec), 1, "default")
    ]
    searches: dict[Method, Callable[..., _Found | None]] = {
        "halving": _halving,
        "random": _random,
    }
    for method, search in searches.items():
        stream = generator(derive_seed(recipe.seed, "search", 0), method)
        drawn = (fitting.deepest(spec) for spec in _candidates(recipe.student, fixed, stream))
        sampled = (candidate for candidate in drawn if candidate is not None)
        found = search(trial, sampled, seconds=own, on_candidate=on_candidate)
        if found is not None:
            entries.append((*found, method))
    best = tuple(
        SearchedStudent(
            method=method,
            tried=tried,
            qubits=candidate.spec.qubits,
            ansatz=candidate.spec.ansatz,
            layers=candidate.spec.layers,
            features=candidate.spec.features,
            sharpness=_number(candidate.spec.sharpness),
            two_qubit_gates=candidate.gates,
            selection=trial.accuracy(students, 0, noisy=True),
            confirmation=trial.accuracy(students, 1, noisy=True),
        )
        for candidate, students, tried, method in entries
    )
    # Of equally good ones the first: the default stays where nothing better is found.
    chosen = max(best, key=lambda entry: entry.selection)
    spec = next(it.spec for it, _, _, method in entries if method == chosen.method)
    return spec, Search(
        seconds=own,
        target=noisy.name,
        images=(len(trial.halves[0]), len(trial.halves[1])),
        seeds=len(trial.seeds),
        best=best,
        chosen=chosen.method,
    )


_Found = tuple[_Candidate, list[Student], int]


class _Fitting:
    """Gives a student as many layers as a device has gates for, by the gates of one to three."""

    def __init__(
        self, largest: StudentSpec, *, device: DeviceTarget, data: Data, limit: int
    ) -> None:
        self.most, self.limit = largest.layers, limit
        self.device = _quick(device.name, seed=device.seed)
        self.shape: dict[str, Any] = {
            "image_shape": data.image_shape,
            "num_classes": data.num_classes,
        }
        self._known: dict[tuple[int, str], tuple[int, int, int] | None] = {}

    def deepest(self, spec: StudentSpec) -> _Candidate | None:
        """Return the student of most layers that fits; None where none does."""
        key = (spec.qubits, spec.ansatz)
        if spec.readout in CLASS_BINS and 2**spec.qubits < self.shape["num_classes"]:
            return None
        if key not in self._known:
            try:
                one, two, three = (self._gates(spec, layers) for layers in (1, 2, 3))
                self._known[key] = one, two, three
            except TargetError:  # the device has fewer qubits
                self._known[key] = None
        known = self._known[key]
        if known is None or known[0] > self.limit:
            return None
        one, two, three = known
        odd, even = three - two, two - one  # of layers that differ in turn
        layers, gates = 1, one
        while (
            layers < self.most and gates + (added := odd if layers % 2 == 0 else even) <= self.limit
        ):
            layers, gates = layers + 1, gates + added
        rotations = ROTATIONS_PER_LAYER * spec.qubits * layers
        features = None if spec.features is None else min(spec.features, rotations)
        return _Candidate(replace(spec, layers=layers, features=features), gates)

    def _gates(self, spec: StudentSpec, layers: int) -> int:
        few = replace(spec, layers=layers, features=None)
        student = make_student(few, **self.shape)
        assert student.circuit is not None
        return self.device.compile(student.circuit).two_qubit_gates


def _candidates(
    default: StudentSpec, fixed: Mapping[str, Any], stream: torch.Generator
) -> Iterator[StudentSpec]:
    """Yield random students, each once, until all have been."""
    seen: set[StudentSpec] = set()
    unused = () if default.head == "none" else ("sharpness",)
    sizes = [len(values) for values in SPACE.values()]
    every = int(torch.tensor(sizes).prod())
    for number in torch.randperm(every, generator=stream).tolist():
        picked = {}
        for name, values in SPACE.items():
            number, place = divmod(number, len(values))
            picked[name] = values[place]
        per_qubit = picked.pop("features_per_qubit")
        own = replace(
            default, **{key: it for key, it in picked.items() if key not in (*fixed, *unused)}
        )
        if default.features is not None and "features" not in fixed:
            rotations = ROTATIONS_PER_LAYER * own.qubits * own.layers
            own = replace(own, features=min(per_qubit * own.qubits, rotations))
        if own not in seen:
            seen.add(own)
            yield own


def _halving(
    trial: _Trial,
    candidates: Iterator[_Candidate],
    *,
    seconds: float,
    on_candidate: Callable[[str], None],
) -> _Found | None:
    started = time.perf_counter()
    short: list[tuple[float, _Candidate]] = []
    for candidate in _while_there_is_time(candidates, started, seconds / 2):
        on_candidate(f"search: {_text(candidate)}")
        students = trial.train(candidate.spec, share=FIRST_SHARE)
        short.append((trial.accuracy(students, 0, noisy=False), candidate))
    short.sort(key=lambda it: -it[0])
    kept = iter([candidate for _, candidate in short[: max(1, len(short) // FIRST_SHARE)]])
    found = _random(
        trial,
        kept,
        seconds=seconds - (time.perf_counter() - started),
        on_candidate=on_candidate,
    )
    return None if found is None else (*found[:2], len(short))


def _random(
    trial: _Trial,
    candidates: Iterator[_Candidate],
    *,
    seconds: float,
    on_candidate: Callable[[str], None],
) -> _Found | None:
    started, tried = time.perf_counter(), 0
    best: tuple[float, _Candidate, list[Student]] | None = None
    for candidate in _while_there_is_time(candidates, started, seconds):
        on_candidate(f"in full: {_text(candidate)}")
        students = trial.train(candidate.spec)
        accuracy, tried = trial.accuracy(students, 0, noisy=True), tried + 1
        if best is None or accuracy > best[0]:
            best = accuracy, candidate, students
    return None if best is None else (best[1], best[2], tried)


def _while_there_is_time(
    candidates: Iterator[_Candidate], started: float, seconds: float
) -> Iterator[_Candidate]:
    """Yield candidates, at least one, as long as one more is expected to end in time."""
    for done, candidate in enumerate(candidates):
        spent = time.perf_counter() - started
        if done and spent * (done + 1) / done > seconds:
            return
        yield candidate


def _with_exact_noise(device: DeviceTarget) -> Target:
    name = without_option(device.name, "aer")
    return _quick(f"{name}:exact" if device.sampled else name, seed=device.seed)


def _quick(name: str, *, seed: int) -> DeviceTarget:
    """Return a device that tries fewer transpilations: most candidates are native to it."""
    device = Target.parse(name, seed=seed)
    assert isinstance(device, DeviceTarget)
    device.num_transpilations = _TRANSPILATIONS
    return device


def _accuracy(logits: Tensor, split: Split) -> float:
    return float((logits.argmax(dim=-1) == split.labels).double().mean())


def _number(sharpness: float | str) -> float | None:
    return None if isinstance(sharpness, str) else float(sharpness)


def _text(candidate: _Candidate) -> str:
    spec = candidate.spec
    return f"{spec.qubits} qubits, {spec.layers} layers of {spec.ansatz}"
