"""Progress of runs from Python: lines, and bars in a cell."""

import io
import sys
from types import ModuleType, SimpleNamespace

import pytest

from qkd_qiskit import load_recipe, run_experiment
from qkd_qiskit.distillation.population import EpochMetrics
from qkd_qiskit.experiments import progress
from qkd_qiskit.experiments.callbacks import Callback, Callbacks
from qkd_qiskit.experiments.progress import NotebookProgress, Progress, default_callback

EPOCH = EpochMetrics(2, loss=0.5, ce=0.4, kd=0.6, validation_accuracy=0.75, lr=0.01)
FEW = {"arms": ["label_only"], "targets": ["exact"], "seeds": 1}


@pytest.fixture
def cell(monkeypatch):
    """A notebook's shell: what was displayed, each time whole."""
    shown = []
    handle = SimpleNamespace(update=lambda item: shown.append((repr(item), item._repr_html_())))

    def display(item, *, display_id):
        assert display_id
        handle.update(item)
        return handle

    ipython, displays = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())
    displays.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", displays)
    return shown


def test_a_run_prints_plain_lines(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("QKD_CACHE", str(tmp_path / "cache"))  # else the teacher is there already
    monkeypatch.setattr(progress, "_LINE_EVERY_S", float("inf"))  # the last of each stage alone
    lines = []
    run_experiment(load_recipe(tiny, FEW), out=tmp_path / "run", callback=Progress(lines.append))
    assert lines[:2] == ["data", "teacher"]
    assert lines[2].startswith("  epoch 3/3  loss ")
    assert lines[3] == "label_only"
    assert lines[4].startswith("  epoch 3/3  loss ")
    assert lines[5:] == ["exact", "  image 40/40"]


def test_lines_come_at_most_every_five_seconds(monkeypatch):
    now, lines = [100.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = Progress(lines.append)
    shown.stage("exact")
    for _ in range(5):
        now[0] += 2.0
        shown.evaluated(10, total=100)
    assert lines == ["exact", "  image 30/100"]


def test_lines_go_to_standard_output_if_nothing_else_is_said(capsys):
    Progress().stage("teacher")
    assert capsys.readouterr().out == "teacher\n"


def test_a_run_in_a_notebook_has_bars(cell, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("QKD_CACHE", str(tmp_path / "cache"))
    run_experiment(load_recipe(tiny, FEW), out=tmp_path / "run")
    text, html = cell[-1]
    names = [line.split("  ")[0] for line in text.splitlines()]
    assert names == ["data", "teacher", "label_only", "exact"]
    assert "image 40/40  images" in text
    assert '<progress value="40" max="40"></progress>' in html
    assert html.count("<progress") == 3  # data has no figures
    assert len(html) < 2000


def test_a_cell_is_updated_at_most_five_times_a_second(cell, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = NotebookProgress()
    shown.stage("a <b>")
    for number in range(1, 100):
        now[0] += 0.01
        shown.step(number, steps=1000, loss=0.25)
    assert 2 <= len(cell) <= 6
    assert "&lt;b&gt;" in cell[-1][1]
    assert "loss 0.250" in cell[-1][1]


def test_scripts_and_terminals_are_left_alone(monkeypatch, cell, capsys):
    assert isinstance(default_callback(), NotebookProgress)
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: SimpleNamespace())
    assert type(default_callback()) is Callback  # IPython on a terminal
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
    assert type(default_callback()) is Callback
    monkeypatch.delitem(sys.modules, "IPython")
    assert type(default_callback()) is Callback


def test_several_callbacks_hear_the_same():
    first, second = [], []
    both = Callbacks(Progress(first.append), Progress(second.append))
    both.stage("students")
    both.epoch([EPOCH], epochs=2)
    assert first == second == ["students", "  epoch 2/2  loss 0.500  validation 75.0%"]


def test_a_notebook_is_run_to_the_end(tiny, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    code = (
        "import qkd_qiskit as q\n"
        f"recipe = q.load_recipe({str(tiny)!r}, {FEW!r})\n"
        f"run = q.run_experiment(recipe, out={str(tmp_path / 'run')!r})\nrun"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
    outputs = [item for item in notebook.cells[0].outputs if item.output_type != "stream"]
    bars, run = (item["data"] for item in outputs)
    assert 'value="40" max="40"' in bars["text/html"]
    assert "1 of 1 students trained" in run["text/html"]
    assert run["text/plain"].startswith("Run(")


def test_a_pipe_and_no_ipython_need_no_display(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    stream = io.StringIO()
    Progress(lambda line: print(line, file=stream)).stage("data")
    assert stream.getvalue() == "data\n"
