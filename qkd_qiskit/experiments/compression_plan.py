"""A trained circuit distilled into circuits that fit a device: what is trained, what comes of it.

The students of the new run have one depth after the other, each grown from the one before (see
`students.growth`) and taught without labels by the students of an earlier run, or by its teacher.
The two-qubit gates of every depth are counted after transpiling; the last depth that fits ends it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from qkd_qiskit.circuits.encodings import ROTATIONS_PER_LAYER
from qkd_qiskit.data.splits import load_data
from qkd_qiskit.errors import InputError, RecipeError, TargetError
from qkd_qiskit.experiments.compression import CompressedDepth, Compression, Search, TeacherChoice
from qkd_qiskit.experiments.compression_search import SEEDS, search_student
from qkd_qiskit.experiments.run_folder import TEACHER, RunFolder
from qkd_qiskit.experiments.student_teachers import teacher_of_students
from qkd_qiskit.experiments.teachers import TeachersBySeed, load_teachers, teacher_files
from qkd_qiskit.recipe import CLASS_BINS, Recipe, StudentSpec, TeacherSpec
from qkd_qiskit.recipe.arms import BASELINE, TRANSFER, TREATMENT
from qkd_qiskit.recipe.parsing import flat_recipe, parse_recipe, parse_spec
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import load_student, make_student
from qkd_qiskit.students.growth import check_growth, keeps_outcomes, spec_of_depth
from qkd_qiskit.targets import DeviceTarget, Target

logger = logging.getLogger(__name__)

MOST_LAYERS = 200
FEATURES_PER_QUBIT = 4
OWN_KEYS = ("student.", "distill.", "seeds", "shots", "test_limit")
"""Keys of a recipe that can be given, by how they begin; all else is the earlier run's."""
TEACHERS: tuple[TeacherChoice, ...] = ("student", "ensemble", "classical")


def plan_compression(
    earlier: RunFolder,
    *,
    target: str,
    max_two_qubit_gates: int,
    teacher: TeacherChoice = "student",
    arm: str | None = None,
    grow_by: int | None = None,
    changes: Mapping[str, Any] | None = None,
    search_seconds: float | None = None,
    on_candidate: Callable[[str], None] = lambda text: None,
) -> tuple[Recipe, Compression]:
    """Return the recipe of a run that compresses an earlier one, and what to keep beside it.

    Args:
        earlier: Has ended.
        target: A device, as `Target.parse` takes it.
        max_two_qubit_gates: How many two-qubit gates the circuits may have on it.
        teacher: Who teaches.
        arm: Arm of the students that teach; default: distilled, or the first with a circuit.
        grow_by: Layers that one depth has more than the one before, and the first has; default: 1,
            of ry_cz_brick, whose layers have even and odd pairs in turn, 2.
        changes: Values by dotted key of the recipe (see `OWN_KEYS`) in place of those that follow
            from the earlier run; student.layers is the most layers that are tried.
        search_seconds: How long students are searched for (see `compression_search`); None = not.
        on_candidate: Hears of each that is looked at.

    Raises:
        InputError: The earlier run has not ended or has no such arm, a key is not accepted, the
            target has no coupling map, or the smallest circuit has too many gates.
    """
    changes = dict(changes or {})
    earlier.ended()
    _check_request(target, max_two_qubit_gates, teacher, grow_by, changes)
    arm = _arm_of(earlier, arm)
    shape = load_student(earlier.member(arm, earlier.recipe.member_seeds[0]))
    base = _base_recipe(earlier, arm, shape=shape, changes=changes)
    device = Target.parse(target, shots=base.shots, seed=base.seed)
    if not isinstance(device, DeviceTarget):
        raise InputError(
            f"--target: {target!r} has no coupling map that circuits could fit; give a device, as "
            "in --target fake_torino"
        )
    search = None
    if search_seconds is not None:
        base, search = _searched(
            base,
            earlier,
            teacher=teacher,
            arm=arm,
            device=device,
            limit=max_two_qubit_gates,
            seconds=search_seconds,
            fixed={key.partition(".")[2]: value for key, value in changes.items()},
            on_candidate=on_candidate,
        )
    if grow_by is None:
        grow_by = 2 if base.student.ansatz == "ry_cz_brick" else 1
    depths, refused = _depths_that_fit(
        base.student, shape, device, limit=max_two_qubit_gates, grow_by=grow_by
    )
    if len(depths) > 1 and not keeps_outcomes(base.student):
        logger.warning(
            "student.encoding %s enters the features again in front of an added layer: each depth "
            "starts warm, not exactly as the one before",
            base.student.encoding,
        )
    recipe = _with_depths(base, depths, spec=_teacher(earlier, teacher, arm), target=target)
    compression = Compression(
        run=str(earlier.path.absolute()),
        teacher=teacher,
        arm=arm,
        target=device.name,
        max_two_qubit_gates=max_two_qubit_gates,
        depths=tuple(depths),
        refused=refused,
        teacher_gates=_gates_of(shape, device),
        search=search,
    )
    return recipe, compression


