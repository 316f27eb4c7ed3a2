"""A whole run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar, cast

from qkd_qiskit.errors import RecipeError
from qkd_qiskit.recipe.arms import ARMS, FIRST_NOISY, PROBE, Arm, OwnArms
from qkd_qiskit.recipe.data import DataSpec
from qkd_qiskit.recipe.display import changed_settings, html_pairs, short_repr
from qkd_qiskit.recipe.models import (
    CHANGED_CIRCUITS,
    CLASSICAL_STUDENTS,
    FILTER_STUDENTS,
    IMAGE_TEACHERS,
    TWINS,
    UNTRAINED_TEACHERS,
    WITHOUT_CIRCUIT,
    StudentSpec,
    TeacherSpec,
)
from qkd_qiskit.recipe.own_arms import own_arm
from qkd_qiskit.recipe.runtime import RuntimeSpec
from qkd_qiskit.recipe.training import IDEAL_TARGETS, DistillSpec
from qkd_qiskit.recipe.validation import (
    Count,
    Range,
    Seed,
    check_fields,
    checked,
    no_such_key,
    require,
    type_hints,
    whole_number,
)

Spec = TypeVar("Spec", StudentSpec, DistillSpec)

SeedCount = Annotated[int, whole_number(most=10_000)]
SharedSeed = Annotated[
    int, Range(accepted="a whole number from 0 to 2**32 - 1", least=0, most=2**32 - 1)
]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run.

    Example:
        >>> from qkd_qiskit import DataSpec, Recipe, StudentSpec
        >>> recipe = Recipe(data=DataSpec(name="digits"), student=StudentSpec(qubits=3), seeds=5)
        >>> recipe.seeds, recipe.student.qubits, recipe.arms
        (5, 3, ('label_only', 'distilled', 'classical_twin'))

    Attributes:
        data: Which images.
        teacher: What teaches.
        student: What learns.
        distill: How it is trained.
        runtime: How jobs are submitted to a real device.
        arms: What is compared; `qkd study --help` lists the arms.
        own_arms: Arms of your own: a name, the arm that it changes (base; default: distilled), and
            the keys of student and distill that it changes, such as
            {mine: {base: distilled, distill.temperature: 2.0}}; with {taught_by: ARM} the students
            of that arm teach it, with {grown_from: ARM, student.layers: 3} its students begin as
            those of that arm, of fewer layers. Those named in arms are trained.
        targets: Where the trained students are evaluated: exact, aer, fake_<device>, a snapshot's
            file; a device with options is fake_torino:exact, fake_torino:scale=2, and
            fake_torino:aer, where Aer draws the shots in place of our own density matrices, ...
        shots: Shots per image on sampled targets.
        test_limit: Test images on sampled targets.
        seeds: Number of paired seeds, or a list of them.
        seed: Seed of what the paired seeds share: split, teacher, transpiler, shots.
    """

    data: DataSpec = field(default_factory=DataSpec)
    teacher: TeacherSpec = field(default_factory=TeacherSpec)
    student: StudentSpec = field(default_factory=StudentSpec)
    distill: DistillSpec = field(default_factory=DistillSpec)
    runtime: RuntimeSpec = field(default_factory=RuntimeSpec)
    arms: tuple[str, ...] = ("label_only", "distilled", "classical_twin")
    targets: tuple[str, ...] = ("exact", "fake_torino")
    shots: Annotated[int, whole_number(most=10_000_000)] = 4096
    test_limit: Count = 500
    seeds: SeedCount | tuple[Seed, ...] = 3
    seed: SharedSeed = 0
    own_arms: OwnArms = field(default_factory=dict, hash=False)

    __repr__ = short_repr

    def _repr_html_(self) -> str:
        sections = {
            "data": self.data,
            "teacher": self.teacher,
            "student": self.student,
            "distill": self.distill,
            "runtime": self.runtime,
        }
        said = {name: changed_settings(spec) for name, spec in sections.items()}
        first = {"data": f"{self.data.name}", "teacher": self.teacher.kind}
        first["student"] = self.student.kind
        return html_pairs(
            {
                name: ", ".join(filter(None, [first.get(name, ""), text]))
                for name, text in said.items()
            }
            | {
                "arms": ", ".join(self.arms),
                "targets": ", ".join(self.targets),
                "seeds": str(self.seeds)
                if isinstance(self.seeds, int)
                else f"those of {', '.join(map(str, self.seeds))}",
            },
            title="Recipe: settings that are not as by default",
        )

    def __post_init__(self) -> None:
        check_fields(self)
        for key in ("arms", "targets"):
            value = getattr(self, key)
            distinct = len(set(value)) == len(value) > 0
            require(distinct, key, list(value), "a list of one or more distinct names")
        seeds = self.member_seeds
        require(
            len(set(seeds)) == len(seeds) > 0,
            "seeds",
            self.seeds,
            "a number of at least 1, or a list of distinct whole numbers of at least 0",
        )
        one_of, several = cast(Any, Literal), cast(Any, tuple)
        checked("arms", several[one_of[tuple(self.arm_table)], ...], list(self.arms))
        for name in dict.fromkeys((*self.arms, *self.own_arms)):
            arm = self.arm_table[name]
            try:
                self._check_arm(name, arm)
            except RecipeError as error:
                raise (
                    error if arm.base is None else RecipeError(f"own_arms.{name}: {error}")
                ) from None
        self._check_teacher()

    def _check_teacher(self) -> None:
        kind = self.teacher.kind
        require(
            kind != "logits" or self.data.name == "arrays",
            "teacher.kind",
            kind,
            "a network to be trained, or data.name arrays with a data.file that has teacher_logits",
        )
        require(
            kind not in IMAGE_TEACHERS or self.data.backbone is None,
            "teacher.kind",
            kind,
            "softmax or mlp where data.backbone is given: it gives features, no images",
        )
        for name in self.arms if kind in UNTRAINED_TEACHERS else ():
            weight = self.distill_of(name).feature_weight
            require(
                weight == 0,
                "distill.feature_weight",
                weight,
                f"0 where teacher.kind is {kind}, which has no layers",
            )
            require(
                self.arm_table[name].targets != "untrained",
                "arms",
                list(self.arms),
                f"arms without {name} where teacher.kind is {kind}, of which no network is trained",
            )

    def _check_arm(self, name: str, arm: Arm) -> None:
        if name in self.arms:
            self._check_before(name)
        require(
            arm.kind is None or self.student.kind != "convolution",
            "arms",
            list(self.arms),
            "arms without classical twins for the student convolution, which is classical itself",
        )
        whole = ("quantum", "hybrid", "module") if arm.kind in TWINS else ("quantum", "hybrid")
        changed = arm.kind in (*TWINS, *WITHOUT_CIRCUIT, *CHANGED_CIRCUITS)
        require(
            not changed or self.student.kind in whole,
            "arms",
            list(self.arms),
            f"arms without {name} for the student {self.student.kind}: it is for the kinds "
            f"{', '.join(whole)}",
        )
        if arm.kind in CHANGED_CIRCUITS:
            self.student_of(name)
        kind = self.student.kind if arm.base is None else self.student_of(name).kind
        require(
            kind != "module" or self.student_of(name).module is not None,
            "student.module",
            None,
            "an import path `package.file:factory` where student.kind is `module`",
        )
        exactly = self.distill_of(name).gradient == "exact" and arm.train_target is None
        exactly = exactly and not arm.recalibrated
        require(
            exactly or kind not in (*FILTER_STUDENTS, *CLASSICAL_STUDENTS),
            "student.kind",
            kind,
            "another kind where distill.gradient is not exact or an arm trains through noise: "
            "filters are trained exactly, classical students have no circuit",
        )
        require(
            arm.train_target != FIRST_NOISY or self.noise_target is not None,
            "targets",
            list(self.targets),
            f"a device such as fake_torino for the arm {name}",
        )

    def _check_before(self, name: str, *, walked: tuple[str, ...] = ()) -> None:
        """Check that the arms that teach or begin an arm, one after the other, precede it."""
        arm, chain = self.arm_table[name], (*walked, name)
        for by, does in ((arm.taught_by, "teaches"), (arm.grown_from, "grows into")):
            if by is None:
                continue
            trained = by in self.arms and not self.arm_table[by].began
            require(
                trained and by not in chain,
                "arms",
                list(self.arms),
                f"the arm {by} too, which {does} {name}"
                if not trained
                else f"arms that do not {'teach' if does == 'teaches' else 'begin'} themselves: "
                f"{' by '.join([*chain, by])}",
            )
            self._check_before(by, walked=chain)

    @property
    def arms_with_probe(self) -> tuple[str, ...]:
        """Return the arms of a run: features of a network are never without the linear probe."""
        exactly = self.distill.gradient == "exact" and self.distill.train_target == "exact"
        of_ours = self.student.kind in ("quantum", "hybrid", "module")
        needs = self.data.backbone is not None and PROBE not in self.arms and exactly and of_ours
        return (*self.arms, PROBE) if needs else self.arms

    @property
    def noise_target(self) -> str | None:
        """Return the first device in targets: where arms train that name FIRST_NOISY."""
        return next((name for name in self.targets if name not in IDEAL_TARGETS), None)

    @property
    def member_seeds(self) -> tuple[int, ...]:
        """Return the seeds as a list: `seeds: 3` is 0, 1, 2."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @cached_property
    def arm_table(self) -> dict[str, Arm]:
        """Every arm that the recipe can name: the built-in ones, then its own.

        Raises:
            RecipeError: As `own_arm`.
        """
        return ARMS | {name: own_arm(name, given) for name, given in self.own_arms.items()}

    def generation_of(self, arm: str) -> int:
        """Return how many arms are trained before an arm, each the teacher or start of the next."""
        table = self.arm_table[arm]
        before = (table.taught_by, table.start, table.grown_from)
        return max((1 + self.generation_of(name) for name in before if name is not None), default=0)

    def student_of(self, arm: str) -> StudentSpec:
        """Return what learns in an arm."""
        table = self.arm_table[arm]
        changes = {} if table.kind is None else {"student.kind": table.kind}
        return _changed(self.student, changes | dict(table.changes), section="student")

    def distill_of(self, arm: str) -> DistillSpec:
        """Return how an arm is trained, but for the device of `Arm.train_target`."""
        return _changed(self.distill, self.arm_table[arm].changes, section="distill")


def _changed(spec: Spec, changes: Mapping[str, Any], *, section: str) -> Spec:
    hints = {f"{section}.{field}": kind for field, kind in type_hints(type(spec)).items()}
    own = {key: value for key, value in changes.items() if key.startswith(f"{section}.")}
    for key in own:
        if key not in hints:
            raise RecipeError(no_such_key(key, list(hints)))
    values = {
        key.partition(".")[2]: checked(key, hints[key], value, text=True)
        for key, value in own.items()
    }
    return replace(spec, **values) if values else spec
