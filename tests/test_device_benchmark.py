"""The benchmark of students for devices: its tables follow from its rows."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("device_students")
    for name in ("device_students", "helps"):
        sys.modules.pop(name, None)


def rows_of(case):
    figures = {
        ("label_only", "exact"): (0.50, 0.60),
        ("label_only", "fake_torino:exact"): (0.48, 0.58),
        ("distilled", "exact"): (0.60, 0.71),
        ("distilled", "fake_torino:exact"): (0.58, 0.69),
        ("twin_pca", "exact"): (0.70, 0.70),
    }
    return [
        {"case": case, "arm": arm, "target": target, "seed": str(seed), "accuracy": f"{value:.6f}"}
        for (arm, target), values in figures.items()
        for seed, value in zip((300, 301), values, strict=True)
    ]


def test_tables_give_means_and_paired_differences_on_the_device(benchmark):
    text = benchmark.tables(rows_of("digits_few"))
    assert "digits_few, 2 seeds" in text
    assert "| `distilled` | 65.5 ± 69.9 | 63.5 ± 69.9 | 58.0 |" in text
    assert "| `twin_pca` | 70.0 ± 0.0 | - | - |" in text
    # 58 - 48 and 69 - 58; the twin, which no noise reaches, is compared as it is.
    assert "| digits_few | `distilled` - `label_only` | +10.5 [+4.1, +16.9] |" in text
    assert "| digits_few | `distilled` - `twin_pca` | -6.5 [" in text


def test_a_case_replaces_its_own_rows_alone(benchmark, tmp_path):
    path = tmp_path / "table.csv"
    benchmark.write(rows_of("mnist_few"), path)
    benchmark.write(rows_of("digits_few"), path)
    benchmark.write(rows_of("mnist_few"), path)
    found = [line["case"] for line in benchmark.read(path)]
    assert found == ["digits_few"] * 10 + ["mnist_few"] * 10


def test_its_recipes_are_those_of_the_cases(benchmark):
    for recipe, changes in benchmark.CASES.values():
        made = benchmark.load_recipe(recipe, changes | {"seeds": [300, 301]})
        assert benchmark.DEVICE in made.targets
        assert benchmark.BASELINE in made.arms
