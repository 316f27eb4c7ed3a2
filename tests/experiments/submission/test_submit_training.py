"""Training on a device: the same steps as on the simulator, and each paid once."""

from dataclasses import replace

import pytest
import torch

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.distillation.executors import sampled_executor
from qkd_qiskit.errors import BudgetError, CheckpointError, InputError, RecipeError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.recalibrated_start import with_map
from qkd_qiskit.experiments.recalibration import recalibrations
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.submission import (
    Request,
    Training,
    begin_training,
    collect_run,
    plan_dry_run,
    submit_run,
)
from qkd_qiskit.experiments.tasks import RunContext, TrainingTask, train_task
from qkd_qiskit.experiments.teachers import load_teachers
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.report.report import write_report
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.ibm.job_records import read_journal

NAME = "ibm_manila:rehearsal"
SPSA = Training(gradient="spsa", steps=4, lr=0.05)
REQUEST = Request(backend="ibm_manila", mode="job")


class Steps(Callback):
    """Keeps the losses of the steps, and interrupts after one of them."""

    def __init__(self, last=None):
        self.last, self.losses = last, {}

    def step(self, number, *, steps, loss):
        self.losses[number] = loss
        if number == self.last:
            raise KeyboardInterrupt


def train(start, training=SPSA, request=REQUEST, **options):
    folder = begin_training(start, request, training, **options)
    (outcome,) = collect_run(folder)
    return outcome


def weights(folder, arms=("label_only", "distilled")):
    return {
        (arm, seed): (folder.member(arm, seed) / "weights.safetensors").read_bytes()
        for arm in arms
        for seed in folder.recipe.member_seeds
    }


@pytest.mark.parametrize(
    ("training", "mode"),
    [
        (replace(SPSA, evaluate=True), "session"),
        (Training(gradient="parameter_shift", steps=2, shifted_weights=2, evaluate=True), "batch"),
        (Training(gradient="parameter_shift", steps=2, fresh=True, evaluate=True), "job"),
    ],
)
def test_what_is_sent_is_what_was_said(training, mode, run_copy, rehearsal):
    server, request = rehearsal(), replace(REQUEST, mode=mode)
    said = plan_dry_run(run_copy, request, training=training).chosen
    assert not server.ledger.jobs
    outcome = train(run_copy, training, request)
    totals = server.ledger.totals()
    for name in ("jobs", "pubs", "circuits", "executions", "two_qubit_gates"):
        assert getattr(said, name) == totals[name]
    assert said.seconds - said.wait_seconds == pytest.approx(totals["quantum_seconds"], rel=0.01)
    before = [] if training.fresh else ["label_only_before", "distilled_before"]
    assert list(outcome.result.arms) == ["label_only", "distilled", *before]
    assert set(outcome.result.targets) == {"exact", "fake_manila", NAME}
    trained_on = outcome.result.trained_on
    assert (trained_on.place, trained_on.mode) == ("rehearsal", mode)
    evaluated = outcome.result.targets[NAME].device
    assert len(trained_on.jobs) + len(evaluated.jobs) == totals["jobs"]
    assert trained_on.qpu_seconds + evaluated.qpu_seconds == pytest.approx(
        totals["quantum_seconds"]
    )
    assert weights(run_copy).keys() == weights(outcome.folder).keys()
    assert not (run_copy.path / "devices").exists()


