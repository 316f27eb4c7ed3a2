"""Whatever is typed: one line, exit 2 or 1, soon, in little memory, and nothing is overwritten."""

import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from malformed_commands import COMMANDS, FLAGS, YAML

from qkd_qiskit.cli import main
from qkd_qiskit.recipe.parsing import load_recipe

MOST_SECONDS = 10.0
MOST_KILOBYTES = 1_000_000
QASM = 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'


@pytest.fixture
def files(tmp_path, monkeypatch, finished):
    """The folder that commands run in, with files that are not what they are taken for."""
    monkeypatch.chdir(tmp_path)
    for name in ("QISKIT_IBM_TOKEN", "QISKIT_IBM_CHANNEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Path("home").mkdir()
    Path("DIRECTORY").mkdir()
    Path("DIRECTORY/precious").write_text("precious")
    Path("DIRECTORY.yaml").mkdir()
    Path("FILE").write_text("precious")
    Path("FILE.json").write_text('{"precious": [')
    Path("EMPTY").touch()
    Path("BINARY").write_bytes(bytes(range(256)) * 100)
    shutil.copy("BINARY", "BINARY.json")
    Path("HUGE_QASM").write_text(QASM + "qubit[1000000000] q;\nh q[0];\n")
    Path("DEEP_QASM").write_text(QASM + "qubit q;\nrx(" + "(" * 2000 + "1" + ")" * 2000 + ") q;")
    np.savez("PICKLES", images=np.array([{}], dtype=object), labels=np.array([0]))
    Path("PICKLES.npz").rename("PICKLES")
    shutil.copytree(finished.path, "RUN")
    Path("EMPTY_RUN").mkdir()
    shutil.copytree(finished.path, "DAMAGED_RUN")
    Path("DAMAGED_RUN/recipe.yaml").write_bytes(b"seeds: \xff")
    Path("FOLDER_RUN").mkdir()
    Path("FOLDER_RUN/recipe.yaml").mkdir()
    return tmp_path


def snapshot(folder):
    """What every file under a folder holds."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def check_refused(words, folder, capfd):
    """Run the command and see that it refuses in one line and leaves everything as it was."""
    before, start = snapshot(folder), time.monotonic()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = main(words)
    seconds = time.monotonic() - start
    out, err = capfd.readouterr()
    assert status in (1, 2), out
    *_, line = err.splitlines()
    assert line.startswith("qkd: "), err
    assert len(line) < 1500
    assert "Traceback" not in err
    assert seconds < MOST_SECONDS
    # The most that this process has ever used grows by what the command needs beyond it.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < MOST_KILOBYTES
    after = snapshot(folder)
    assert {path: after.get(path) for path in before} == before, "a file was changed"
    return line


def ident(words):
    return " ".join(words).encode("unicode_escape").decode()[:60]


def some_slow(cases, *, quick):
    """Each case, most of them marked slow."""
    return [
        pytest.param(case, marks=() if number % quick == 0 else pytest.mark.slow, id=ident(case))
        for number, case in enumerate(cases)
    ]


@pytest.mark.parametrize("words", some_slow([tuple(c.split(" ")) for c in COMMANDS], quick=4))
def test_a_malformed_command(words, files, capfd):
    check_refused(words, files, capfd)


@pytest.mark.parametrize("name", YAML)
def test_a_malformed_recipe(name, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_bytes(YAML[name])
    check_refused(("distill", "own.yaml", "--targets", "exact"), tmp_path, capfd)


@pytest.mark.parametrize("words", some_slow(FLAGS, quick=6))
def test_a_malformed_flag(words, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    check_refused(words, tmp_path, capfd)


def test_a_recipe_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_bytes(b"\xef\xbb\xbfseeds: 7")
    assert load_recipe(path).seeds == 7


def test_aliases_in_a_recipe_are_written_out(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("teacher: &how {epochs: 7, lr: 0.5}\ndistill: {<<: *how, batch_size: 9}")
    recipe = load_recipe(path)
    assert (recipe.distill.epochs, recipe.distill.lr, recipe.distill.batch_size) == (7, 0.5, 9)
