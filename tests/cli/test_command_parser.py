"""One parser for each command: flags anywhere, numbers, and the line for what is wrong."""

import json
import os
import subprocess
import sys

import pytest
import torch

from qkd_qiskit import StudentSpec, cli, make_student
from qkd_qiskit.cli import main
from qkd_qiskit.cli.command_parser import CommandParser
from qkd_qiskit.errors import InputError


@pytest.fixture
def parser():
    parser = CommandParser("own", description="a command")
    parser.add_argument("run", help="a folder")
    parser.add_argument("target", nargs="?", help="a target")
    parser.add_argument("--shots", type=int, required=True, help="a number")
    parser.add_argument("--lr", type=float, help="a number")
    parser.add_argument("--quiet", action="store_true", help="a switch")
    return parser


@pytest.mark.parametrize(
    "words",
    [
        "a b --shots 3 --quiet",
        "--shots 3 a --quiet b",
        "--quiet --shots=3 a b",
        "a --quiet b --shots 3",
    ],
)
def test_flags_can_be_anywhere(words, parser):
    options = parser.read(words.split())
    assert (options.run, options.target, options.shots, options.quiet) == ("a", "b", 3, True)
    assert options.lr is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "run and shots missing; see `qkd own --help`"),
        ("a", "shots missing; see `qkd own --help`"),
        ("a --shots x", "--shots: 'x' is not accepted; give a whole number"),
        ("a --shots 1.5", "--shots: '1.5' is not accepted; give a whole number"),
        ("a --shots 1 --lr x", "--lr: 'x' is not accepted; give a number"),
        ("a --shots", "--shots: expected one argument"),
        ("a --shots 1 --shot 2", "--shot is not an option; did you mean --shots?"),
        ("a --shots 1 --quie", "--quie is not an option; did you mean --quiet?"),
        ("a b c --shots 1", "unrecognized arguments: c"),
        ("a --shots 1 --quiet=3", "--quiet: ignored explicit argument '3'"),
    ],
)
def test_what_is_wrong_is_one_line(words, message, parser):
    with pytest.raises(InputError) as caught:
        parser.read(words.split())
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("distil", "did you mean distill? choose from 'distill', 'study'"),
        ("recipes shcema", "did you mean schema? choose from 'list', 'show', 'schema'"),
        ("targets snapshots", "did you mean snapshot?"),
        ("bench nois", "did you mean noise?"),
        ("distill fashion_mnits", "did you mean fashion_mnist?"),
        ("circuits show digit", "did you mean digits?"),
        ("evaluate x --targt aer", "--targt is not an option; did you mean --target?"),
    ],
)
def test_a_command_that_is_nearly_right(words, message, capsys):
    assert main(words.split()) == 2
    assert message in capsys.readouterr().err


def test_a_command_builds_one_parser(monkeypatch, capsys):
    made, init = [], CommandParser.__init__

    def counted(self, name, **options):
        made.append(name)
        init(self, name, **options)

    monkeypatch.setattr(CommandParser, "__init__", counted)
    assert main(["recipes", "show", "digits"]) == 0
    assert made == ["recipes show"]
    made.clear()
    assert main(["distill", "digits", "--seeds", "0"]) == 2
    assert made == ["distill"]
    assert set(cli.COMMANDS) >= {"distill", "study", "evaluate", "submit", "collect", "bench"}


@pytest.mark.parametrize("recipe", ["digits", "mnist"])
def test_help_shows_the_values_of_the_recipe(recipe, capsys):
    with pytest.raises(SystemExit):
        main(["distill", recipe, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"default: {recipe})" in text
    assert "Width of the circuit. (a whole number, 1 to 20; default: 4)" in text
    assert "[label_only, distilled, classical_twin])" in text


def test_help_of_a_study_shows_its_own_arms(capsys):
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "default: [label_only, label_only_tuned, distilled," in text


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("qkd 0.")


def test_a_kernel_that_may_not_be_compiled_is_done_without():
    """NUMBA_DISABLE_JIT=1 ends in torch with a warning, not in a traceback."""
    code = (
        "import torch\n"
        "from qkd_qiskit import StudentSpec, make_student\n"
        "student = make_student(StudentSpec(qubits=2), image_shape=(1, 2, 2), num_classes=2)\n"
        "print(student(torch.ones(1, 1, 2, 2)).tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
    )
    assert "torch is used: NUMBA_DISABLE_JIT is set" in done.stderr
    student = make_student(StudentSpec(qubits=2), image_shape=(1, 2, 2), num_classes=2)
    expected = student(torch.ones(1, 1, 2, 2)).flatten().tolist()
    assert json.loads(done.stdout)[0] == pytest.approx(expected, abs=1e-5)
