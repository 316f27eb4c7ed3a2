"""The pages of the documentation: their Python runs, commands parse, tutorials are whole."""

import importlib
import inspect
import json
import re
import shlex
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

import qkd_qiskit
from qkd_qiskit.cli.commands import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
ELSEWHERE = ("README.md", "python.md", "quanvolution.md")  # run by test_readme.py
SIGNATURES = ("compress.md",)  # hours of training; what is called has to have these arguments
CARDS = "reference-students.md"


def python_of(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.M | re.S)


RUN = [
    page
    for page in PAGES
    if python_of(page) and page.name not in (*ELSEWHERE, *SIGNATURES, "start.md", CARDS)
]


@pytest.fixture
def names(finished, tmp_path, monkeypatch):
    """What the pages take for granted: runs/digits, which has ended, and some names."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished.path, "runs/digits")
    shutil.copytree(finished.path / "distilled", "runs/deeper/distilled")
    for name in ("rose", "tulip"):
        Path("flowers", name).mkdir(parents=True)
        for number in range(12):
            picture = np.random.default_rng(number).random((40, 40, 3))
            plt.imsave(f"flowers/{name}/{number}.png", picture)
    data = qkd_qiskit.load_data(qkd_qiskit.DataSpec(name="digits"))
    network = _network()
    teacher_spec = qkd_qiskit.TeacherSpec(kind="softmax", epochs=3)
    return {
        "data": data,
        "images": data.test.images[:3],
        "network": network,
        "spec": qkd_qiskit.StudentSpec(kind="hybrid", qubits=2, layers=1),
        "teacher": qkd_qiskit.make_teacher(teacher_spec, data),
        "teacher_spec": teacher_spec,
    }


def _network():
    student = qkd_qiskit.make_student(
        qkd_qiskit.StudentSpec(kind="hybrid", qubits=2, layers=1, encoding="angle"),
        image_shape=(1, 8, 8),
        num_classes=10,
    )
    layer = qkd_qiskit.CompiledConnector(student.qnn)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2), layer, nn.Linear(4, 10))


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs_as_it_stands_there(page, names, monkeypatch):
    short = qkd_qiskit.distill
    monkeypatch.setattr(
        qkd_qiskit,
        "distill",
        lambda *given, **options: short(
            *given, **{"spec": qkd_qiskit.DistillSpec(epochs=1), "train_per_class": 5} | options
        ),
    )
    for block in python_of(page):
        exec(re.sub('"cuda(:1)?"', '"cpu"', block), names)
    if page.name == "teachers.md":
        assert names["both"].accuracy > 0.9
        assert Path("own.npz").exists()
    if page.name == "certify.md":
        assert names["logits"].shape == (3, 2)
    if page.name == "noise.md":
        assert "fake_lima:exact, recalibrated" in names["result"].targets


def test_the_page_of_trained_students_runs(capsys):
    (block,) = python_of(ROOT / "docs" / CARDS)
    exec(block, {})
    exact, noisy = (float(line) for line in capsys.readouterr().out.split())
    assert exact > 0.9
    assert noisy > 0.85


@pytest.mark.slow
def test_the_python_of_the_first_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = python_of(ROOT / "docs" / "start.md")
    exec(block, {})
    assert "label_only,fake_torino,0" in capsys.readouterr().out


@pytest.mark.parametrize("name", SIGNATURES)
def test_what_is_only_called_on_a_page_can_be_called_so(name):
    calls = [
        (qkd_qiskit, r"(?<![.\w])compress\((.*)\)"),
        (qkd_qiskit.Run, r"\.compress\((.*)\)"),
    ]
    text = "".join(python_of(ROOT / "docs" / name))
    for home, pattern in calls:
        (given,) = re.findall(pattern, text)
        keywords = re.findall(r"(\w+)=", given)
        assert set(keywords) <= set(inspect.signature(home.compress).parameters)


def commands_of(page):
    """Yield the words of each line of a page that begins with qkd, without its comment."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), flags=re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("qkd "):
                yield shlex.split(re.sub(r"\s#.*", "", line))[1:]


@pytest.mark.parametrize(
    "page", [it for it in PAGES if list(commands_of(it))], ids=lambda it: it.stem
)
def test_the_commands_of_a_page_are_those_that_there_are(page):
    for name, *rest in commands_of(page):
        command = COMMANDS[name]
        path = name
        if command.actions and rest and not rest[0].startswith("-"):
            assert rest[0] in command.actions, rest
            path = f"{name} {rest.pop(0)}"
        command.parser(rest, path).read(rest)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_committed_without_outputs_and_is_on_the_site(path):
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert notebook["nbformat"] == 4
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert f"tutorials/{path.stem}\n" in (ROOT / "docs" / "index.md").read_text()
    text = "".join(
        "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"
    )
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        target = path.parent / link
        found = link.startswith("http") or target.exists()
        assert found, link


def test_there_are_six_tutorials():
    assert len(TUTORIALS) == 6
    assert torch.is_grad_enabled()


def test_a_link_that_leads_nowhere_is_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    check_links = importlib.import_module("check_links")
    (tmp_path / "a.html").write_text(
        '<h1 id="top"><a href="b.html#end">b</a><a href="#top">up</a><a href="#bottom">down</a>'
        '<a href="https://example.org/x">there</a><img src="none.png"><a href="c.html">c</a>'
    )
    (tmp_path / "b.html").write_text('<p id="end"><a href="a.html#top">a</a>')
    assert check_links.broken_links(tmp_path) == [
        "a.html: #bottom names no place in its page",
        "a.html: c.html is not there",
        "a.html: none.png is not there",
    ]
