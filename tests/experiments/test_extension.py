"""A run that was extended is one that began with all: to the byte, but for times."""

import json
import shutil

import pytest

from qkd_qiskit import Run, load_recipe, run_experiment
from qkd_qiskit.errors import CheckpointError, CircuitError, InputError, RecipeError
from qkd_qiskit.experiments import tasks
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.run import resume_experiment
from qkd_qiskit.storage import load_tensors

EXACT = {"targets": ["exact"], "distill.selection": "last"}
OF_A_PROCESS = ("timing", "command", "versions")


def start(tiny, path, **changes):
    return run_experiment(load_recipe(tiny, EXACT | changes), out=path)


def contents(path):
    """What the files of a run hold: bytes; of tensors their bytes by name, without the header."""
    found = {}
    for file in sorted(path.rglob("*")):
        name = str(file.relative_to(path))
        if file.suffix == ".safetensors" and file.name != "weights.safetensors":
            tensors, metadata = load_tensors(file)
            found[name] = {key: value.numpy().tobytes() for key, value in tensors.items()}, metadata
        elif file.name == "result.json":
            result = json.loads(file.read_text())
            found[name] = {key: result[key] for key in result if key not in OF_A_PROCESS}
        elif file.is_file() and file.name not in ("report.html", "provenance.json"):
            found[name] = file.read_bytes()
    return found


def assert_same_run(one, other):
    first, second = contents(one), contents(other)
    assert list(first) == list(second)
    for name in first:
        assert first[name] == second[name], name


class Watch(Callback):
    """Notes stages and epochs, and stops where it should."""

    def __init__(self, stop_at=None):
        self.members, self.stop_at = [], stop_at

    def epoch(self, figures, *, epochs):
        self.members.append(len(figures))
        if len(self.members) == self.stop_at:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"teacher.same_draw": True},
        {"student.kind": "quantum", "student.head": "none", "student.readout": "modulo"}
        | {"student.reduction": "avg_pool", "arms": ["label_only", "distilled"]},
        {"distill.terms": "[{loss: ce}, {loss: rkd_distance}]", "student.reduction": "cnn"},
    ],
    ids=["hybrid", "own teachers", "quantum", "terms"],
)
def test_more_seeds_give_the_run_that_began_with_them(tiny, tmp_path, changes):
    run = start(tiny, tmp_path / "few", seeds=3, **changes)
    watch = Watch()
    result = run.extend(seeds=10, callback=watch)
    assert set(watch.members) <= {14, 7}  # of one and two arms: seven seeds, not ten
    assert result == run.result
    assert result.seeds == run.recipe.member_seeds == tuple(range(10))
    start(tiny, tmp_path / "all", seeds=10, **changes)
    assert_same_run(tmp_path / "few", tmp_path / "all")


def test_more_arms_and_more_than_a_task_of_seeds(tiny, tmp_path):
    arms = ["label_only", "distilled", "classical_twin", "mine", "scaled_ce", "transfer"]
    own = {"mine": {"distill.temperature": 2.0}}
    run = start(tiny, tmp_path / "few", seeds="4,1,7", arms=arms[:2])
    run.evaluate("aer", shots=20)
    seeds = [4, 1, 7, *range(20, 29)]
    run.extend(seeds=seeds, arms=arms[2:], own_arms=own)
    assert run.recipe.arms == tuple(arms)
    whole = start(tiny, tmp_path / "all", seeds=seeds, arms=arms, own_arms=own)
    whole.evaluate("aer", shots=20)
    assert_same_run(run.path, whole.path)


def test_one_student_more_is_the_one_among_many(tiny, tmp_path):
    """Torch multiplies for a population of one in another way than for several."""
    changes = {"student.reduction": "cnn", "arms": ["distilled", "classical_twin"]}
    start(tiny, tmp_path / "few", seeds=3, **changes).extend(seeds=4)
    start(tiny, tmp_path / "all", seeds=4, **changes)
    assert_same_run(tmp_path / "few", tmp_path / "all")


