"""The benchmarks of CIFAR-10: the network, its schedule, the table and rows that are kept."""

import csv

import backbone
import cifar10
import paper
import paper_tables
import paper_v2
import pytest
import torch


def test_the_network_and_its_schedule():
    network = backbone.resnet8().eval()
    assert sum(it.numel() for it in network.parameters()) == 78_042
    pixels = torch.rand(2, 3, 32, 32)
    maps = network.blocks(network.stem(network.normalise(pixels)))
    assert maps.shape == (2, 64, 8, 8)
    torch.testing.assert_close(network(pixels), network.head(maps.mean(dim=(2, 3))))
    assert [backbone.rate(epoch) for epoch in (0, 1.6, 3.2, 10.5, 12)] == pytest.approx(
        [0, 0.1, 0.2, 0.0546875, 0]
    )
    # As for sixteen epochs before the ninth: down to 0 from a fifth of the steps on.
    assert backbone.rate(6) == pytest.approx(0.2 * (16 - 6) / (16 - 3.2))
    again = backbone.augmented(pixels, torch.Generator().manual_seed(1))
    assert again.shape == pixels.shape
    assert set(again.unique().tolist()) <= {0.0, *pixels.unique().tolist()}


def test_the_table_pairs_seeds():
    def rows(arm, *accuracies):
        return [
            {"case": "random, 4 qubits", "arm": arm, "seed": seed, "accuracy": it, "teacher": 0.9}
            for seed, it in enumerate(accuracies)
        ]

    made = cifar10.table(
        [
            *rows("label_only", 0.50, 0.60),
            *rows("distilled", 0.52, 0.62),
            *rows("tuned twin", 0.51, 0.63),
            *rows("twin_pca", 0.4, 0.4),
            *rows("feature_probe", 0.7, 0.7),
        ]
    ).splitlines()
    assert len(made) == 3
    assert made[2].startswith(
        "| random, 4 qubits | 90.0 | 55.0 | 57.0 | 57.0 | 40.0 | 70.0 | +2.0 [+2.0, +2.0] | +0.0 ["
    )


def test_rows_of_other_tasks_are_kept():
    rows = paper._kept_v2(paper.RESULTS / "paper_v2.csv", [])
    made = [row for row in rows if (row.data, row.qubits) != ("fashion_mnist", 8)]
    kept = paper._kept_v2(paper.RESULTS / "paper_v2.csv", made[::-1])
    assert kept == [row for row in rows if (row.data, row.qubits) == ("fashion_mnist", 8)]
    assert 0.5 < max(row.accuracy for row in kept) < 1


def test_the_published_chart_follows_from_the_published_rows():
    rows = paper._kept_v2(paper.RESULTS / "paper_v2.csv", [])
    assert paper_tables.v2_markdown(rows).strip() in paper.PAGE.read_text()
    seeds = {}
    for row in rows:
        key = row.data, row.qubits, row.inputs, row.circuit, row.arm
        seeds.setdefault(key, []).append(row.seed)
    for (*_, inputs, circuit, _), its in seeds.items():
        five = (inputs, circuit) == (paper_v2.MAIN, "entangled")
        assert sorted(its) == list(range(5 if five else 3))


def test_rates_are_tried_until_one_on_either_side_is_worse():
    tried = []

    def accuracies(rate):
        tried.append(rate)
        at = paper_v2.RATES.index(rate)
        return {"low": -abs(at - 6.0), "high": -abs(at - 3.0)}

    assert paper_v2.best_rates(accuracies, first=1e-3) == {"low": 1e-4, "high": 0.003}
    assert sorted(tried, reverse=True) == [0.01, 0.003, 1e-3, 3e-4, 1e-4, 3e-5]

    # The ends of the list are ends of the search.
    assert paper_v2.best_rates(lambda rate: {"arm": rate}, first=0.01) == {"arm": 0.1}


def test_the_published_table_follows_from_the_published_rows():
    with cifar10.RESULTS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert cifar10.table(rows).strip() in cifar10.PAGE.read_text()
    for case in {row["case"] for row in rows}:
        assert {row["seed"] for row in rows if row["case"] == case} == {"0", "1", "2", "3", "4"}
