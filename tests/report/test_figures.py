import re
import sys
from xml.etree import ElementTree

import pytest

from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.report.circuit_drawing import draw_student
from qkd_qiskit.report.figures import (
    MOST_POINTS,
    Curves,
    GainRow,
    confusion_figure,
    curves_figure,
    gain_figure,
    paired_figure,
)
from qkd_qiskit.report.svg import ARM_COLOURS


def texts(svg):
    return ["".join(node.itertext()).strip() for node in ElementTree.fromstring(svg).iter("text")]


def row(**changes):
    usual = {"label": "exact", "differences": [1.0, 2.0], "mean": 1.5, "interval": (-1.0, 4.0)}
    return GainRow(**usual | changes)


def test_gain_has_a_dot_for_each_pair():
    rows = [row(), row(label="fake_torino", differences=[-1.0, 0.5, 3.0])]
    svg = gain_figure(rows, name="gain", label="points", limits=(-5, 5))
    assert len(re.findall(r"<use [^>]*opacity: ?0?\.45", svg)) == 5
    assert {"exact", "fake_torino", "points", "0"} <= set(texts(svg))


@pytest.mark.parametrize(
    ("odd", "dots"),
    [
        (row(interval=None, differences=[1.0]), 1),
        (row(interval=None, mean=None, differences=[]), 0),
    ],
)
def test_gain_without_interval_or_pairs(odd, dots):
    svg = gain_figure([odd], name="gain", label="points", limits=(-1, 3))
    assert len(re.findall(r"<use [^>]*opacity: ?0?\.45", svg)) == dots
    assert ("no pair is left" in texts(svg)) == (dots == 0)


def test_colours_are_variables_of_the_page():
    svg = gain_figure([row()], name="gain", label="points", limits=(-5, 5))
    assert "var(--distilled)" in svg
    assert "var(--ink)" in svg
    assert not any(colour in svg for colour in ARM_COLOURS.values())


def test_curves_draw_each_seed_and_a_mean_of_those_that_count():
    arms = [
        Curves(
            arm="distilled", lines=[[0.1, 0.5], [0.2, 0.6], [9.0, 9.0]], kept=[True, True, False]
        )
    ]
    svg = curves_figure(arms, name="curves", title="accuracy", share=True)
    assert svg.count("stroke: var(--distilled)") == 4
    assert all(int(text.split()[0]) <= 100 for text in texts(svg) if text.endswith("%"))


def test_long_curves_are_thinned():
    arms = [Curves(arm="distilled", lines=[[(-1) ** i * i for i in range(5000)]], kept=[True])]
    svg = curves_figure(arms, name="curves", title="loss", unit="nats")
    drawn = max(len(re.findall("[ML]", path)) for path in re.findall(r' d="([^"]*)"', svg))
    assert 20 < drawn <= MOST_POINTS


def test_curves_of_one_epoch_and_of_nothing():
    one = [Curves(arm="distilled", lines=[[0.5]], kept=[True])]
    assert "<use " in curves_figure(one, name="one", title="accuracy")
    nothing = [Curves(arm="distilled", lines=[[], [float("nan")] * 3], kept=[True, False])]
    assert curves_figure(nothing, name="nothing", title="accuracy")


def test_confusion_gives_shares_of_rows():
    svg = confusion_figure(
        [[3, 1], [0, 0]], ["no", "yes"], name="c", arm="distilled", title="confusion"
    )
    assert [text for text in texts(svg) if text.isdigit()] == ["75", "25"]


def test_confusion_takes_names_as_they_are():
    names = ["$x$", "<i>", "a very long name indeed"]
    svg = confusion_figure([[1, 0, 0]] * 3, names, name="c", arm="teacher", title='a "title"')
    assert {"$x$", "<i>", "a very lon…"} <= set(texts(svg))


def test_paired_lines_join_the_same_student():
    arms = {"label_only": ([0.5, 0.6], [0.4, 0.55]), "distilled": ([0.7, 0.6], [0.6, 0.5])}
    svg = paired_figure(arms, name="p", target="fake_torino")
    assert texts(svg).count("exact") == texts(svg).count("sampled") == 2
    assert svg.count("stroke-width: 2.4") == 2


def test_drawing_tells_inputs_from_weights():
    drawing = draw_student(StudentSpec(encoding="angle", ansatz="ry_rz_ring", layers=2))
    assert drawing.svg.count("fill: var(--input)") == 4
    assert drawing.svg.count("fill: var(--trained)") == 16
    assert drawing.notes == ()


def test_deep_circuit_is_drawn_in_part():
    drawing = draw_student(StudentSpec(encoding="reuploading", ansatz="ry_rz_ring", layers=9))
    assert drawing.notes == ("The first 2 of 9 layers are drawn.",)
    assert drawing.svg.count("fill: var(--trained)") == 16


def test_state_preparation_is_one_box():
    drawing = draw_student(StudentSpec(encoding="amplitude", qubits=4, layers=1))
    assert drawing.svg.count("fill: var(--input)") == 1
    assert "15 rotations by the inputs and 14 gates without a parameter" in drawing.notes[0]


@pytest.mark.parametrize("qubits", [1, 2])
def test_small_circuits_are_drawn(qubits):
    assert "<svg" in draw_student(StudentSpec(encoding="angle", qubits=qubits, layers=1)).svg


def test_drawing_leaves_no_open_figures():
    draw_student(StudentSpec(encoding="angle", layers=1))
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []
