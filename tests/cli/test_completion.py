"""What the shells offer is what the commands take."""

import shutil
import subprocess

import pytest

from qkd_qiskit.cli import main
from qkd_qiskit.cli.commands import COMMANDS
from qkd_qiskit.cli.completion import SHELLS, completions, script
from qkd_qiskit.recipe.arms import ARMS
from qkd_qiskit.recipe.parsing import list_recipes, recipe_keys


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    for shell in SHELLS:
        (folder / shell).write_text(script(shell))
    return folder


def needs(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


def offered(scripts, line):
    """Return what bash offers at the end of a line, its words split as bash splits them."""
    words = line.replace("=", " = ").split(" ")
    words = [word for index, word in enumerate(words) if word or index == len(words) - 1]
    if line.endswith("="):
        words = words[:-1]
    listed = " ".join(f"'{word}'" for word in words)
    code = (
        f"source {scripts / 'bash'}; COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; "
        'complete -p qkd; _qkd; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-uc", code], capture_output=True, text=True, check=True)
    head, *found = done.stdout.splitlines()
    assert head == "complete -o default -F _qkd qkd"
    assert not done.stderr
    return [word for word in found if word]


@needs("bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("qkd dis", ["distill"]),
        ("qkd runs ", ["list", "show", "compare", "extend", "export"]),
        ("qkd runs export --format ", ["table", "csv", "latex", "json"]),
        ("qkd runs export --f", ["--format"]),
        ("qkd distill dig", [it for it in list_recipes() if it.startswith("dig")]),
        ("qkd distill mnist --student.kind hyb", ["hybrid"]),
        ("qkd distill --student.kind=hyb", ["hybrid"]),
        ("qkd distill --teacher.same_draw=", ["true", "false"]),
        (
            "qkd distill --arms label_only,disti",
            [f"label_only,{arm}" for arm in ARMS if arm.startswith("disti")],
        ),
        ("qkd distill --targets exact,fake_tori", ["exact,fake_torino"]),
        ("qkd evaluate runs/digits --target fake_lim", ["fake_lima"]),
        ("qkd recalibrate runs/digits --kind a", ["affine"]),
        ("qkd sweep noise runs/digits --dev", ["--devices"]),
        ("qkd circuits show heavy", ["heavy_hex_12"]),
        ("qkd recipes show ", list(list_recipes())),
        ("qkd completion z", ["zsh"]),
        ("qkd evaluate ", []),  # a folder, which bash completes itself
        ("qkd distill --out ", []),
        ("qkd --ver", ["--version"]),
        ("qkd nonsense ", []),
    ],
)
def test_bash_offers_what_can_stand_there(line, expected, scripts):
    assert offered(scripts, line) == expected


@needs("zsh")
def test_zsh_can_read_its_script(scripts):
    subprocess.run(["zsh", "-n", str(scripts / "zsh")], check=True)


@needs("fish")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("qkd dis", ["distill"]),
        ("qkd runs export --format ", ["csv", "json", "latex", "table"]),
        ("qkd distill --student.kind=hyb", ["--student.kind=hybrid"]),
        ("qkd distill --targets exact,fake_tori", ["exact,fake_torino"]),
        ("qkd runs export --f", ["--format"]),
    ],
)
def test_fish_offers_what_can_stand_there(line, expected, scripts):
    code = f"source {scripts / 'fish'}; complete -C '{line}'"
    done = subprocess.run(["fish", "-c", code], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == expected


def test_every_command_action_and_key_is_in_the_table():
    table = completions()
    assert set(table[""]) == set(COMMANDS)
    for name, command in COMMANDS.items():
        assert f"{name} -" in table
        for action in command.actions:
            assert f"{name} {action} -" in table
    keys = {f"--{key}" for key in recipe_keys()}
    assert keys <= set(table["distill -"])
    assert keys <= set(table["study -"])
    assert table["study --arms"] == tuple(ARMS)


def test_another_shell_is_refused_in_one_line(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert capsys.readouterr().err == ("qkd: shell: 'tcsh' is not accepted; give bash, zsh, fish\n")
