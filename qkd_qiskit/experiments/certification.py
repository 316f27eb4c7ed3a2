"""Does the circuit of a trained run matter, or can it be left out?

An arm's students are fitted again, seed by seed with the same images, order, loss and teacher: as
twins of at most as many trained numbers, without their circuit, without its gates on two qubits,
with a circuit that is not trained. What is fitted lies in the run, under certify/ARM/, and is not
fitted twice.

- It can be left out where the best model without a circuit of at most as many trained numbers, by
  validation accuracy, is as good: the 95 % interval of what the students are ahead of it ends below
  the margin.
- Else it matters where the students are ahead of every one of these models, each by Holm's p below
  0.05 over all comparisons, with five pairs or more.
- Otherwise it is open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from qkd_qiskit.data.splits import Data
from qkd_qiskit.errors import CircuitError, InputError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.certificate import (
    CERTIFICATE,
    Certificate,
    ClosedForm,
    Variant,
    Verdict,
)
from qkd_qiskit.experiments.evaluation_set import evaluate_members
from qkd_qiskit.experiments.json_codec import encode
from qkd_qiskit.experiments.results import Comparison
from qkd_qiskit.experiments.run_folder import CERTIFY, RECIPE, RunFolder, write_json
from qkd_qiskit.experiments.statistics import LEAST_PAIRS, LEVEL, compare, holm
from qkd_qiskit.experiments.tasks import (
    RunContext,
    is_trained,
    new_student,
    train_task,
    training_tasks,
)
from qkd_qiskit.experiments.teachers import TeachersBySeed
from qkd_qiskit.experiments.twin_choice import mean_validation_accuracy
from qkd_qiskit.recipe import CHANGED_CIRCUITS, TWINS, Recipe
from qkd_qiskit.recipe.arms import ARMS
from qkd_qiskit.recipe.parsing import dump_recipe
from qkd_qiskit.storage import write_text
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.students.quantum import QuantumStudent
from qkd_qiskit.students.reductions import TRAINED
from qkd_qiskit.students.surrogate import (
    export_onnx,
    export_surrogate,
    largest_difference,
    make_surrogate,
    require_onnx,
)
from qkd_qiskit.targets import Target

MARGIN = 1.0  # points
TARGET = "exact"
_PROBE: Final = "linear_probe"
_SUFFIX = "_refit"  # of an arm's name: the names of built-in arms are taken
_IMAGES = 200  # on which the closed form is compared


def certify(
    folder: RunFolder,
    *,
    data: Data,
    teachers_by_seed: TeachersBySeed,
    arm: str,
    margin: float = MARGIN,
    onnx: bool = False,
    callback: Callback | None = None,
) -> Certificate:
    """Return whether the circuit of a run that has ended matters, and write it into the run.

    Args:
        folder: The run.
        data: Its images.
        teachers_by_seed: Its teachers.
        arm: Whose students.
        margin: Points below which a model without a circuit is as good.
        onnx: Whether the closed forms are written as ONNX files too.
        callback: Hears of the progress.

    Raises:
        InputError: The arm has no circuit, or was not trained exactly; the margin is negative; ONNX
            cannot be written, as onnxscript is not installed.
        CheckpointError: The run has not ended.
        StorageError: The folder cannot be written.
    """
    folder.ended()
    check_request(folder.recipe, arm=arm, margin=margin)
    if onnx:
        require_onnx()
    callback = callback or Callback()
    recipe, refused = _refits(folder.recipe, data, arm=arm)
    refits = RunFolder(folder.path / CERTIFY / arm, recipe)
    write_text(refits.path / RECIPE, dump_recipe(recipe))
    target = Target.parse(TARGET)
    context = RunContext(
        folder=refits,
        data=data,
        teachers_by_seed=teachers_by_seed,
        targets=[target],
        starts=_probe_starts(folder, recipe, data, arm=arm),
    )
    for task in training_tasks(recipe):
        if not is_trained(refits, task):
            callback.stage(task.arms[0].removesuffix(_SUFFIX))
            train_task(context, task, callback=callback)
            refits.checkpoint(task.name).unlink(missing_ok=True)
    callback.stage(TARGET)
    shared: dict[str, Any] = {"data": data, "teachers_by_seed": teachers_by_seed}
    own = [(arm, seed) for seed in recipe.member_seeds]
    for its, members in ((folder, own), (refits, refits.members)):
        evaluate_members(its, target, members, **shared, callback=callback)
    callback.stage("closed form")
    closed = _closed_form(folder, data, arm=arm, onnx=onnx)
    if isinstance(closed, str):
        refused["closed_form"] = closed
    parameters = load_student(folder.member(*own[0])).num_parameters
    accuracy = _accuracies(folder, arm)
    variants = _variants(refits, accuracy, arm=arm, parameters=parameters)
    best = _best(variants)
    certificate = Certificate(
        arm=arm,
        seeds=recipe.member_seeds,
        parameters=parameters,
        accuracy=accuracy,
        margin=margin,
        verdict=decide(variants, margin=margin),
        best=None if best is None else best.name,
        variants=variants,
        refused=refused,
        closed_form=None if isinstance(closed, str) else closed,
    )
    write_json(refits.path / CERTIFICATE, encode(certificate))
    return certificate


def decide(variants: Sequence[Variant], *, margin: float) -> Verdict:
    """Return whether the circuit matters; see the module for the rule."""
    rivals, best = [variant for variant in variants if variant.rival], _best(variants)
    if best is None or any(rival.comparison.seeds < LEAST_PAIRS for rival in rivals):
        return "open"
    interval = best.comparison.ci95
    if interval is not None and interval[1] < margin:
        return "left_out"
    tests = [rival.comparison for rival in rivals]
    ahead = all((it.mean or 0) > 0 and it.p_holm is not None and it.p_holm < LEVEL for it in tests)
    return "matters" if ahead else "open"


def check_request(recipe: Recipe, *, arm: str, margin: float) -> None:
    """Raise where an arm of a run cannot be certified.

    Raises:
        InputError: It is none of the run, has no circuit of its own, or was not trained exactly by
            the run's teacher; or the margin is negative or no number.
    """
    untrained = ("tuned", "began", "recalibrated")  # or with settings of its own
    arms = [
        name
        for name in recipe.arms
        if recipe.student_of(name).kind in ("quantum", "hybrid")
        and not any(getattr(recipe.arm_table[name], it) for it in untrained)
    ]
    if arm not in arms:
        known = f"give one of {', '.join(arms)}" if arms else "this run has none"
        raise InputError(
            f"--arm: {arm!r} is no arm of this run with a circuit that can be fitted again; {known}"
        )
    table = recipe.arm_table[arm]
    exactly = recipe.distill_of(arm).gradient == "exact" and table.train_target is None
    if not exactly or table.taught_by is not None or table.start is not None:
        how = "from other students" if exactly else "on a target"
        raise InputError(
            f"--arm: the arm {arm!r} is trained {how}; a model without a circuit cannot be fitted "
            "alike: give an arm that is trained exactly by the run's teacher"
        )
    if not (math.isfinite(margin) and margin >= 0):
        raise InputError(f"--margin: {margin} is not accepted; give points, 0 or more")


def _refits(recipe: Recipe, data: Data, *, arm: str) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe whose arms are the variants of an arm, and why others are left out."""
    table, spec = recipe.arm_table[arm], recipe.student_of(arm)
    kinds: dict[str, str | None] = {
        name: it.kind for name, it in ARMS.items() if it.kind in ("classical", *TWINS)
    }
    kinds["no_circuit"] = "no_circuit"
    if spec.reduction in TRAINED:
        kinds[_PROBE] = _PROBE
    kinds["no_entanglers"], kinds["frozen_circuit"] = CHANGED_CIRCUITS
    refused = {}
    if spec.head == "none" and spec.reduction not in TRAINED:
        del kinds["frozen_circuit"]
        refused["frozen_circuit"] = "nothing but the circuit is trained"
    own = {
        f"{name}{_SUFFIX}": {
            "base": table.base or arm,
            **table.changes,
            "student.kind": kind,
        }
        for name, kind in kinds.items()
    }
    changed = replace(recipe, arms=tuple(own), own_arms=own, targets=(TARGET,))
    kept = []
    for name in own:
        try:
            new_student(changed, data, arm=name)
            kept.append(name)
        except CircuitError as error:
            refused[name.removesuffix(_SUFFIX)] = str(error)
    return replace(changed, arms=tuple(kept)), refused


