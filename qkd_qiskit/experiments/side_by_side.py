"""Several runs side by side: what differs in their recipes, and what their students reach.

Students of the same seed are paired where the runs have the same test images; other runs are
compared by Welch's t test. p is corrected, by Holm, for all comparisons that are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.comparisons import baseline_of
from qkd_qiskit.experiments.provenance import read_provenance
from qkd_qiskit.experiments.result_tables import latex_table, mean_text
from qkd_qiskit.experiments.results import Result, Row
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.statistics import compare, holm, welch
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.arms import TREATMENT
from qkd_qiskit.recipe.parsing import flat_recipe

_LEAST_PAIRS = 2
# Keys of data that choose training images alone: the test images are the same with any of them.
_OF_TRAINING = ("data.root", "data.train_per_class", "data.train_points", "data.draw")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two groups of students on one target.

    Attributes:
        run: The run of the first.
        arm: Its arm.
        over_run: The run of the second.
        over_arm: Its arm.
        paired: Whether students of equal seeds were paired.
        seeds: Number of pairs; unpaired, of students of the smaller group.
        mean: Mean difference in points; None where a group is empty.
        ci95: Ends of its 95 % t interval; None where there are too few.
        p: Of the paired t test, or Welch's.
        p_holm: p corrected for all differences shown.
    """

    run: str
    arm: str
    over_run: str
    over_arm: str
    paired: bool
    seeds: int
    mean: float | None
    ci95: tuple[float, float] | None
    p: float | None
    p_holm: float | None = None


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """Several runs on one target.

    Attributes:
        target: Where the students were evaluated.
        runs: Name of each run.
        same_test_set: Of each run, whether its test images are those of the first.
        recipes: Values of each run by dotted key, of the keys in which recipes differ.
        accuracies: Accuracy of each student by run and arm; failed ones are left out.
        gains: In each run, distilled over the arm that it has to beat.
        differences: Of each arm that a run shares with the first one, the run minus the first.
    """

    target: str
    runs: tuple[str, ...]
    same_test_set: tuple[bool, ...]
    recipes: Mapping[str, tuple[Any, ...]]
    accuracies: Mapping[str, Mapping[str, tuple[float, ...]]]
    gains: tuple[Difference, ...]
    differences: tuple[Difference, ...]


def compare_runs(folders: Sequence[RunFolder], *, target: str | None = None) -> SideBySide:
    """Compare finished runs on a target.

    Args:
        folders: Two or more; all are compared with the first.
        target: Key of a target that all have; default: the first of the first run that all have.

    Raises:
        InputError: Fewer than two runs, a run twice, or no such target in one of them.
        CheckpointError: A run has not ended.
    """
    paths = [folder.path.resolve() for folder in folders]
    if len(paths) < 2 or len(set(paths)) < len(paths):
        raise InputError(
            f"{len(set(paths))} run{'s' * (len(set(paths)) != 1)} cannot be compared; give two or "
            "more different run folders"
        )
    results = [folder.ended() for folder in folders]
    names, target = run_names([folder.path for folder in folders]), _target(results, target)
    same = _same_test_sets(folders, results, target)
    groups = [_by_seed(result, target) for result in results]
    gains = []
    for name, result, by_arm in zip(names, results, groups, strict=True):
        baseline = baseline_of(result.arms)
        if baseline is not None and TREATMENT in by_arm:
            ends = ((name, TREATMENT), (name, baseline))
            gains.append(_difference(ends, by_arm[TREATMENT], by_arm[baseline], paired=True))
    differences = [
        _difference(((name, arm), (names[0], arm)), by_arm[arm], groups[0][arm], paired=paired)
        for name, by_arm, paired in zip(names[1:], groups[1:], same[1:], strict=True)
        for arm in by_arm
        if arm in groups[0]
    ]
    corrected = iter(holm([entry.p for entry in (*gains, *differences) if entry.p is not None]))
    gains, differences = (
        [it if it.p is None else replace(it, p_holm=next(corrected)) for it in entries]
        for entries in (gains, differences)
    )
    return SideBySide(
        target=target,
        runs=tuple(names),
        same_test_set=tuple(same),
        recipes=differing_keys([folder.recipe for folder in folders]),
        accuracies={
            name: {arm: tuple(values.values()) for arm, values in by_arm.items()}
            for name, by_arm in zip(names, groups, strict=True)
        },
        gains=tuple(gains),
        differences=tuple(differences),
    )


