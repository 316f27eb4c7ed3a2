"""Accuracy per QPU second of training on a device: gradients, shots and where to begin.

    qkd distill digits --out digits && qkd runs extend digits --seeds 10
    python benchmarks/device_training.py digits --out benchmarks/results/device_training.csv

The distilled students of 10 seeds are trained together on a device, as `qkd submit --train` does:
a step is one job. Shots are drawn from the exact noisy probabilities of a snapshot; accuracies are
under its exact noise, on all test images. QPU seconds are those of all 10 students, by IBM's model.
Starts: untrained (fresh), trained without noise (clean), and clean with the recalibration of 50
unlabelled images in the last layer (recalibrated, from 4,096 shots; recalibrated_256 from 256;
their seconds count).
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.distillation.executors import sampled_executor
from qkd_qiskit.distillation.population import Member
from qkd_qiskit.distillation.trainer import train_population
from qkd_qiskit.experiments.evaluation import target_logits
from qkd_qiskit.experiments.recalibrated_start import with_map
from qkd_qiskit.experiments.recalibration import fit_recalibration
from qkd_qiskit.experiments.recalibration_fit import unlabelled_images
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.simulator_check import parameter_values
from qkd_qiskit.experiments.statistics import mean_interval
from qkd_qiskit.experiments.task_examples import task_examples
from qkd_qiskit.experiments.tasks import new_student
from qkd_qiskit.experiments.teachers import load_teachers
from qkd_qiskit.recipe.arms import TREATMENT
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.ibm.usage_model import quantum_seconds

IMAGES = 50
WAYS = {
    "spsa": {"gradient": "spsa"},
    "spsa adaptive": {"gradient": "spsa", "adaptive_shots": True},
    "forward 4": {"gradient": "forward"},
    "forward 4 adaptive": {"gradient": "forward", "adaptive_shots": True},
    "guided": {"gradient": "guided_spsa"},
    "shift": {"gradient": "parameter_shift"},
}
SHOTS = {"spsa": (4096, 256, 64), "spsa adaptive": (4096,), "forward 4": (256,)}
SHOTS |= {"forward 4 adaptive": (4096,), "guided": (4096, 256), "shift": (4096, 256)}
STEPS = {"spsa": (25, 100, 400), "spsa adaptive": (25, 100, 400), "forward 4": (25, 100, 400)}
STEPS |= {"forward 4 adaptive": (25, 100, 400), "guided": (25, 100), "shift": (10, 25)}


class DrawnTarget(Target):
    """A snapshot whose shots are drawn from its exact noisy probabilities."""

    def __init__(self, exact, *, shots):
        super().__init__(exact.name, shots=shots, seed=exact.seed)
        self.exact = exact

    def compile(self, circuit):
        """Return the circuit as the snapshot's target compiles it."""
        return self.exact.compile(circuit)

    def probabilities(self, compiled, values, *, shots=None, seed=None):
        """Return frequencies of so many draws."""
        exact = self.exact.probabilities(compiled, values).clip(0.0)
        rng = np.random.default_rng([self.seed, 0 if seed is None else seed])
        taken = shots or self.shots
        return rng.multinomial(taken, exact / exact.sum(axis=1, keepdims=True)) / taken

    def _compile(self, circuit, parameters):
        raise AssertionError

    def _run(self, compiled, values, *, shots, seed):
        raise AssertionError

    def _run_exactly(self, compiled, values):
        raise AssertionError


def accuracy(student, states, data, target):
    """Accuracies of students with these parameters under exact noise."""
    found = []
    for state in states:
        student.load_parameters(state)
        logits = target_logits(student, data.test.images, target=target)
        found.append(float((logits.argmax(dim=1) == data.test.labels).double().mean()))
    return np.array(found)


def recalibrated(students, folder, data, exact, *, shots):
    """Parameters of students that are recalibrated, and the QPU seconds of that."""
    images = unlabelled_images(data, count=IMAGES, seed=folder.recipe.seed)
    measured, states = DrawnTarget(exact, shots=shots), []
    for seed, student in students.items():
        compiled = exact.compile(student.circuits[0])
        rows = parameter_values(student, images, names=compiled.parameters)
        outcomes = torch.from_numpy(measured.probabilities(compiled, rows, seed=10_000 + seed))
        logits = student.decode(outcomes, student.features(images)).detach()
        known = fit_recalibration(student, images, logits=logits, target="snapshot")
        states.append(with_map(student, known))
    executions = len(students) * IMAGES * shots
    duration = compiled.duration_s
    return states, quantum_seconds(executions=executions, circuit_duration_s=duration, jobs=1)


