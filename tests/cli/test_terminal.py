"""What a run looks like on a terminal and in a pipe."""

import io
import re
import sys
from argparse import Namespace
from dataclasses import replace

import pytest
from result_builder import make_result
from rich.console import Console

from qkd_qiskit.cli import output
from qkd_qiskit.cli.terminal import Terminal, answers, summary_table
from qkd_qiskit.distillation.population import EpochMetrics


def shown(renderable, *, width=120):
    stream = io.StringIO()
    Console(file=stream, width=width).print(renderable)
    return stream.getvalue()


def tell(callback):
    epoch = EpochMetrics(2, loss=0.5, ce=0.4, kd=0.6, validation_accuracy=0.75, lr=0.01)
    with callback as terminal:
        terminal.stage("teacher")
        terminal.teacher_epoch(5, epochs=5, loss=0.1, accuracy=0.9)
        terminal.stage("students")
        terminal.epoch([epoch], epochs=2)
        terminal.stage("exact")
        for _ in range(4):
            terminal.evaluated(25, total=100)


def test_a_pipe_gets_plain_lines():
    stream = io.StringIO()
    tell(Terminal(Console(file=stream, width=100)))
    assert stream.getvalue().splitlines() == [
        "teacher",
        "  epoch 5/5  loss 0.100  validation 90.0%",
        "students",
        "  epoch 2/2  loss 0.500  validation 75.0%",
        "exact",
        "  image 100/100",
    ]


def test_a_terminal_gets_bars():
    stream = io.StringIO()
    tell(Terminal(Console(file=stream, width=120, force_terminal=True)))
    text = stream.getvalue()
    assert "\x1b[" in text
    for part in ("teacher", "students", "100/100", "validation 75.0%"):
        assert part in text


def test_quiet_says_nothing():
    stream = io.StringIO()
    tell(Terminal(Console(file=stream, quiet=True)))
    assert stream.getvalue() == ""


def test_the_answer_is_decided_only_by_evidence():
    gains = [0.05, 0.06, 0.04, 0.05, 0.055]
    accuracies = {
        "label_only": {"exact": [0.7] * 5},
        "distilled": {"exact": [0.7 + gain for gain in gains]},
    }
    ((text, decided),) = answers(make_result(accuracies))
    assert decided
    assert text.startswith("exact: Distillation gained +5.1 points")
    assert text.endswith("5 paired seeds): it helped.")
    assert text.isascii()
    few = {arm: {"exact": values["exact"][:4]} for arm, values in accuracies.items()}
    ((text, decided),) = answers(make_result(few))
    assert not decided
    assert text.endswith("open, as 4 pairs are fewer than the 5 that a conclusion takes.")
    assert answers(make_result({"label_only": {"exact": [0.7] * 5}})) == []


def test_the_table_has_every_arm_target_and_gain(finished):
    text = shown(summary_table(finished.result))
    for part in (
        "teacher (softmax)",
        "label only",
        "distilled",
        "classical twin",
        "gain (points)",
        "over the classical twin",
        "fake_manila",
        "10 images, 50 shots",
        "40 images",
        "over 2 seeds",
    ):
        assert part in text


def test_the_table_of_a_run_without_a_pair():
    text = shown(summary_table(make_result({"label_only": {"exact": [0.7, 0.8]}})))
    assert "gain" not in text
    assert "twin" not in text


def test_the_table_counts_failed_students(finished):
    failed = {"label_only": {"0": "no", "1": "no"}, "distilled": {"1": "no"}}
    text = shown(summary_table(replace(finished.result, failed=failed)))
    assert "label only (2 failed)" in text
    assert "all failed" in text
    assert "distilled (1 failed)" in text


def test_a_stage_is_shown_before_it_has_figures_and_goes_without_them():
    stream = io.StringIO()
    terminal = Terminal(Console(file=stream, width=80, force_terminal=True))
    with terminal:
        terminal.stage("data")
        assert [task.description for task in terminal._progress.tasks] == ["data"]
        terminal.stage("teacher")
        terminal.teacher_epoch(5, epochs=5, loss=0.1, accuracy=0.9)
        terminal.stage("report")
    assert [task.description for task in terminal._progress.tasks] == ["teacher"]


def test_bars_fit_80_columns():
    stream = io.StringIO()
    terminal = Terminal(Console(file=stream, width=80, force_terminal=True))
    epoch = EpochMetrics(60, loss=0.5, ce=0.4, kd=0.6, validation_accuracy=0.75, lr=0.01)
    with terminal:
        terminal.stage("label_only and distilled")
        terminal.epoch([epoch], epochs=60)
        terminal.stage("fake_torino")
        terminal.evaluated(10_000, total=10_000)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue()).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("60/60" in line and "validation 75.0%" in line for line in lines)
    assert any("10000/10000" in line for line in lines)


@pytest.mark.parametrize("live", [True, False])
def test_what_takes_seconds_is_said_before_it_begins(live, monkeypatch, capsys):
    said = []
    monkeypatch.setattr(sys.stdout, "isatty", lambda: live, raising=False)
    monkeypatch.setattr(output, "import_module", lambda name: said.append(capsys.readouterr().out))
    output.load(Namespace(json=False, quiet=False))
    assert said == ["loading torch and Qiskit ..." if live else ""]
    assert capsys.readouterr().out == ("\r\x1b[2K" if live else "")
    output.load(Namespace(json=True))
    assert said[1] == ""
