"""Do the intervals that `qkd plan` promises hold? 500 rehearsals of each plan, without a device.

    qkd distill digits --out digits && qkd runs extend digits --seeds 20
    python benchmarks/plan.py digits --out benchmarks/results/plan.csv

A rehearsal draws seeds from the run's 20 (with replacement), a part of the test images, and shots
from the exact noisy probabilities, decodes them, and takes the interval that a run reports: the
paired t interval over the seeds. It covers where it holds the gain of all seeds on all test images
with as many shots (`covered`), or with the recipe's (`covered_recipe`: few shots move the gain). A
plan's own number is from three seeds, as a user has them (`planned_3`), or from all (`planned`).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.experiments.gain_variance import gain_variance
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.shot_accuracy import accuracies, noisy_student
from qkd_qiskit.experiments.statistics import paired_gain
from qkd_qiskit.experiments.submission.students import load_submitted
from qkd_qiskit.recipe.arms import BASELINE, TREATMENT
from qkd_qiskit.targets import Target

PLANS = (
    (3, 599, 512),
    (5, 599, 256),
    (8, 566, 256),
    (10, 452, 256),
    (8, 150, 1024),
    (3, 500, 4096),
)
"""Seeds, images, shots; the last is a submission without options."""


def rehearsals(students, labels, *, plan, times, rng):
    """Gain in points and half of its interval, of so many rehearsals."""
    seeds, images, shots = plan
    found = []
    for _ in range(times):
        chosen = rng.integers(len(students[0]), size=seeds)
        part = rng.choice(len(labels), size=images, replace=False)
        measured = []
        for arm in students:
            scores = []
            for seed in chosen:
                it = arm[seed]
                logits = it.logits(it.features[part], it.outcomes[part], shots=shots, rng=rng)
                scores.append(float((logits.argmax(dim=1).numpy() == labels[part]).mean()))
            measured.append(scores)
        gain = paired_gain(*measured)
        found.append((gain.mean, (gain.ci95[1] - gain.ci95[0]) / 2))
    return np.array(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="run folder with 20 seeds")
    parser.add_argument("--target", default="fake_torino:exact")
    parser.add_argument("--times", type=int, default=500)
    parser.add_argument("--out", default="benchmarks/results/plan.csv")
    options = parser.parse_args()
    folder = RunFolder.open(options.run)
    recipe, seeds = folder.recipe, folder.recipe.member_seeds
    data, target = load_data(recipe.data, seed=recipe.seed), Target.parse(options.target)
    known = dict(load_submitted(folder, seeds=seeds, limit=1).quantum)
    students = [
        [noisy_student(known[arm, seed], data.test, target=target) for seed in seeds]
        for arm in (TREATMENT, BASELINE)
    ]
    labels = data.test.labels.numpy()

    def chances(shots):
        return [
            accuracies(arm, shots=shots, recalibrated=False, seed=9, draws=32) for arm in students
        ]

    recipe_gain = 100 * gain_variance(*chances(recipe.shots)).mean
    rows, rng = [], np.random.default_rng(0)
    for plan in PLANS:
        of_arms = chances(plan[2])
        variance = gain_variance(*of_arms)
        first = gain_variance(*(it[:3] for it in of_arms))
        found = rehearsals(students, labels, plan=plan, times=options.times, rng=rng)
        gains, halves = found.T
        row = {
            "seeds": plan[0],
            "images": plan[1],
            "shots": plan[2],
            "rehearsals": options.times,
            "gain": 100 * variance.mean,
            "gain_recipe_shots": recipe_gain,
            "mean_gain": gains.mean(),
            "half_width": np.sqrt((halves**2).mean()),
            "planned": 100 * variance.half_width(seeds=plan[0], images=plan[1]),
            "planned_3": 100 * first.half_width(seeds=plan[0], images=plan[1]),
            "covered": (abs(gains - 100 * variance.mean) <= halves).mean(),
            "covered_recipe": (abs(gains - recipe_gain) <= halves).mean(),
        }
        rows.append({key: round(float(value), 4) for key, value in row.items()})
        print(rows[-1], flush=True)
    path = Path(options.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