def _probe_starts(
    folder: RunFolder, recipe: Recipe, data: Data, *, arm: str
) -> dict[tuple[str, int], dict[str, Tensor]]:
    """Return the first parameters of linear probes: the trained reduction, a fresh head."""
    name, starts = f"{_PROBE}{_SUFFIX}", {}
    for seed in recipe.member_seeds if name in recipe.arms else ():
        fresh = dict(new_student(recipe, data, arm=name, seed=seed).named_parameters())
        trained = dict(load_student(folder.member(arm, seed)).named_parameters())
        starts[name, seed] = {
            key: trained[key].detach() if key.startswith("reduction.") else value
            for key, value in fresh.items()
        }
    return starts


def _accuracies(folder: RunFolder, arm: str) -> tuple[float | None, ...]:
    """Return the exact test accuracy of each seed; None where its loss stopped being finite.

    One that is no better than chance counts: that is what such a model makes of these data.
    """
    return tuple(
        folder.evaluations(arm, seed)[TARGET].accuracy
        if math.isfinite(folder.metrics(arm, seed)[-1].loss)
        else None
        for seed in folder.recipe.member_seeds
    )


def _variants(
    refits: RunFolder,
    accuracy: Sequence[float | None],
    *,
    arm: str,
    parameters: int,
) -> tuple[Variant, ...]:
    """Return the variants with the students compared with each, p corrected for all of them."""
    seeds, variants = refits.recipe.member_seeds, []
    for refit in refits.recipe.arms:
        name, its = refit.removesuffix(_SUFFIX), _accuracies(refits, refit)
        pairs = [
            (a, b) for a, b in zip(accuracy, its, strict=True) if a is not None and b is not None
        ]
        left_out = tuple(
            str(seed) for seed, *pair in zip(seeds, accuracy, its, strict=True) if None in pair
        )
        test = compare([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        size = load_student(refits.member(refit, seeds[0])).num_parameters
        variants.append(
            Variant(
                name=name,
                parameters=size,
                rival=name not in CHANGED_CIRCUITS and size <= parameters,
                validation_accuracy=mean_validation_accuracy(refits, refit),
                accuracy=its,
                ahead=sum(a > b for a, b in pairs),
                comparison=Comparison(
                    arm=arm, baseline=name, target=TARGET, left_out=left_out, **vars(test)
                ),
            )
        )
    tested = [it.comparison.p for it in variants if it.comparison.p is not None]
    corrected = iter(holm(tested))
    return tuple(
        it
        if it.comparison.p is None
        else replace(it, comparison=replace(it.comparison, p_holm=next(corrected)))
        for it in variants
    )


def _best(variants: Sequence[Variant]) -> Variant | None:
    """Return the rival of the best validation accuracy."""
    rivals = [it for it in variants if it.rival]
    return max(rivals, key=lambda it: it.validation_accuracy or 0.0, default=None)


def _closed_form(folder: RunFolder, data: Data, *, arm: str, onnx: bool) -> ClosedForm | str:
    """Write the closed form of each student, and return what it is, or why there is none."""
    images, files, differences = data.validation.images[:_IMAGES], [], []
    kind, numbers = "", 0
    for seed in folder.recipe.member_seeds:
        student = load_student(folder.member(arm, seed))
        assert isinstance(student, QuantumStudent)  # as check_request has seen to
        try:
            surrogate = make_surrogate(student)
        except CircuitError as error:
            return str(error)
        kind, numbers = surrogate.kind, surrogate.numbers
        differences.append(largest_difference(surrogate, student, images))
        path = Path(CERTIFY) / arm / "closed_form" / f"seed_{seed}.pt2"
        exports = [(folder.path / path, export_surrogate)]
        if onnx:
            exports.append((folder.path / path.with_suffix(".onnx"), export_onnx))
        for file, export in exports:
            if not file.exists():
                export(surrogate, file, image_shape=data.image_shape)
        files.append(str(path))
    return ClosedForm(
        kind=kind,
        numbers=numbers,
        difference=max(differences),
        images=len(images),
        files=tuple(files),
    )