@pytest.mark.parametrize("stop_at", [1, 4, 5])
def test_an_extension_goes_on_where_it_was_stopped(tiny, tmp_path, stop_at):
    run = start(tiny, tmp_path / "few", seeds=2)
    before = run.result
    with pytest.raises(KeyboardInterrupt):
        run.extend(seeds=4, arms=["scaled_ce"], callback=Watch(stop_at))
    stopped = Run.open(run.path)
    assert stopped.folder.last_result == before
    with pytest.raises(CheckpointError, match="has not ended; continue it with"):
        _ = stopped.result
    with pytest.raises(CheckpointError, match="has not ended; continue it with"):
        stopped.extend(seeds=5)
    watch = Watch()
    if stop_at == 1:
        stopped.extend(seeds=4, arms=["scaled_ce"], callback=watch)
    else:
        resume_experiment(run.path, callback=watch)
    assert len(watch.members) == 9 - stop_at  # three tasks of three epochs
    arms = [*before.arms, "scaled_ce"]
    start(tiny, tmp_path / "all", seeds=4, arms=arms)
    assert_same_run(run.path, tmp_path / "all")


def test_a_kill_between_the_last_students_and_the_result_loses_nothing(tiny, tmp_path, monkeypatch):
    run = start(tiny, tmp_path / "few", seeds=2)
    with monkeypatch.context() as patch:
        patch.setattr("qkd_qiskit.experiments.experiment.collect_result", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run.extend(seeds=4)
    monkeypatch.setattr(tasks, "train_population", lambda *_, **__: pytest.fail("trained"))
    resume_experiment(run.path)
    monkeypatch.undo()
    start(tiny, tmp_path / "all", seeds=4)
    assert_same_run(run.path, tmp_path / "all")


@pytest.mark.parametrize("count", [6, 1])
def test_the_tuned_arm_is_that_of_a_run_with_all_seeds(tiny, tmp_path, caplog, count):
    arms = ["label_only", "label_only_tuned", "distilled"]
    run = start(tiny, tmp_path / "few", seeds=count, arms=arms)
    tuned = run.result.tuning
    run.extend(seeds=7)
    assert ("is now on 5" in caplog.text) == (count == 1)
    changed = tuned.chosen.validation_accuracy != run.result.tuning.chosen.validation_accuracy
    assert changed == (count == 1)
    start(tiny, tmp_path / "all", seeds=7, arms=arms)
    if count == 6:
        assert_same_run(run.path, tmp_path / "all")
    assert run.result.tuning.seeds == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("tuned", ["label_only_tuned", "distilled_tuned"])
def test_a_tuning_that_ends_elsewhere_trains_the_tuned_arm_again(tiny, tmp_path, caplog, tuned):
    arms = [tuned, "distilled", "label_only"]
    run = start(tiny, tmp_path / "few", seeds=2, arms=arms)
    path = run.path / "result.json"
    content = json.loads(path.read_text())
    tuning = content["tuning"] if tuned == "label_only_tuned" else content["tunings"][tuned]
    tuning["chosen"]["lr"] *= 100  # as if the two seeds had chosen another one
    path.write_text(json.dumps(content))
    run.extend(seeds=6)
    assert f"{tuned} is tuned on 5 seeds" in caplog.text
    assert "took the place of lr" in caplog.text
    start(tiny, tmp_path / "all", seeds=6, arms=arms)
    assert_same_run(run.path, tmp_path / "all")


def test_in_parallel_processes_the_same(tiny, tmp_path):
    from qkd_qiskit.experiments.workers import Workers

    run = start(tiny, tmp_path / "few", seeds=2)
    run.evaluate("aer", shots=20)
    run.extend(seeds=4, arms=["scaled_ce"], workers=Workers(jobs=2))
    whole = start(tiny, tmp_path / "all", seeds=4, arms=[*run.recipe.arms])
    whole.evaluate("aer", shots=20)
    assert_same_run(run.path, whole.path)


def test_what_is_there_already_is_not_done_again(finished, monkeypatch):
    run = Run(finished)
    monkeypatch.setattr("qkd_qiskit.run.run", lambda *_, **__: pytest.fail("run"))
    assert run.extend(seeds=2, arms=["distilled"]) == run.result


def test_what_does_not_fit_is_refused_and_the_run_stays(finished, tmp_path):
    run = Run.open(shutil.copytree(finished.path, tmp_path / "run"))
    before = contents(run.path)
    with pytest.raises(
        RecipeError, match=r"seeds: 1 is not accepted; .* has the seeds 0, 1 and an"
    ):
        run.extend(seeds=1)
    with pytest.raises(RecipeError, match="keeps them: give more"):
        run.extend(seeds=[0, 2, 3])
    with pytest.raises(InputError, match="nothing to add"):
        run.extend()
    with pytest.raises(RecipeError, match="did you mean scaled_ce"):
        run.extend(arms=["scaled_cd"])
    with pytest.raises(RecipeError, match="features_only"):
        run.extend(arms=["features_only"])
    with pytest.raises(CircuitError, match=r"nowhere\.qasm"):  # found when the run begins
        run.extend(arms=["odd"], own_arms={"odd": {"student.circuit": "nowhere.qasm"}})
    assert contents(run.path) == before
    (run.path / "distilled" / "seed_1" / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has lost its weights\.safetensors; write it again"):
        run.extend(seeds=3)


def test_an_own_arm_keeps_its_meaning(tiny, tmp_path):
    own = {"mine": {"distill.temperature": 2.0}}
    run = start(tiny, tmp_path / "run", seeds=2, arms=["distilled", "mine"], own_arms=own)
    with pytest.raises(RecipeError, match="own_arms: mine is another arm in"):
        run.extend(arms=["mine"], own_arms={"mine": {"distill.temperature": 3.0}})


def test_figures_of_a_device_keep_their_seeds(finished, tmp_path):
    """Figures that jobs gave are of the seeds that were sent; arms without any are refused."""
    run = Run.open(shutil.copytree(finished.path, tmp_path / "run"))
    path = run.path / "result.json"
    content = json.loads(path.read_text())
    jobs = {"place": "rehearsal", "backend": "fake_manila", "mode": "batch", "submitted": ["2026"]}
    jobs |= {"jobs": ["a"], "pubs": 1, "circuits": 1, "executions": 1, "qpu_seconds": 1.0}
    jobs |= {"expected_qpu_seconds": 1.0, "wait_seconds": 0.0}
    content["targets"]["device"] = content["targets"].pop("fake_manila") | {"device": jobs}
    for section in (*content["arms"].values(), content["gain"], content["gain_over_twin"]):
        section["device"] = section.pop("fake_manila")
    path.write_text(json.dumps(content))
    gain = run.result.gain["device"]
    with pytest.raises(InputError, match="figures of device, where the arm scaled_ce has not been"):
        run.extend(arms=["scaled_ce"])
    result = run.extend(seeds=3)
    assert result.targets["device"].seeds == (0, 1)
    assert result.arms["distilled"]["device"].accuracy[2] is None
    assert result.gain["device"] == gain
    assert result.gain["exact"].seeds + len(result.gain["exact"].left_out) == 3


def test_what_depends_on_the_number_of_seeds_is_said(tiny, tmp_path, caplog):
    sampled = {"distill.gradient": "spsa", "distill.train_target": "aer", "distill.epochs": 1}
    run = start(tiny, tmp_path / "run", seeds=1, **sampled, arms=["label_only", "classical_twin"])
    run.extend(seeds=3)
    assert "label_only is trained from shots, which are drawn for all" in caplog.text
    assert "label_only, classical_twin of seed 0 trained alone and is kept" in caplog.text
    cost = run.result.training_cost["students"]
    # Four steps of an epoch of 24 images: one student, then two beside each other.
    assert cost.circuits % 3 == 0
    assert cost.calls > 0
