"""The compression benchmark: gates that an accuracy takes, and tables that follow from the rows."""

import compress
import compress_tables as made
import pytest
from helps import read

CURVE = [(5, 0.5), (10, 0.8), (20, 0.7), (30, 0.9)]


@pytest.mark.parametrize(
    ("level", "gates"),
    [(0.4, 5), (0.5, 5), (0.65, 7.5), (0.8, 10), (0.85, 25), (0.9, 30), (0.95, None)],
)
def test_the_gates_that_an_accuracy_takes(level, gates):
    needed = made.gates_needed(CURVE, level)
    assert needed is None if gates is None else needed == pytest.approx(gates)


def row(arm, gates, target, seed, accuracy):
    values = ("case", arm, str(gates), target, str(seed), str(accuracy))
    return dict(zip(compress.COLUMNS, values, strict=True))


def rows():
    """Five seeds at two numbers of gates; labels alone are 10.0 to 10.4 points behind."""
    lines = [row("deep", 0, "exact", seed, 0.9) for seed in range(5)]
    for target in ("exact", "fake_torino:exact"):
        for arm in compress.ARMS:
            for gates in (10, 20):
                for seed in range(5):
                    own = 0.5 + gates / 100 + seed / 1000 * gates
                    ahead = 0 if arm == "labels" else 0.1 + seed / 1000
                    lines.append(row(arm, gates, target, seed, own + ahead))
    return lines


def test_tables_hold_means_gains_and_gates():
    text = made.tables(rows())
    assert "| deep circuit over labels alone | **+10.2 [+10.0, +10.4]** |" in text
    assert "| deep circuit over classical teacher | +0.0 [+0.0, +0.0] |" in text
    assert "| labels alone | 62.0 ± 2.0 |" in text
    assert "The deep circuits, which taught: 90.0" in text
    assert "| labels alone | 62.0 | 74.0 |" in text  # under noise: ten gates, twenty gates
    # What labels reach with 20 gates, the others have with fewer, of 70 % most with 10.
    assert "| as a share of its gates | 1.00 [1.00, 1.00] |" in text


def test_every_arm_grows_and_has_its_teacher():
    recipe = compress.recipe_of("digits, 10 per class", seeds=2)
    assert recipe.member_seeds == (300, 301)
    table = recipe.arm_table
    assert table["circuit_8"].taught_by == "deep"
    assert table["born_8"].taught_by == "labels_8"
    assert table["born_8"].grown_from == "born_4"
    assert recipe.student_of("labels_2").features == 24
    assert recipe.student_of("deep").layers == 20
    assert recipe.distill_of("classical_4").ce_weight == 0


def test_the_published_tables_follow_from_the_published_rows():
    rows = read(compress.RESULTS)
    text = made.tables(rows)
    assert made.PAGE.read_text(encoding="utf-8").partition(made.MARK)[2].strip() == text.strip()
    table = made.by_case(rows)["digits, 10 per class"]
    assert len(table["exact", "circuit", 30]) == 10
    words = " ".join((made.PAGE.parents[1] / "README.md").read_text(encoding="utf-8").split())
    mean = 10 * sum(table["exact", "circuit", 30])
    assert f"take 30 gates for {mean:.1f} %" in words
    assert "with 0.35 of the gates" in words
    assert "| 0.35 [" in text