def run_names(paths: Sequence[Path]) -> list[str]:
    """Return the names of run folders; where two have the same, their paths."""
    names = [path.absolute().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def differing_keys(recipes: Sequence[Recipe]) -> dict[str, tuple[Any, ...]]:
    """Return the values of the keys in which recipes differ."""
    flat = [flat_recipe(recipe) for recipe in recipes]
    return {
        key: tuple(values[key] for values in flat)
        for key in flat[0]
        if any(values[key] != flat[0][key] for values in flat)
    }


def named_rows(folders: Sequence[RunFolder]) -> list[Row]:
    """Return `Result.rows` of several runs, each with the name of its run first."""
    names = run_names([folder.path for folder in folders])
    return [
        {"run": name, **row}
        for name, folder in zip(names, folders, strict=True)
        for row in folder.ended().rows()
    ]


def latex_of_runs(folders: Sequence[RunFolder]) -> str:
    """Return mean accuracies of several runs as a LaTeX table, for the package booktabs."""
    results = [folder.ended() for folder in folders]
    if len(results) == 1:
        return results[0].to_latex()
    names = run_names([folder.path for folder in folders])
    targets = list(dict.fromkeys(key for result in results for key in result.targets))
    rows = []
    for name, result in zip(names, results, strict=True):
        for arm, metrics in result.arms.items():
            cells = [
                mean_text(
                    result.accuracies(arm, key, result.kept_rows(arm, target=key)), sign=r"$\pm$"
                )
                if key in metrics
                else ""
                for key in targets
            ]
            rows.append([f"{name}: {arm.replace('_', ' ')}", str(len(result.seeds)), *cells])
    caption = "Test accuracy in %, mean of the seeds and half of its 95 % t interval."
    return latex_table(["run and arm", "seeds", *targets], rows, caption=caption)


def _target(results: Sequence[Result], wanted: str | None) -> str:
    common = [key for key in results[0].targets if all(key in it.targets for it in results)]
    if not common or (wanted is not None and wanted not in common):
        what = f"the target {wanted!r} is" if wanted is not None else "no target is"
        known = f"give one of {', '.join(common)}" if common else "evaluate them on one: "
        known += "" if common else "qkd evaluate RUN --target exact"
        raise InputError(f"{what} in all of these runs; {known}")
    return common[0] if wanted is None else wanted


def _same_test_sets(
    folders: Sequence[RunFolder], results: Sequence[Result], target: str
) -> list[bool]:
    """Return which runs were tested on the images of the first.

    By their digests; by the recipe, where a run of an early version has none.
    """
    digests = [read_provenance(folder).data.get("test") for folder in folders]
    keys = [_choice_of_test(folder.recipe) for folder in folders]
    images = [result.num_images(target) for result in results]
    # A part of the test images is drawn by the seed of the recipe.
    parts = [
        None if count == _all_images(result) else folder.recipe.seed
        for folder, result, count in zip(folders, results, images, strict=True)
    ]
    return [
        (digest == digests[0] if digest and digests[0] else key == keys[0])
        and count == images[0]
        and part == parts[0]
        for digest, key, count, part in zip(digests, keys, images, parts, strict=True)
    ]


def _all_images(result: Result) -> int | None:
    confusion = result.teacher.confusion
    teachers = len(result.teacher.accuracies or (1,))
    return None if confusion is None else sum(map(sum, confusion)) // teachers


def _choice_of_test(recipe: Recipe) -> dict[str, Any]:
    flat = {key: value for key, value in flat_recipe(recipe).items() if key.startswith("data.")}
    return {key: value for key, value in flat.items() if key not in _OF_TRAINING} | {
        "seed": recipe.seed
    }


def _by_seed(result: Result, target: str) -> dict[str, dict[int, float]]:
    """Return the accuracies of the students that were trained, by arm and seed."""
    found: dict[str, dict[int, float]] = {}
    for arm, metrics in result.arms.items():
        if target not in metrics:
            continue
        accuracies = metrics[target].accuracy
        found[arm] = {
            result.seeds[row]: value
            for row in result.kept_rows(arm, target=target)
            if (value := accuracies[row]) is not None
        }
    return found


def _difference(
    ends: tuple[tuple[str, str], tuple[str, str]],
    treated: Mapping[int, float],
    baseline: Mapping[int, float],
    *,
    paired: bool,
) -> Difference:
    (run, arm), (over_run, over_arm) = ends
    common = [seed for seed in treated if seed in baseline]
    paired = paired and len(common) >= min(_LEAST_PAIRS, len(treated), len(baseline))
    if paired:
        test = compare([treated[s] for s in common], [baseline[s] for s in common])
        mean, ci95, p, seeds = test.mean, test.ci95, test.p, test.seeds
    else:
        mean, ci95, p = welch(list(treated.values()), list(baseline.values()))
        seeds = min(len(treated), len(baseline))
    return Difference(
        run=run,
        arm=arm,
        over_run=over_run,
        over_arm=over_arm,
        paired=paired,
        seeds=seeds,
        mean=mean,
        ci95=ci95,
        p=p,
    )
