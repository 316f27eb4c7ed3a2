"""Make the trained students of the package again, with their cards and the table of the site.

    python benchmarks/reference_students.py [NAME ...] [--data-root ROOT] [--runs runs/reference]

Each is the distilled student of seed 0 of `qkd distill NAME`, the recipe as it is: nothing is
chosen by test accuracy, and the figures on the card are of that run's test images. Without names
all are made: those of NAMES. A run under --runs that
was made by the same recipe is used again; one of another recipe is put aside as NAME.old.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from qkd_qiskit.experiments.progress import Progress
from qkd_qiskit.experiments.result_tables import gain_text, mean_text
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import RECIPE
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.parsing import dump_recipe, list_recipes, load_recipe
from qkd_qiskit.report.model_card import teacher_saw
from qkd_qiskit.report.publication import portable
from qkd_qiskit.report.text import conditions, percent
from qkd_qiskit.run import Run, resume_experiment, run_experiment
from qkd_qiskit.storage import write_text
from qkd_qiskit.students.base import CARD_FILE, WEIGHTS_FILE
from qkd_qiskit.students.reference import (
    FOLDER,
    REFERENCE_FILE,
    Measured,
    ReferenceStudent,
    list_reference_students,
)

NAMES = ("digits", "digits_device", "digits_quantum", "fashion_mnist", "fashion_mnist_quantum")
NAMES += ("mnist", "mnist_quantum")
ARM = "distilled"
PAGE = Path(__file__).parents[1] / "docs" / "reference-students.md"
BEGIN, END = "<!-- table: benchmarks/reference_students.py -->\n", "<!-- end of the table -->"

_CARD = """# {name}

{comment}.

```python
from qkd_qiskit import evaluate, load_data, load_recipe, load_student

student = load_student("{name}")  # a torch module: images to logits
data = load_data(load_recipe("{name}").data)
print(evaluate(student, data.test).accuracy)
```

## Accuracy

In %; of the run's {seeds} seeds the mean ± half of the 95 % interval. This student is seed {seed}.

| target | this student | distilled | label only | gain, points |
| --- | ---: | ---: | ---: | ---: |
{rows}

{conditions}

## What it saw

{data}, {labels} labelled images per class. Teacher: {teacher}, {right} on the test images. {saw}

It is for images like these, prepared in the same way (`load_data` scales pixels to 0 to 1); nothing
was tested on others. Noise of a fake device is a best case: its snapshot has no crosstalk and no
drift.

## How it was made

`qkd distill {name}`, on {made}, with {versions}; `RUN/{arm}/seed_{seed}` is this student. Seed
{seed} is the first: it was not chosen. The recipe as it then was:

```yaml
{recipe}
```
"""


def main() -> None:
    """Make what was asked for, and write the table of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="students; default: all")
    parser.add_argument("--data-root", help="where MNIST and Fashion-MNIST are")
    parser.add_argument("--runs", type=Path, default=Path("runs/reference"))
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        parser.error(f"{unknown[0]!r} is no student; give some of {', '.join(NAMES)}")
    for name in options.names or NAMES:
        print(name, flush=True)
        write_student(name, trained(name, runs=options.runs, root=options.data_root))
    list_reference_students.cache_clear()
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    write_text(PAGE, f"{head}{BEGIN}\n{table(list_reference_students())}\n\n{END}{tail}")


def trained(name: str, *, runs: Path, root: str | None) -> Run:
    """Return the finished run of a recipe."""
    recipe, path = load_recipe(name), runs / name
    if recipe.data.name != "digits":
        recipe = replace(recipe, data=replace(recipe.data, root=root))
    if (path / RECIPE).exists():
        if _same(Run.open(path).recipe, recipe):
            return resume_experiment(path, callback=Progress())
        shutil.rmtree(runs / f"{name}.old", ignore_errors=True)
        path.rename(runs / f"{name}.old")
    return run_experiment(recipe, out=path, callback=Progress(), command=f"qkd distill {name}")


def _same(one: Recipe, other: Recipe) -> bool:
    return dump_recipe(portable(one)) == dump_recipe(portable(other))


def write_student(name: str, run: Run) -> None:
    """Write the student of a run into the package, with its cards."""
    result, seed = run.result, run.result.seeds[0]
    folder, source = FOLDER / name, run.folder.member(ARM, seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CARD_FILE, (source / CARD_FILE).read_text(encoding="utf-8"))
    shutil.copyfile(source / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).chmod(0o644)
    measured = {}
    for target, summary in result.targets.items():
        (accuracy,) = result.accuracies(ARM, target, [0])
        measured[target] = Measured(accuracy, result.num_images(target), summary.shots)
    assert result.teacher.accuracy is not None
    reference = ReferenceStudent(
        recipe=name,
        arm=ARM,
        seed=seed,
        trained_numbers=run.student(ARM, seed=seed).num_parameters,
        measured=measured,
        teacher_accuracy=result.teacher.accuracy,
        made=(run.provenance.sessions[0].began)[:10],
        versions=result.versions,
        data=run.provenance.data,
        weights=hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest(),
    )
    write_text(folder / REFERENCE_FILE, json.dumps(asdict(reference), indent=2) + "\n")
    write_text(folder / "README.md", card(name, run, reference))


def card(name: str, run: Run, reference: ReferenceStudent) -> str:
    """Return the model card of a student."""
    recipe, result = run.recipe, run.result
    versions = ", ".join(f"{package} {number}" for package, number in reference.versions.items())
    rows = [
        f"| `{target}` | {100 * entry.accuracy:.1f} | {_mean(result, ARM, target)} "
        f"| {_mean(result, 'label_only', target)} | {gain_text(result.gain[target])} |"
        for target, entry in reference.measured.items()
    ]
    text = _CARD.format(
        name=name,
        comment=list_recipes()[name],
        seed=reference.seed,
        arm=reference.arm,
        seeds=len(result.seeds),
        rows="\n".join(rows),
        conditions="\n".join(f"- `{key}`: {conditions(result, key)}." for key in result.targets),
        data=recipe.data.title,
        labels=recipe.data.train_per_class,
        teacher=recipe.teacher.kind,
        right=percent(reference.teacher_accuracy),
        saw=teacher_saw(recipe, sample=result.sample),
        made=reference.made,
        versions=versions,
        recipe=dump_recipe(portable(recipe)).strip(),
    )
    return text.replace("\u202f", " ").replace("\u2011", "-")


def _mean(result: Result, arm: str, target: str) -> str:
    return mean_text(result.accuracies(arm, target, result.kept_rows(arm, target=target)), sign="±")


def table(students: Mapping[str, ReferenceStudent]) -> str:
    """Return the table of the site: a student a row."""
    lines = [
        "| name | trained numbers | exact | and on | teacher | file |",
        "|---|---|---|---|---|---|",
    ]
    for name, it in students.items():
        exact = it.measured["exact"]
        target, entry = list(it.measured.items())[1]
        shots = "" if entry.shots is None else f", {entry.shots:,} shots"
        other = f"{100 * entry.accuracy:.1f} % on `{target}` ({entry.images:,} images{shots})"
        size = (FOLDER / name / WEIGHTS_FILE).stat().st_size / 1000
        cells = (
            f"`{name}`",
            f"{it.trained_numbers:,}",
            f"{100 * exact.accuracy:.1f} % ({exact.images:,} images)",
            other,
            f"{100 * it.teacher_accuracy:.1f} %",
            f"{size:.1f} kB",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
