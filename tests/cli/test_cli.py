"""The command: every bad input is one line and exit 2, and a stopped run can be continued."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from qkd_qiskit.cli import main
from qkd_qiskit.experiments import experiment as study
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.recipe.parsing import flat_recipe, load_recipe, recipe_keys

# A test run that was started in the background has SIGINT ignored, and hands that down.
CODE = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from qkd_qiskit.cli import main; sys.exit(main())"
)
QKD = [sys.executable, "-W", "error", "-c", CODE]
SMALL = ["--seeds", "1", "--targets", "exact", "--arms", "label_only,distilled"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def recipe_of(monkeypatch):
    """Runs the command up to the point where the run would begin, and returns its recipe."""

    class Begun(Exception):
        pass

    def parse(*words, command="distill"):
        seen = []

        def stop(recipe, *, out, **_):
            seen.append(SimpleNamespace(recipe=recipe, path=Path(out)))
            return MagicMock()

        monkeypatch.setattr("qkd_qiskit.run.run_experiment", stop)
        monkeypatch.setattr("qkd_qiskit.cli.distill.show_result", lambda *_: 0)
        assert main([command, *words]) == 0
        return seen[0]

    return parse


def one_line(capsys, *words, status=2):
    """The message that the command ends with, after checking that it is all it says."""
    assert main(words) == status
    output = capsys.readouterr()
    assert set(output.out.split()) <= {"data", "teacher"}  # stages that were reached
    assert output.err.startswith("qkd: ")
    assert output.err.count("\n") == 1
    assert "Traceback" not in output.err
    assert len(output.err) < 900  # the arms are many
    return output.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "give one of distill, study, evaluate"),
        ("train", "choose from 'distill', 'study'"),
        ("--quiet distill", "--quiet is not an option"),
        ("distill nonsense", "recipe 'nonsense' is unknown; give one of cifar10, digits"),
        ("distill --quiet nonsense", "recipe 'nonsense' is unknown"),
        ("distill nonsense.yaml", "nonsense.yaml cannot be read"),
        ("distill digits mnist", "unrecognized arguments: mnist"),
        ("distill --student.qbits 3", "student.qbits: no such key in a recipe; did you mean"),
        ("distill --student.qub 3", "did you mean student.qubits"),
        ("distill --epochs 3", "epochs: no such key"),
        ("distill --student.qubits", "expected one argument"),
        ("distill --student.qubits four", "student.qubits: 'four' is not accepted; give a whole"),
        ("distill --student.kind qubit", "student.kind: 'qubit' is not accepted; give one of"),
        ("distill --student nonsense.yaml", "give its keys one by one"),
        ("distill --data.name svhn", "'svhn' is not accepted; give one of digits, mnist"),
        ("distill --data.classes 3", "two or more distinct labels"),
        ("distill --data.classes a,b", "give a list [a, b, ...], each a whole number"),
        ("distill --distill.temperature 0", "distill.temperature: 0.0 is not accepted"),
        ("distill --distill.train_target fake_torino", "distill.gradient: 'exact' is not accepted"),
        ("distill --distill.gradient noisy", "distill.train_target: 'exact' is not accepted"),
        (
            "distill --distill.gradient spsa --distill.train_target fake_torin --targets exact",
            "fake_torino",
        ),
        ("distill --arms distilled_noisy --targets exact", "targets: ['exact'] is not accepted"),
        ("distill --distill.temperature=-2", "distill.temperature: -2.0 is not accepted"),
        ("distill --seeds 0", "seeds: 0 is not accepted"),
        ("distill --arms distiled,label_only", "did you mean distilled? give a list"),
        ("distill --arms teacher", "each one of label_only, label_only_tuned"),
        ("distill --targets exact aer", "recipe 'aer' is unknown"),
        ("distill --targets fake_nowhere", "unknown target 'fake_nowhere'"),
        ("distill --targets exact,ibm_torino", "real device"),
        ("distill --shots x", "shots: 'x' is not accepted; give a whole number"),
        ("distill --student.qubits 6 --targets fake_manila", "fake_manila has 5"),
        ("distill --student.reduction none", "64 features"),
        ("distill --student.qubits 3 --student.readout bins --student.head none", "10 classes"),
        ("distill --data.train_per_class 1000", "1000 per class are asked for"),
        ("distill mnist --data.root nowhere", "nowhere"),
        ("distill --teacher.kind module --teacher.module no.such:thing", "no.such"),
        ("distill --teacher.checkpoint nowhere.safetensors", "nowhere.safetensors"),
        ("distill --student.circuit nowhere.qasm", "nowhere.qasm cannot be read"),
        ("distill --resume nowhere", "nowhere holds no run"),
        ("distill --resume nowhere --seeds 3", "--seeds was given with --resume"),
        ("distill digits --resume nowhere", "digits was given with --resume"),
        ("distill --resume nowhere --out x", "--out was given with --resume"),
        ("study nonsense", "recipe 'nonsense' is unknown"),
        ("study --seeds 0", "seeds: 0 is not accepted"),
        ("study --arms teacher", "each one of label_only, label_only_tuned"),
        ("study --arms transfer --data.train_per_class null", "from images without labels"),
        ("study --arms scaled_ce --distill.ce_weight 0", "distill.ce_weight, which is 0"),
        ("study --jobs 0", "--jobs: 0 is not accepted; give a number of at least 1"),
        ("study --jobs two", "--jobs: 'two' is not accepted; give a whole number"),
        ("study --cluster nowhere", "--cluster: 'nowhere' is no address; give the address"),
        ("study --jobs 2 --cluster tcp://127.0.0.1:1", "--jobs and --cluster were both given"),
        ("study --job 2", "job: no such key in a recipe"),
        ("study --resume nowhere", "nowhere holds no run"),
        ("study --resume nowhere --arms label_only", "--arms was given with --resume"),
        ("evaluate", "run and target missing; see `qkd evaluate --help`"),
        ("evaluate nowhere --target aer", "nowhere holds no run"),
        ("evaluate nowhere --target aer --shot 3", "--shot is not an option"),
        ("recipes show", "recipe missing; see `qkd recipes show --help`"),
        ("recipes show nonsense", "recipe 'nonsense' is unknown"),
        ("circuits show nonsense", "circuit 'nonsense' is not in the zoo"),
        ("targets snapshots", "choose from 'list'"),
    ],
)
def test_bad_input_is_one_line(words, message, capsys, tmp_path):
    assert message in one_line(capsys, *words.split())
    assert not list(tmp_path.glob("runs/*")), "a run that never began left a folder"


def test_a_study_has_arms_and_seeds_of_its_own(recipe_of):
    recipe = recipe_of("digits_quantum", command="study").recipe
    assert recipe.arms[:3] == ("label_only", "label_only_tuned", "distilled")
    assert recipe.seeds == 10
    assert recipe.targets == ("exact",)
    assert recipe.student.kind == "quantum"
    given = "--seeds", "4", "--arms", "label_only,distilled", "--targets", "exact,aer"
    recipe = recipe_of(*given, command="study").recipe
    assert (recipe.seeds, recipe.arms) == (4, ("label_only", "distilled"))
    assert recipe.targets == ("exact", "aer")


def test_a_study_leaves_what_your_own_file_states(tiny, tmp_path, recipe_of):
    recipe = recipe_of(str(tiny), command="study").recipe
    assert (recipe.seeds, len(recipe.arms)) == (2, 3)
    assert recipe.targets == ("exact", "fake_manila")
    path = tmp_path / "some.yaml"
    path.write_text("distill: {epochs: 2}")
    recipe = recipe_of(str(path), command="study").recipe
    assert (recipe.seeds, recipe.distill.epochs) == (10, 2)


def test_a_study_from_the_command(tiny, capsys):
    words = ["study", str(tiny), "--jobs", "1", "--targets", "exact"]
    words += ["--arms", "label_only,label_only_tuned,distilled"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "distilled - label only tuned" in said
    folder = next(Path("runs").iterdir())
    assert folder.name == "tiny-study"
    page = (folder / "report.html").read_text()
    assert "Is it real?" in page
    assert "qkd study recipe.yaml" in page
    assert main(["study", "--resume", str(folder), "--jobs", "1", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {entry["arm"] for entry in again["comparisons"]} == {"label_only", "distilled"}


def write_pickle(path):
    torch.save({"weight": torch.ones(1)}, path)


def write_other_teacher(path):
    from qkd_qiskit.teachers.teacher import make_teacher, save_teacher

    recipe = load_recipe("digits", {"teacher.kind": "softmax", "teacher.epochs": 1})
    three = load_recipe("digits", {"data.classes": [1, 2, 3]})
    save_teacher(make_teacher(recipe.teacher, study.load_data(three.data)), path)


def write_damaged(path):
    write_other_teacher(path)
    path.write_bytes(path.read_bytes()[:-2])


def write_qasm(body):
    def write(path):
        path.write_text(f'OPENQASM 3.0;\ninclude "stdgates.inc";\n{body}\n')

    return write


@pytest.mark.parametrize(
    ("key", "write", "message"),
    [
        ("teacher.checkpoint", write_pickle, "pickle"),
        ("teacher.checkpoint", write_other_teacher, "3 outputs for 10 classes"),
        ("teacher.checkpoint", write_damaged, "damaged"),
        ("teacher.checkpoint", Path.touch, "is empty"),
        (
            "student.circuit",
            write_qasm("input float[64] theta; qubit[1] q; ry(theta) q[0];"),
            "'theta' is not accepted; name the inputs x_000",
        ),
        (
            "student.circuit",
            write_qasm("input float[64] w_000; qubit[1] q; ry(w_000) q[0];"),
            "no input parameter",
        ),
        (
            "student.circuit",
            write_qasm(
                "input float[64] x_000; input float[64] w_001; qubit[1] q; "
                "ry(x_000) q[0]; ry(w_001) q[0];"
            ),
            "'w_001' is not accepted",
        ),
        ("student.circuit", write_qasm("qubit[1] q; ry(phi) q[0];"), "not an OpenQASM 3 circuit"),
        ("student.circuit", Path.touch, "not an OpenQASM 3 circuit"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(key, write, message, capsys, tmp_path):
    path = tmp_path / "given"
    write(path)
    small = ["--teacher.kind", "softmax", *SMALL]
    assert message in one_line(capsys, "distill", f"--{key}", str(path), *small)
    assert not list(tmp_path.glob("runs/*"))


def test_output_folders_that_are_taken(finished, capsys, tmp_path):
    (tmp_path / "file").write_text("precious")
    taken = str(finished.path)
    assert "holds another run" in one_line(capsys, "distill", "--out", taken)
    assert "is a file" in one_line(capsys, "distill", "--out", "file")
    assert "Not a directory" in one_line(capsys, "distill", "--out", "file/run", status=1)
    assert "too long" in one_line(capsys, "distill", "--out", "a" * 300, status=1)
    assert "cannot write" in one_line(capsys, "circuits", "export", "file", status=1)
    assert (tmp_path / "file").read_text() == "precious"


def test_damaged_run_folders(finished, capsys, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(finished.path, run)
    weights = run / "distilled" / "seed_0" / "weights.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1])
    words = ("evaluate", str(run), "--target", "aer", "--shots", "5", "--quiet")
    assert "weights.safetensors" in one_line(capsys, *words)
    write_pickle(weights)
    assert "pickle" in one_line(capsys, *words)
    weights.write_bytes(good)
    assert "shots is 0" in one_line(capsys, *words[:4], "--shots", "0", "--quiet")
    assert "unknown target 'fake'" in one_line(capsys, *words[:3], "fake", "--quiet")
    (run / "result.json").write_text("{")
    assert "result.json cannot be read" in one_line(capsys, *words)
    (run / "recipe.yaml").write_text("seeds: {")
    assert "is not YAML" in one_line(capsys, *words)
    assert "is not YAML" in one_line(capsys, "distill", "--resume", str(run))


def test_a_checkpoint_of_another_recipe_is_refused(tiny, capsys, tmp_path):
    assert main(["distill", str(tiny), "--out", "run", "--quiet", *SMALL]) == 0
    shutil.rmtree(tmp_path / "run" / "distilled")
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("lr: 0.05, sch", "lr: 0.06, sch"))
    assert "lr: 0.06" in recipe.read_text()
    message = one_line(capsys, "distill", "--resume", "run", "--quiet")
    assert "belongs to another recipe or population" in message


def test_keys_override_the_recipe_wherever_it_is_named(recipe_of, tiny):
    expected = load_recipe(tiny, {"student.qubits": 3, "seeds": [5, 7], "targets": ["aer"]})
    keys = ["--student.qubits=3", "--seeds", "5,7", "--targets", "aer"]
    for words in ([str(tiny), *keys], [*keys, str(tiny)], [*keys[:1], str(tiny), *keys[1:]]):
        folder = recipe_of(*words)
        assert folder.recipe == expected
        assert folder.path.name.startswith("tiny")


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("", {}),
        ("--seeds 1", {"seeds": 1}),
        ("--seeds 5,7", {"seeds": [5, 7]}),
        ("--seeds [5]", {"seeds": [5]}),
        ("--arms label_only", {"arms": ["label_only"]}),
        ("--data.classes 3,5", {"data.classes": [3, 5]}),
        ("--data.classes=[3,5]", {"data.classes": [3, 5]}),
        ("--data.classes null", {"data.classes": None}),
        ("--data.train_per_class null", {"data.train_per_class": None}),
        ("--targets aer,fake_manila", {"targets": ["aer", "fake_manila"]}),
        ("--student.sharpness learned", {"student.sharpness": "learned"}),
        ("--distill.student_temperature 1", {"distill.student_temperature": 1.0}),
        ("--distill.lr 1e-3", {"distill.lr": 0.001}),
    ],
)
def test_ways_to_write_a_value(words, changes, recipe_of):
    assert recipe_of(*words.split()).recipe == load_recipe("digits", changes)


def test_every_key_can_be_given(recipe_of):
    flat = flat_recipe(load_recipe("digits"))
    assert set(flat) == set(recipe_keys())
    words = [f"--{key}={'null' if value is None else value}" for key, value in flat.items()]
    assert recipe_of(*(word.replace("'", "").replace(" ", "") for word in words)).recipe == (
        load_recipe("digits")
    )


def test_a_run_from_a_file_to_its_table(tiny, capsys, tmp_path):
    assert main(["distill", str(tiny), "--out", "deep/run"]) == 0
    output = capsys.readouterr()
    for part in ("teacher (softmax)", "distilled", "gain (points)", "report: deep/run/report.html"):
        assert part in output.out
    assert "\x1b" not in output.out
    assert (tmp_path / "deep/run/report.html").read_text().lower().startswith("<!doctype html")
    result = RunFolder.open("deep/run").result
    assert result.command == f"qkd distill {tiny} --out deep/run"
    # Nothing is left to do, and the result says the same.
    assert main(["distill", "--resume", "deep/run", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert Result.from_json(again).arms == result.arms
    assert Result.from_json(again).gain == result.gain


def test_json_and_quiet(tiny, capsys):
    words = ["distill", str(tiny), *SMALL]
    assert main([*words, "--json"]) == 0
    output = capsys.readouterr()
    assert set(json.loads(output.out)["arms"]) == {"label_only", "distilled"}
    assert output.err == ""
    assert main([*words, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert {path.name for path in Path("runs").iterdir()} == {"tiny", "tiny-2"}


def test_a_run_without_a_pair_ends_with_a_table(tiny, capsys):
    words = ["--arms", "label_only", "--seeds", "1", "--targets", "exact"]
    assert main(["distill", str(tiny), *words]) == 0
    assert "label only" in capsys.readouterr().out


def test_students_that_failed_are_named(tiny, capsys):
    assert main(["distill", str(tiny), *SMALL, "--distill.lr", "1e30"]) == 0
    output = capsys.readouterr().out
    for arm in ("label_only", "distilled"):
        assert f"failed, left out: {arm}, seed 0: the loss is not finite" in output
    assert "no pair" in output


def test_evaluate_adds_a_target(finished, capsys, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    words = ["evaluate", "run", "--target", "fake_manila", "--shots", "16"]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert "fake_manila@16" in table
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["arms"]["distilled"]["fake_manila@16"]["shots"] == [16, 16]
    added = Result.from_json(result).arms["distilled"]["exact"]
    assert added == finished.result.arms["distilled"]["exact"]


def test_lists(capsys, tmp_path):
    for words, parts in {
        "recipes": ["digits"],
        "recipes list": ["digits"],
        "recipes show digits": ["student:", "qubits:"],
        "circuits list": ["digits"],
        "circuits show angle_4": ["q_0", "Ry"],
        "targets list": ["exact", "aer", "fake_torino", "calibrated"],
    }.items():
        assert main(words.split()) == 0
        output = capsys.readouterr()
        assert output.err == ""
        for part in parts:
            assert part in output.out
    assert main(["recipes", "show", "digits"]) == 0
    (tmp_path / "copy.yaml").write_text(capsys.readouterr().out)
    assert load_recipe("copy.yaml") == load_recipe("digits")


@pytest.mark.parametrize(
    "words",
    [
        "",
        "distill",
        "distill digits",
        "evaluate",
        "recipes",
        "recipes show",
        "circuits",
        "circuits export",
        "targets",
        "targets list",
    ],
)
def test_help_is_there_for_every_command(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*words.split(), "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: qkd")
    assert all(len(line) <= 100 for line in text.splitlines())
    if words == "distill":
        for key in recipe_keys():
            assert f"--{key}" in text


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys, time\n"
        "from qkd_qiskit.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit:\n"
        "    heavy = {'torch', 'qiskit', 'scipy', 'numba'} & set(sys.modules)\n"
        "    print(time.process_time(), sorted(heavy), file=sys.stderr)\n"
    )
    floor = "import argparse, yaml, sys, time; print(time.process_time(), [], file=sys.stderr)"
    seconds: dict[str, list[float]] = {code: [], floor: []}
    for _ in range(3):
        for program, taken in seconds.items():
            done = subprocess.run(
                [sys.executable, "-c", program], capture_output=True, text=True, check=True
            )
            took, heavy = done.stderr.split(maxsplit=1)
            assert heavy.strip() == "[]"
            taken.append(float(took))
    # In units of what any command with these libraries takes: machines and their load differ.
    assert min(seconds[code]) < 3 * min(seconds[floor])


def test_a_reader_that_stops_early_is_no_error():
    command = f"{' '.join(map(repr, QKD))} targets list | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("exact")
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_one_line():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*QKD, "recipes"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.stderr == "qkd: cannot read or write: No space left on device\n"
    assert done.returncode == 1


def stop_in_training(words, how):
    """Start the command in a process of its own and stop it once a checkpoint is there."""
    process = subprocess.Popen(
        [*QKD, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    checkpoint, deadline = Path("run/checkpoints/students.safetensors"), time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert not Path("run/result.json").exists(), "the run ended before it was stopped"
    return process.returncode, out, err


@pytest.fixture(scope="module")
def uninterrupted(tiny, tmp_path_factory):
    """A run that nothing stops, of the recipe that the tests below stop."""
    path = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert main(["distill", str(tiny), "--distill.epochs", "60", *SMALL, "--out", str(path)]) == 0
    return path


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_is_continued_to_the_same_bytes(how, tiny, uninterrupted, capsys):
    words = ["distill", str(tiny), "--distill.epochs", "60", *SMALL, "--out", "run"]
    status, out, err = stop_in_training(words, how)
    assert "\x1b" not in out
    if how == signal.SIGINT:
        assert status == 130
        assert err == "qkd: interrupted; to continue: qkd distill --resume run\n"
        assert not list(Path("run").rglob("*.tmp"))
    else:
        assert status == -signal.SIGKILL
    assert main(["distill", "--resume", "run", "--quiet"]) == 0
    assert not list(Path("run").rglob("*.tmp"))
    for path in uninterrupted.rglob("*"):
        if path.name in ("weights.safetensors", "metrics.jsonl", "evaluations.json"):
            assert Path("run", path.relative_to(uninterrupted)).read_bytes() == path.read_bytes()
    mine, theirs = (
        json.loads((Path(p) / "result.json").read_text()) for p in ("run", uninterrupted)
    )
    for key in ("teacher", "student", "arms", "failed", "gain", "targets"):
        assert mine[key] == theirs[key]
    capsys.readouterr()


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(tiny, capsys, monkeypatch):
    from qkd_qiskit import storage

    save_file, calls = storage.save_file, []

    def full(tensors, path, metadata):
        save_file(tensors, path, metadata=metadata)
        calls.append(path)
        if "students" in path.name and len(calls) > 5:
            raise OSError(28, "No space left on device")

    words = ["distill", str(tiny), *SMALL, "--distill.epochs", "5", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(storage, "save_file", full)
        message = one_line(capsys, *words, "--out", "run", status=1)
    assert "No space left on device" in message
    assert "to continue: qkd distill --resume run" in message
    assert main(["distill", "--resume", "run", "--quiet"]) == 0
    assert main([*words, "--out", "whole"]) == 0
    for arm in ("label_only", "distilled"):
        name = f"{arm}/seed_0/weights.safetensors"
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes()
    assert capsys.readouterr() == ("", "")


def test_a_cache_that_cannot_be_written_is_only_a_warning(tiny, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QKD_CACHE", str(tmp_path / "file" / "cache"))
    assert main(["distill", str(tiny), *SMALL, "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_closed_streams_are_no_crash(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["recipes", "list"]) == 0
    assert main(["nonsense"]) == 2


def test_an_empty_path_is_not_the_default(capsys):
    assert "--out: '' is not accepted" in one_line(capsys, "distill", "--out", "")