def _check_request(
    target: str, limit: int, teacher: str, grow_by: int | None, changes: Mapping[str, Any]
) -> None:
    for name, value in (("--max-two-qubit-gates", limit), ("--grow-by", grow_by)):
        if value is not None and value < 1:
            raise InputError(f"{name}: {value} is not accepted; give a whole number of at least 1")
    if teacher not in TEACHERS:
        raise InputError(f"--teacher: {teacher!r} is not accepted; give {', '.join(TEACHERS)}")
    for key in changes:
        if not key.startswith(OWN_KEYS):
            raise RecipeError(
                f"{key}: data and teacher are those of the run that is compressed, arms and "
                "targets follow from the device; give keys of student and distill, seeds, shots "
                "or test_limit"
            )


def _arm_of(earlier: RunFolder, arm: str | None) -> str:
    arms = earlier.recipe.arms
    if arm is None:
        return TREATMENT if TREATMENT in arms else arms[0]
    if arm not in arms:
        raise InputError(f"--arm: {earlier.path} has no arm {arm!r}; give one of {', '.join(arms)}")
    return arm


def _base_recipe(
    earlier: RunFolder, arm: str, *, shape: Student, changes: Mapping[str, Any]
) -> Recipe:
    """Return the earlier recipe with a student that can be grown, trained without labels."""
    old = earlier.recipe
    spec, distill = old.student_of(arm), old.distill_of(arm)
    hybrid = changes.get("student.kind", spec.kind) == "hybrid"
    student = {
        "kind": "hybrid" if hybrid else "quantum",
        "qubits": spec.qubits,
        "encoding": "angle" if hybrid else "trained_reuploading",
        "ansatz": "cz_line" if hybrid else "ry_cz_brick",
        "layers": MOST_LAYERS,
        "reduction": "linear" if hybrid else "pca",
        "readout": spec.readout if hybrid or spec.readout in CLASS_BINS else "bins",
        "head": spec.head if hybrid else "none",
        "head_width": spec.head_width,
        "sharpness": spec.sharpness,
    }
    training = {
        "epochs": distill.epochs,
        "batch_size": distill.batch_size,
        "lr": distill.lr,
        "schedule": distill.schedule,
        "temperature": distill.temperature,
        "student_temperature": distill.student_temperature,
        "ce_weight": 0.0,
        "kd_weight": 1.0,
        "selection": distill.selection,
        "unlabelled": distill.unlabelled,
    }
    kept = {
        key: value
        for key, value in flat_recipe(old).items()
        if not key.startswith(("student.", "distill.")) and key not in ("arms", "own_arms")
    }
    values = (
        kept
        | {f"student.{key}": value for key, value in student.items()}
        | {f"distill.{key}": value for key, value in training.items()}
        | {"arms": [BASELINE], "targets": ["exact"]}
    )
    recipe = parse_recipe(values | dict(changes))
    own = recipe.student
    if own.encoding == "trained_reuploading" and "student.features" not in changes:
        most = (FEATURES_PER_QUBIT * own.qubits, ROTATIONS_PER_LAYER * own.qubits * own.layers)
        features = min(*most, math.prod(shape.image_shape))
        recipe = replace(recipe, student=replace(own, features=features))
    return recipe