def starts_of(folder, seeds, data, exact):
    """Parameters by start and seed, with the QPU seconds that they take."""
    clean = {seed: load_student(folder.member(TREATMENT, seed)) for seed in seeds}
    fresh = [new_student(folder.recipe, data, arm=TREATMENT, seed=seed) for seed in seeds]
    return {
        "fresh": ([it.member_parameters() for it in fresh], 0.0),
        "clean": ([it.member_parameters() for it in clean.values()], 0.0),
        "recalibrated_256": recalibrated(clean, folder, data, exact, shots=256),
        "recalibrated": recalibrated(clean, folder, data, exact, shots=4096),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="run folder with 10 seeds or more")
    parser.add_argument("--target", default="fake_lima:exact")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--starts", default="clean,fresh,recalibrated_256,recalibrated")
    parser.add_argument("--steps", type=int, help="no more than these")
    parser.add_argument("--out", default="benchmarks/results/device_training.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = RunFolder.open(options.run)
    recipe, seeds = folder.recipe, folder.recipe.member_seeds[: options.seeds]
    data, exact = load_data(recipe.data, seed=recipe.seed), Target.parse(options.target)
    shape = new_student(recipe, data, arm=TREATMENT, seed=seeds[0])
    members = [(TREATMENT, seed) for seed in seeds]
    examples = task_examples(
        folder, data, load_teachers(folder, data), shape=shape, members=members
    )
    spec = recipe.distill
    people = [
        Member(
            arm=TREATMENT,
            seed=seed,
            ce_weight=spec.ce_weight,
            kd_weight=spec.kd_weight,
            feature_weight=0.0,
        )
        for seed in seeds
    ]
    starts = starts_of(folder, seeds, data, exact)
    path = Path(options.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ["target", "start", "way", "shots", "steps", "jobs", "executions", "qpu_seconds"]
    columns += ["mean_shots", "accuracy", "sd", "gain_over_start", "gain_ci"]
    done = set()
    if path.exists():  # it goes on where it was stopped
        with path.open(newline="") as file:
            done = {tuple(row[name] for name in columns[:5]) for row in csv.DictReader(file)}
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        if not done:
            writer.writeheader()
        for start in options.starts.split(","):
            states, before_s = starts[start]
            before = accuracy(shape, states, data, exact)
            cases = [("none", 0, 0)]
            cases += [
                (way, shots, steps)
                for way in options.ways.split(",")
                for shots in SHOTS[way]
                for steps in STEPS[way]
                if options.steps is None or steps <= options.steps
            ]
            for way, shots, steps in cases:
                if (options.target, start, way, str(shots), str(steps)) in done:
                    continue
                row = {"jobs": 0, "executions": 0, "qpu_seconds": before_s, "mean_shots": 0}
                after = before
                if steps:
                    target = DrawnTarget(exact, shots=shots)
                    run = new_student(recipe, data, arm=TREATMENT, seed=seeds[0])
                    share = 1.0 if start == "fresh" else 0.2
                    own = replace(
                        spec,
                        **WAYS[way],
                        train_target="fake_device",
                        steps=steps,
                        epochs=-(-steps // -(-examples.draws.shape[1] // spec.batch_size)),
                        lr=share * spec.lr,
                    )
                    run.executor = sampled_executor(run, own, target)
                    trained = train_population(
                        run, people, starts=states, examples=examples, spec=own
                    )
                    cost = run.executor.cost
                    duration = exact.compile(run.circuits[0]).duration_s
                    seconds = quantum_seconds(
                        executions=cost.executions, circuit_duration_s=duration, jobs=cost.calls
                    )
                    row = {
                        "jobs": cost.calls,
                        "executions": cost.executions,
                        "qpu_seconds": before_s + seconds,
                        "mean_shots": cost.executions / cost.circuits,
                    }
                    after = accuracy(shape, [it.state for it in trained], data, exact)
                gains = 100 * (after - before)
                row |= {"target": options.target, "start": start, "way": way, "shots": shots}
                row |= {
                    "steps": steps,
                    "accuracy": float(100 * after.mean()),
                    "sd": float(100 * after.std(ddof=1)),
                }
                row["gain_over_start"], row["gain_ci"] = mean_interval(gains.tolist())
                row = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
                writer.writerow(row)
                file.flush()
                print(row, flush=True)


if __name__ == "__main__":
    main()