def test_twenty_steps_lower_the_loss_and_equal_the_simulators(run_copy, rehearsal):
    """The true client's training has the bits of one on the local simulator of the same seed."""
    rehearsal()
    training = replace(SPSA, steps=21, fresh=True)
    callback = Steps()
    folder = begin_training(run_copy, REQUEST, training, command="qkd submit RUN --train spsa")
    collect_run(folder, callback=callback)
    page = write_report(folder).read_text()
    assert "The students were trained by jobs: rehearsal of ibm_manila. No quantum" in page
    assert "qkd submit RUN --train spsa" in page
    assert "qkd distill recipe.yaml" not in page
    losses = list(callback.losses.values())
    assert len(losses) == 21
    assert sum(losses[-6:]) < sum(losses[:6])

    twin = RunFolder.create(folder.path.with_name("twin"), folder.recipe)
    recipe = twin.recipe
    data = load_data(recipe.data, seed=recipe.seed)
    target = Target.parse("fake_manila:aer", shots=recipe.shots, seed=recipe.seed)
    context = RunContext(
        folder=twin,
        data=data,
        teachers_by_seed=load_teachers(folder, data),
        targets=(),
        executor=lambda student: sampled_executor(
            student, recipe.distill, target, seed=recipe.seed
        ),
    )
    task = TrainingTask("students", ("label_only", "distilled"), recipe.member_seeds)
    train_task(context, task, callback=Callback())
    assert weights(twin) == weights(folder)


def test_a_training_that_was_stopped_ends_alike(run_copy, rehearsal, tmp_path):
    server = rehearsal()
    training = replace(SPSA, steps=5)
    whole = train(run_copy, training, out=str(tmp_path / "whole"))
    sent = len(server.ledger.jobs)
    folder = begin_training(run_copy, REQUEST, training, out=str(tmp_path / "stopped"))
    for last in (1, 4):
        with pytest.raises(KeyboardInterrupt):
            collect_run(folder, callback=Steps(last))
    with pytest.raises(CheckpointError, match="to go on: qkd collect"):
        run(RunFolder.open(folder.path))
    assert begin_training(run_copy, REQUEST, training, out=str(tmp_path / "stopped")).path == (
        folder.path
    )
    (outcome,) = collect_run(RunFolder.open(folder.path))
    assert len(server.ledger.jobs) == 2 * sent == 10
    assert weights(outcome.folder) == weights(whole.folder)
    assert outcome.result.trained_on.circuits == whole.result.trained_on.circuits
    (again,) = collect_run(RunFolder.open(folder.path))
    assert again.already
    assert len(server.ledger.jobs) == 10


def test_the_allowed_seconds_end_a_training_which_can_go_on(run_copy, rehearsal):
    server = rehearsal()
    folder = begin_training(run_copy, replace(REQUEST, max_qpu_seconds=6.0), SPSA)
    with pytest.raises(BudgetError, match="qkd collect"):
        collect_run(folder)
    assert 0 < server.ledger.totals()["quantum_seconds"] <= 6
    again = begin_training(run_copy, replace(REQUEST, max_qpu_seconds=100.0), SPSA)
    assert again.path == folder.path
    (outcome,) = collect_run(again)
    assert outcome.submission.finished
    assert len(server.ledger.jobs) == 4


def test_a_derived_run_holds_what_it_began_with(run_copy, rehearsal):
    rehearsal()
    folder = begin_training(run_copy, REQUEST, SPSA)
    assert folder.path.name == "run-on-ibm_manila-rehearsal"
    recipe = folder.recipe
    assert (recipe.distill.gradient, recipe.distill.train_target) == ("spsa", "ibm_manila")
    for arm in ("label_only", "distilled"):
        for seed in (0, 1):
            began = load_student(folder.member(f"{arm}_before", seed))
            assert (began.weights == load_student(run_copy.member(arm, seed)).weights).all()
    other = begin_training(run_copy, REQUEST, replace(SPSA, steps=5))
    assert other.path.name == "run-on-ibm_manila-rehearsal-2"
    assert begin_training(run_copy, REQUEST, SPSA).path == folder.path
    with pytest.raises(CheckpointError, match="holds another run"):
        begin_training(run_copy, REQUEST, SPSA, out=str(other.path))


def test_training_on_a_real_device_is_no_affair_of_distill(tiny, tmp_path):
    overrides = {"distill.gradient": "spsa", "distill.train_target": "ibm_torino"}
    folder = RunFolder.create(tmp_path / "run", load_recipe(tiny, overrides))
    with pytest.raises(RecipeError, match="qkd submit RUN --backend ibm_<name> --train spsa"):
        run(folder)
    folder = RunFolder.create(
        tmp_path / "before", load_recipe(tiny, {"arms": ["distilled", "distilled_before"]})
    )
    with pytest.raises(RecipeError, match="'distilled_before'"):
        run(folder)