def _searched(
    base: Recipe,
    earlier: RunFolder,
    *,
    teacher: TeacherChoice,
    arm: str,
    device: DeviceTarget,
    limit: int,
    seconds: float,
    fixed: Mapping[str, Any],
    on_candidate: Callable[[str], None],
) -> tuple[Recipe, Search]:
    """Return the recipe with the student that a search has found, as deep as the gates allow."""
    data = load_data(base.data, seed=base.seed)
    seeds = base.member_seeds[:SEEDS]
    if teacher == "classical":
        teachers = load_teachers(earlier, data)
    else:
        exact = Target.parse("exact")
        known = earlier.recipe.member_seeds
        groups = {seed: (seed,) if teacher == "student" else known for seed in seeds}
        made = {
            group: teacher_of_students(
                [earlier.member(arm, seed) for seed in group], data, target=exact
            )
            for group in dict.fromkeys(groups.values())
        }
        teachers = TeachersBySeed({seed: made[group] for seed, group in groups.items()})
    spec, search = search_student(
        base,
        data,
        teachers=teachers,
        arm=_base_arm(base),
        device=device,
        limit=limit,
        seconds=seconds,
        fixed=fixed,
        on_candidate=on_candidate,
    )
    return replace(base, student=replace(spec, layers=base.student.layers)), search


def _base_arm(recipe: Recipe) -> str:
    """Return the arm that says what is trained on.

    Where every image of the pool is labelled, the teacher labels them all anew.
    """
    given = recipe.data.train_per_class, recipe.data.train_points
    return TREATMENT if given == (None, None) else TRANSFER


def _depths_that_fit(
    spec: StudentSpec,
    shape: Student,
    device: DeviceTarget,
    *,
    limit: int,
    grow_by: int,
) -> tuple[list[CompressedDepth], int | None]:
    """Return the depths within a number of gates, and the gates of the first that is not."""
    depths: list[CompressedDepth] = []
    for layers in range(min(grow_by, spec.layers), spec.layers + 1, grow_by):
        own = spec_of_depth(spec, layers)
        if depths:
            check_growth(spec_of_depth(spec, depths[-1].layers), own)
        student = make_student(own, image_shape=shape.image_shape, num_classes=shape.num_classes)
        assert student.circuit is not None
        gates = device.compile(student.circuit).two_qubit_gates
        if gates > limit:
            if not depths:
                raise InputError(
                    f"--max-two-qubit-gates: {limit} is not accepted; the smallest student, "
                    f"{layers} layer{'s' * (layers != 1)} of {spec.ansatz} on {spec.qubits} qubits "
                    f"behind the encoding {spec.encoding}, takes {gates} on {device.name}: give "
                    f"{gates} or more, or fewer --student.qubits"
                )
            return depths, gates
        depths.append(CompressedDepth(arm=f"layers_{layers}", layers=layers, two_qubit_gates=gates))
    return depths, None


def _with_depths(
    base: Recipe, depths: list[CompressedDepth], *, spec: TeacherSpec, target: str
) -> Recipe:
    """Return a recipe with an arm for each depth, and label-only students of the last."""
    base_arm = _base_arm(base)
    own_arms: dict[str, dict[str, Any]] = {}
    for before, depth in zip([None, *depths], depths, strict=False):
        own_arms[depth.arm] = {"base": base_arm, "student.layers": depth.layers}
        features = spec_of_depth(base.student, depth.layers).features
        if features is not None:
            own_arms[depth.arm]["student.features"] = features
        if before is not None:
            own_arms[depth.arm]["grown_from"] = before.arm
    return replace(
        base,
        teacher=spec,
        student=spec_of_depth(base.student, depths[-1].layers),
        arms=(BASELINE, *own_arms),
        own_arms=own_arms,
        targets=("exact", target),
    )


def _teacher(earlier: RunFolder, teacher: TeacherChoice, arm: str) -> TeacherSpec:
    spec = earlier.recipe.teacher
    if teacher != "classical":
        seed: Literal["each", "all"] = "each" if teacher == "student" else "all"
        return TeacherSpec(kind="run", run=str(earlier.path), arm=arm, seed=seed)
    if spec.kind == "run":
        raise InputError(
            f"--teacher: {earlier.path} was taught by the students of {spec.run}, not by a "
            "classical teacher; give student or ensemble, or compress that run"
        )
    files = set(teacher_files(earlier.recipe).values())
    if files != {(TEACHER,)}:
        return spec  # of soft labels, or of several networks: made again, to the same weights
    path = earlier.path / TEACHER
    return parse_spec(
        TeacherSpec,
        {
            "kind": spec.kind,
            "module": spec.module,
            "outputs": spec.outputs,
            "checkpoint": str(path.absolute()),
            "train_per_class": spec.train_per_class,
        },
        section="teacher",
    )


def _gates_of(student: Student, device: DeviceTarget) -> int | None:
    if student.circuit is None:
        return None
    try:
        return device.compile(student.circuit).two_qubit_gates
    except TargetError:  # it does not fit the device at all
        return None
