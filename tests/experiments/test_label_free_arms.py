"""Arms that start from the distilled students and read no label."""

import pytest
import torch

from qkd_qiskit import Run, load_recipe, run_experiment
from qkd_qiskit.errors import RecipeError
from qkd_qiskit.experiments.arms import check_arms, loss_weights, training_spec
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.evaluation import exact_logits, target_logits
from qkd_qiskit.experiments.recalibration import SUFFIX, recalibrations
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.tasks import rounds
from qkd_qiskit.run import resume_experiment
from qkd_qiskit.targets import Target

NOISY = "fake_melbourne:exact"
ARMS = ["distilled", "recalibrated", "self_distilled_noisy", "distilled_then_noisy"]
CHANGES = {"arms": ARMS, "targets": ["exact", NOISY], "distill.student_temperature": 1.0}


class Stop(Callback):
    """Stops after the first epoch of an arm."""

    def stage(self, text):
        self.text = text

    def epoch(self, figures, *, epochs):
        if self.text == "self_distilled_noisy" and figures[0].epoch == 1:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def recipe(tiny):
    return load_recipe(tiny, CHANGES | {"distill.epochs": 40, "distill.batch_size": 24})


@pytest.fixture(scope="module")
def study(recipe, tmp_path_factory):
    return run_experiment(recipe, out=tmp_path_factory.mktemp("label-free") / "run")


def test_who_starts_from_others_is_trained_after_them(study, finished):
    first, second = rounds(study.folder)
    assert [task.arms for task in first] == [("distilled",)]
    assert [task.arms for task in second] == [(arm,) for arm in ARMS[1:]]
    assert len(list(rounds(RunFolder.open(finished.path)))) == 1


def test_no_label_has_a_weight(recipe, study):
    for arm in ARMS[2:]:
        assert loss_weights(arm, recipe)[0] == 0
        assert loss_weights(arm, recipe)[1] > 0
    assert training_spec("self_distilled_noisy", recipe, study.data).student_temperature is None
    assert training_spec("distilled_then_noisy", recipe, study.data).student_temperature == 1


def test_the_recalibrated_arm_is_the_distilled_student_with_a_map(study):
    metrics = study.result.arms
    assert metrics["recalibrated"]["exact"] == metrics["distilled"]["exact"]
    for row, seed in enumerate(study.result.seeds):
        student = study.student("recalibrated", seed=seed)
        for name, value in study.student("distilled", seed=seed).state_dict().items():
            assert torch.equal(student.state_dict()[name], value)
        known = recalibrations(study.folder, "recalibrated", seed)[NOISY]
        assert known.images == 50
        images, labels = study.data.test.images, study.data.test.labels
        measured = target_logits(student, images, target=Target.parse(NOISY))
        hits = (known.corrected(student, measured).argmax(dim=1) == labels).double().mean()
        assert metrics["recalibrated"][NOISY].accuracy[row] == pytest.approx(hits.item())
    assert NOISY + SUFFIX not in study.result.targets


def test_self_distillation_brings_noisy_outputs_to_the_own_exact_ones(study):
    images, target = study.data.test.images, Target.parse(NOISY)
    for seed in study.result.seeds:
        clean = study.student("distilled", seed=seed)
        wanted = exact_logits(clean, images).softmax(dim=1)
        before, after = (
            (target_logits(it, images, target=target).softmax(dim=1) - wanted).abs().mean()
            for it in (clean, study.student("self_distilled_noisy", seed=seed))
        )
        assert after < 0.7 * before


def test_a_stopped_run_of_them_goes_on_to_the_same_students(study, recipe, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_experiment(recipe, out=tmp_path / "out", callback=Stop())
    resumed = resume_experiment(tmp_path / "out")
    for arm in ARMS[2:]:
        for name, value in study.student(arm, seed=1).state_dict().items():
            assert torch.equal(resumed.student(arm, seed=1).state_dict()[name], value)


def test_both_are_recalibrated_and_the_report_names_them(study, tmp_path):
    again = Run.open(study.path)
    before = again.result.arms["recalibrated"][NOISY]
    result = again.recalibrate(NOISY, images=20)
    key = NOISY + SUFFIX
    assert result.arms["recalibrated"][NOISY] == before
    assert result.arms["recalibrated"][key].accuracy == before.accuracy
    assert result.arms["self_distilled_noisy"][key].images == (40, 40)
    text = again.report().read_text()
    assert "`self-distilled noisy` and `distilled, then noisy` train through the noise" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ["label_only", "recalibrated"]}, "'recalibrated' starts from the students of"),
        (
            {
                "arms": ["distilled", "wide"],
                "own_arms": {"wide": {"base": "self_distilled_noisy", "student.qubits": 3}},
            },
            "cannot have another shape",
        ),
    ],
)
def test_a_start_that_is_not_there_is_refused(changes, message, tiny):
    with pytest.raises(RecipeError, match=message):
        check_arms(load_recipe(tiny, changes))


def test_nothing_can_be_changed_of_what_is_not_trained(tiny):
    own = {"mine": {"base": "recalibrated", "distill.lr": 0.1}}
    with pytest.raises(RecipeError, match=r"own_arms\.mine\.base"):
        load_recipe(tiny, {"own_arms": own})
