"""`qkd runs`, `qkd report` and `qkd export`: what they print, and what they refuse."""

import csv
import io
import json
import shutil

import pytest
from rich.console import Console

from qkd_qiskit import Run
from qkd_qiskit.cli import main
from qkd_qiskit.experiments.run_list import list_runs, recipe_name, summarize_run


@pytest.fixture
def runs(finished, tmp_path, monkeypatch):
    """A folder with finished runs, one that has not ended, and a damaged one."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "study/two", "open", "bad"):
        shutil.copytree(finished.path, tmp_path / "runs" / name)
    (tmp_path / "runs" / "open" / "result.json").unlink()
    (tmp_path / "runs" / "bad" / "recipe.yaml").write_text("seeds: none\n")
    return tmp_path / "runs"


@pytest.fixture
def narrow(monkeypatch):
    """Tables as on a terminal of 80 columns."""
    monkeypatch.setattr("qkd_qiskit.cli.output.console", lambda: Console(width=80))


def output(capsys, *words, status=0):
    assert main(words) == status
    printed = capsys.readouterr()
    return printed.out if status == 0 else printed.err


def test_the_list_says_what_there_is(runs, capsys, narrow):
    text = output(capsys, "runs", "list")
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    gain = Run.open(runs / "one").result.gain["exact"].mean
    assert f"{gain:+.1f} [" in lines["one"]
    assert lines["one"].split()[1:4] == ["tiny", "2", "3"]
    assert "done" in lines["study/two"]
    assert "open" in lines["open"].split()
    assert "damaged" in lines["bad"]
    assert "damaged: runs/bad: seeds: 'none' is not accepted" in text
    table = text.partition("damaged: ")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "…" not in text
    assert output(capsys, "runs") == text
    listed = json.loads(output(capsys, "runs", "list", "--json"))
    assert {run["state"] for run in listed} == {"finished", "unfinished", "damaged"}


def test_the_newest_run_comes_first(runs):
    path = runs / "study" / "two" / "provenance.json"
    content = json.loads(path.read_text())
    content["sessions"][0]["ended"] = "2999-01-01T00:00:00+00:00"
    path.write_text(json.dumps(content))
    first = list_runs(runs)[0]
    assert (first.path.name, first.date) == ("two", "2999-01-01")
    assert summarize_run(runs / "one").baseline == "label_only"


def test_a_folder_without_runs_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no run is in ." in output(capsys, "runs", "list", ".")
    assert "nowhere is no folder" in output(capsys, "runs", "list", "nowhere", status=2)
    assert "did you mean list" in output(capsys, "runs", "lst", status=2)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("qkd distill", "digits"),
        ("qkd distill --seeds 3", "digits"),
        ("qkd study mnist --seeds 3", "mnist"),
        ("qkd distill 'my own/recipe.yaml' --seeds 3", "recipe"),
        ("qkd runs extend runs/a --seeds 3", ""),
        ("qkd distill 'unclosed", ""),
        ("", ""),
    ],
)
def test_the_recipe_is_read_from_the_command(finished, command, expected):
    from dataclasses import replace

    assert recipe_name(replace(finished.result, command=command)) == expected
    assert recipe_name(None) == ""


def test_show_says_what_a_run_is(runs, capsys, narrow):
    text = output(capsys, "runs", "show", "runs/one")
    for part in ("finished", "digits, 12 labels per class", "2 (0, 1)", "label_only, distilled"):
        assert part in text
    assert "exact, fake_manila" in text
    tables = text.partition("test accuracy")[2].partition("exact: Distillation")[0]
    assert max(map(len, tables.splitlines())) <= 80
    assert "…" not in text
    text = output(capsys, "runs", "show", "runs/open")
    assert "unfinished, 6 of 6 students trained; to continue: qkd distill --resume" in " ".join(
        text.split()
    )
    content = json.loads(output(capsys, "runs", "show", "runs/one", "--json"))
    assert content["recipe"]["seeds"] == 2
    assert content["provenance"]["sessions"][0]["packages"]["torch"]
    assert content["result"] == json.loads((runs / "one" / "result.json").read_text())


def test_compare_shows_runs_side_by_side(runs, capsys, narrow):
    path = runs / "study" / "two" / "recipe.yaml"
    path.write_text(path.read_text().replace("batch_size: 8", "batch_size: 4"))
    text = output(capsys, "runs", "compare", "runs/one", "runs/study/two")
    assert "distill.batch_size  8    4" in text
    assert "distilled: two - one" in text
    assert "+0.0 [+0.0, +0.0]" in text
    found = json.loads(output(capsys, "runs", "compare", "runs/one", "runs/study/two", "--json"))
    tests = [entry for entry in found["gains"] + found["differences"] if entry["p"] is not None]
    assert len(tests) >= 3
    assert f"corrected by Holm's method for the {len(tests)} tests shown" in text
    assert max(map(len, text.splitlines())) <= 80
    words = ("runs", "compare", "runs/one", "runs/study/two", "--target", "fake_manila", "--json")
    assert json.loads(output(capsys, *words))["target"] == "fake_manila"
    for wrong, message in (
        (["runs/one"], "1 run cannot be compared"),
        (["runs/one", "runs/one"], "a run was given twice"),
        (["runs/one", "runs/open"], "has not ended"),
        (["runs/one", "runs/study/two", "--target", "aer"], "the target 'aer' is in all"),
        ([], "runs missing"),
    ):
        assert message in output(capsys, "runs", "compare", *wrong, status=2)


def test_figures_are_exported(runs, capsys, tmp_path):
    both = ["runs", "export", "runs/one", "runs/study/two"]
    rows = list(csv.DictReader(io.StringIO(output(capsys, *both, "--format", "csv"))))
    assert len(rows) == 2 * 3 * 2 * 2  # runs, arms, targets, seeds
    own = Run.open(runs / "one").result.rows()[0]
    assert {key: str(value) for key, value in own.items() if value is not None}.items() <= rows[
        0
    ].items()
    content = json.loads(output(capsys, *both, "--format", "json"))
    assert content["one"]["result"] == content["two"]["result"]
    latex = output(capsys, *both, "--format", "latex")
    assert latex.count(r"\\") == 7
    assert r"two: classical twin & 2 & " in latex
    single = output(capsys, *both[:3], "--format", "latex")
    assert single == Run.open(runs / "one").result.to_latex()
    assert "figures written to out.txt" in output(capsys, *both, "--out", "out.txt")
    assert "classical twin" in (tmp_path / "out.txt").read_text()
    assert "classical twin" in output(capsys, *both)
    assert "choose from" in output(capsys, *both, "--format", "pdf", status=2)


def test_a_run_is_extended_by_the_command(runs, capsys, monkeypatch):
    words = ["runs", "extend", "runs/one", "--jobs", "1", "--quiet"]
    assert output(capsys, *words, "--seeds", "3", "--arms", "scaled_ce") == ""
    run = Run.open(runs / "one")
    assert run.result.seeds == (0, 1, 2)
    assert list(run.result.arms)[-1] == "scaled_ce"
    assert (
        run.result.command == "qkd runs extend runs/one --jobs 1 --quiet --seeds 3 --arms scaled_ce"
    )
    assert "3 seeds" in (run.path / "report.html").read_text().replace("\u202f", " ")
    assert "keeps them: give more" in output(capsys, *words, "--seeds", "2", status=2)
    assert "a whole number of at least 1" in output(capsys, *words, "--seeds", "many", status=2)
    assert "nothing to add" in output(capsys, *words, status=2)
    assert "--jobs: 0 is not accepted" in output(capsys, *words, "--jobs", "0", status=2)


def test_an_interrupted_extension_says_how_it_goes_on(runs, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("qkd_qiskit.run.run", stop)
    words = ["runs", "extend", "runs/one", "--seeds", "3", "--quiet"]
    message = output(capsys, *words, status=130)
    assert message == "qkd: interrupted; to continue: qkd runs extend runs/one --seeds 3 --quiet\n"


def test_the_report_is_written_again(runs, capsys):
    assert output(capsys, "report", "runs/one") == "runs/one/report.html\n"
    text = (runs / "one" / "report.html").read_text()
    assert "provenance.json" in text
    assert "CPython" in text
    assert "has not ended" in output(capsys, "report", "runs/open", status=2)