def test_a_run_without_arms_to_train(run_copy):
    recipe = replace(run_copy.recipe, arms=("classical_twin",))
    with pytest.raises(InputError, match="label_only and distilled are trained"):
        begin_training(RunFolder(run_copy.path, recipe), Request(backend="fake_manila"), SPSA)


def test_the_journal_of_a_training_accounts_for_every_second(run_copy, rehearsal):
    server = rehearsal()
    outcome = train(run_copy, SPSA)
    (folder,) = outcome.folder.path.glob("devices/*")
    totals = read_journal(folder).totals()
    assert totals.usage_s == pytest.approx(server.ledger.totals()["quantum_seconds"])
    assert (totals.jobs, totals.finished) == (4, 4)


class TestFromRecalibrated:
    REQUEST = Request(backend="ibm_manila", mode="batch")
    WAY = Training(gradient="spsa", steps=2, recalibrated=True)

    def test_it_begins_with_the_maps_of_the_device(self, run_copy, rehearsal):
        rehearsal()
        with pytest.raises(InputError, match="has no recalibration of label_only, seed 0, for"):
            begin_training(run_copy, self.REQUEST, self.WAY)
        submit_run(run_copy, replace(self.REQUEST, recalibrate=20))
        folder = begin_training(run_copy, self.REQUEST, self.WAY)
        assert folder.path.name.endswith("-recalibrated")
        before = load_student(folder.member("distilled_before", 0))
        own = load_student(run_copy.member("distilled", 0))
        known = recalibrations(run_copy, "distilled", 0)["ibm_manila:rehearsal"]
        expected = with_map(own, known)
        for name, value in before.member_parameters().items():
            torch.testing.assert_close(value, expected[name])
        (outcome,) = collect_run(folder)
        assert outcome.submission.recalibrated
        assert begin_training(run_copy, self.REQUEST, self.WAY).path == folder.path

    def test_it_is_not_mixed_with_another_start(self, run_copy, rehearsal, tmp_path):
        rehearsal()
        submit_run(run_copy, replace(self.REQUEST, recalibrate=20))
        out = str(tmp_path / "trained")
        begin_training(run_copy, self.REQUEST, self.WAY, out=out)
        with pytest.raises(CheckpointError, match="was begun with --from-recalibrated"):
            begin_training(run_copy, self.REQUEST, replace(self.WAY, recalibrated=False), out=out)

    def test_an_untrained_student_has_none(self):
        with pytest.raises(InputError, match="leave one out"):
            replace(self.WAY, fresh=True)


@pytest.mark.parametrize("way", ["forward", "guided_spsa"])
def test_other_gradients_send_what_the_dry_run_says(way, run_copy, rehearsal):
    server = rehearsal()
    request, training = Request(backend="ibm_manila", mode="batch"), Training(gradient=way, steps=3)
    plan = plan_dry_run(run_copy, request, training=training)
    folder = begin_training(run_copy, request, training)
    collect_run(folder)
    totals = server.ledger.totals()
    assert (plan.chosen.jobs, plan.chosen.circuits) == (totals["jobs"], totals["circuits"])
    assert plan.chosen.jobs == 3
    assert plan.chosen.seconds == pytest.approx(totals["quantum_seconds"])


def test_shots_that_adapt_are_at_most_those_of_the_dry_run(run_copy, rehearsal):
    server = rehearsal()
    request = Request(backend="ibm_manila", mode="batch", shots=300)
    training = Training(gradient="spsa", steps=4, adaptive_shots=True)
    plan = plan_dry_run(run_copy, request, training=training)
    assert plan.chosen.what.endswith("SPSA, at most")
    collect_run(begin_training(run_copy, request, training))
    totals = server.ledger.totals()
    assert totals["circuits"] == plan.chosen.circuits
    assert totals["executions"] < plan.chosen.executions
