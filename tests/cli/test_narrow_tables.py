"""Tables of the command fit a terminal of 80 columns, with nothing left out."""

import io
import re
import sys
from pathlib import Path

import pytest
from result_builder import make_result
from rich.console import Console
from rich.table import Table

from qkd_qiskit.cli.narrow_tables import fitted
from qkd_qiskit.cli.output import print_columns, say
from qkd_qiskit.cli.run_tables import list_table
from qkd_qiskit.cli.terminal import comparison_table, summary_table
from qkd_qiskit.experiments.run_list import RunSummary
from qkd_qiskit.experiments.statistics import Gain

DEVICES = ["exact", "fake_torino", "fake_lima:exact", "fake_lima:exact, recalibrated"]


def shown(tables, *, width):
    stream = io.StringIO()
    screen = Console(file=stream, width=width)
    for table in tables:
        screen.print(table)
    return stream.getvalue()


def wide_table(columns=9):
    table = Table(title="a title", caption="a caption")
    for number in range(columns):
        table.add_column(f"heading {number}" if number else "")
    for row in range(2):
        table.add_row(f"row {row}", *(f"cell {row}.{number}" for number in range(1, columns)))
        table.add_section()
    table.add_row("only the last", *[""] * (columns - 2), "there")
    table.add_row("none", style="bold")
    return table


def test_what_fits_is_left_as_it_is():
    table = wide_table()
    assert fitted(table, width=200) == [table]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_what_does_not_fit_is_split_and_loses_nothing(width):
    parts = fitted(wide_table(), width=width)
    text = shown(parts, width=width)
    assert len(parts) > 1
    assert max(map(len, text.splitlines())) <= width
    for row in range(2):
        for number in range(1, 9):
            assert text.count(f"cell {row}.{number}") == 1
        assert text.count(f"row {row}") == len(parts)
    assert text.count("only the last") == 1
    assert text.count("none") == len(parts)
    assert text.count("a title") == text.count("a caption") == 1


def test_headings_are_wrapped_before_a_table_is_split():
    table = Table()
    for heading in ("", "a long heading of many words", "another long heading of many words"):
        table.add_column(heading)
    table.add_row("a row", "12 %", "34 %")
    (part,) = fitted(table, width=30)
    text = shown([part], width=30)
    assert re.search(r"a row +12 % +34 %", text)


def test_the_tables_of_a_run_on_many_targets_fit_80_columns():
    accuracies = {
        arm: {device: [0.801, 0.85, 0.9] for device in DEVICES}
        for arm in ("label_only", "distilled", "classical_twin", "label_only_tuned")
    }
    result = make_result(accuracies)
    text = shown(fitted(summary_table(result), width=80), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("85.0% (80.1% to 90.0%)") == 4 * len(DEVICES), "a cell was broken"
    for name in ("exact", "fake_torino", "recalibrated"):
        assert name in text
    comparisons = shown([comparison_table(result)], width=80)
    assert max(map(len, comparisons.splitlines())) <= 80


def test_a_study_in_a_pipe_has_one_table(finished):
    table = summary_table(finished.result)
    assert fitted(table, width=120) == [table]


def test_the_list_of_runs_keeps_words_whole_on_60_columns():
    gain = Gain(mean=5.1, ci95=(3.1, 7.2), seeds=5)
    run = RunSummary(
        path=Path("runs/digits_t1"),
        recipe="fashion_mnist",
        seeds=5,
        arms=("label_only", "distilled"),
        state="finished",
        date="2026-11-27",
        gain=gain,
    )
    text = shown(fitted(list_table([run], root="runs"), width=60), width=60)
    assert max(map(len, text.splitlines())) <= 60
    for word in ("digits_t1", "fashion_mnist", "+5.1 [+3.1, +7.2]", "2026-11-27", "done"):
        assert word in text


def test_a_text_is_broken_between_words_on_a_terminal_and_whole_in_a_pipe(monkeypatch, capsys):
    rows = {"a name": "of 48 two-qubit gates " * 5, "other": "short"}
    print_columns(rows)
    assert len(capsys.readouterr().out.splitlines()) == 2
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    print_columns(rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert [line[:6].strip() for line in lines] == ["a name", *[""] * (len(lines) - 2), "other"]
    assert " ".join(line[8:].strip() for line in lines[:-1]) == rows["a name"].strip()


def test_a_command_to_copy_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(
        "qkd_qiskit.cli.output.console", lambda: Console(width=40, force_terminal=True)
    )
    command = "  qkd submit runs/digits --backend ibm_torino --limit 452 --shots 256"
    say(command)
    say(command.strip())
    whole, *broken = capsys.readouterr().out.splitlines()
    assert whole == command
    assert len(broken) > 1
