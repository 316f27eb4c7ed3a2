import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser

import pytest
from result_builder import make_result

from qkd_qiskit.circuits import build_circuit
from qkd_qiskit.circuits.filters import filter_circuit
from qkd_qiskit.circuits.openqasm import dump_circuit
from qkd_qiskit.distillation.population import EpochMetrics
from qkd_qiskit.errors import CheckpointError
from qkd_qiskit.experiments.results import StudentSummary, TriedSetting, Tuning
from qkd_qiskit.experiments.run_folder import RunFolder, append_line
from qkd_qiskit.experiments.target_summary import TargetSummary
from qkd_qiskit.recipe.parsing import parse_recipe
from qkd_qiskit.report.conclusions import conclusions
from qkd_qiskit.report.report import write_report
from qkd_qiskit.report.text import arm_name, conditions, count, percent, points

ALL_ARMS = ("label_only", "distilled", "classical_twin")
SECTIONS = [
    "Test accuracy",
    "Gain",
    "Training",
    "Confusion",
    "Circuit",
    "What shots and noise cost",
    "To repeat it",
]
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Reads a page, and fails where an element is not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.headings, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"[ \n]+", " ", "".join(self.text))


def make_run(
    path,
    *,
    arms=ALL_ARMS,
    targets=("exact", "fake_torino"),
    seeds=3,
    classes=("0", "1", "2"),
    failed=None,
    student=None,
    epochs=4,
    step=0.02,
    compared=False,
):
    """A finished run without a training: arms differ by `step`, seeds a little."""
    student = {"encoding": "angle", "qubits": 2, "layers": 1} | (student or {})
    recipe = parse_recipe({"arms": list(arms), "seeds": seeds, "student": student})
    folder = RunFolder.create(path, recipe)
    classical = recipe.student.kind == "classical"
    exact = {
        arm: [0.5 + step * position + 0.01 * (seed % 4) for seed in range(seeds)]
        for position, arm in enumerate(arms)
    }

    def has_circuit(arm, name):
        return not classical and arm != "classical_twin" and name != "exact"

    accuracies = {
        arm: {
            name: [value - 0.03 * has_circuit(arm, name) for value in exact[arm]]
            for name in targets
        }
        for arm in arms
    }
    result = make_result(
        accuracies,
        classes=classes,
        failed={arm: (failed or {}).get(arm, {}) for arm in arms},
        timing={"data_s": 0.2, "fake_torino_s": 12.0},
        compared=compared,
    )
    arms_of_result = {
        arm: {
            name: replace(
                metrics,
                exact_accuracy=tuple(exact[arm]),
                shots=(result.targets[name].shots if has_circuit(arm, name) else None,) * seeds,
            )
            for name, metrics in by_target.items()
        }
        for arm, by_target in result.arms.items()
    }
    result = replace(result, arms=arms_of_result)
    if classical:
        summaries = {name: replace(item, circuit=None) for name, item in result.targets.items()}
        result = replace(result, student=StudentSummary(parameters=446), targets=summaries)
    for arm in arms:
        for seed in range(seeds):
            lines = [json.dumps(asdict(figures(epoch, seed))) for epoch in range(1, epochs + 1)]
            append_line(folder.member(arm, seed) / "metrics.jsonl", "\n".join(lines) + "\n")
    folder.end(result)
    return folder


def figures(epoch, seed):
    share = 0.2 + 0.6 * epoch / (epoch + 2) + 0.01 * (seed % 5)
    return EpochMetrics(
        epoch=epoch, loss=1 / epoch, ce=2 / epoch, kd=0.5 / epoch, validation_accuracy=share, lr=0.1
    )


def report_of(folder):
    text = write_report(folder).read_text(encoding="utf-8")
    page = Page(text)
    assert page.headings == SECTIONS
    return text, page


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return report_of(make_run(tmp_path_factory.mktemp("runs") / "usual"))


def test_page_loads_nothing(usual):
    text, page = usual
    assert "http" not in text
    assert {"script", "link", "img", "iframe", "image"}.isdisjoint(page.tags)
    assert "@import" not in text
    assert all(found.startswith("#") for found in re.findall(r"url\(([^)]*)\)", text))
    assert all(value[0] == "#" for name, value in page.attributes if name in ("href", "src"))


def test_identifiers_are_unique_and_found(usual):
    text, page = usual
    identifiers = [value for name, value in page.attributes if name == "id"]
    assert len(set(identifiers)) == len(identifiers)
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text)) <= set(identifiers)


def test_every_figure_is_there_and_says_what_it_is(usual):
    _, page = usual
    assert page.tags.count("svg") == 2 + 3 + 3 + 1 + 1
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert len(labels) == page.tags.count("svg")
    assert all(labels)


def test_headline_answers_from_the_interval(usual):
    _, page = usual
    assert "A multilayer perceptron distilled into a 4-qubit circuit" in page.words
    assert "Distillation gained +2.0 points of test accuracy" in page.words
    assert "3 paired seeds): open, as 3 pairs are fewer than the 5" in page.words
    assert "it helped" not in page.words
    assert "3 seeds are few" in page.words
    assert "Against its classical twin, the distilled student: −2.0 points" in page.words


def test_conditions_are_said(usual):
    _, page = usual
    assert "500 images, 4\u202f096 shots, noise calibrated 2025\u201102\u201126" in page.words
    assert "best case: a model from calibration data, without crosstalk and drift" in page.words
    assert "paired t" in page.words
    assert "3 seeds (0, 1, 2)" in page.words


def test_tables_hold_the_figures(usual):
    _, page = usual
    for text in (
        "90.0\u202f%",
        "51.0\u202f%",
        "50.0\u202f% to 52.0\u202f%",
        "0.250",
        "60.0\u202f%",
    ):
        assert text in page.words
    for text in ("17", "63", "3.76", "0.890", "62, 61, 54, 60", "−3.0"):
        assert text in page.words


def test_recipe_commands_and_files_are_given(usual):
    text, page = usual
    assert "train_per_class: " in text
    assert "qkd distill recipe.yaml" in page.words
    assert "qkd distill --out somewhere" in page.words
    assert "label_only/seed_N/" in page.words
    assert "result.json" in page.words


def test_one_seed_has_no_interval(tmp_path):
    _, page = report_of(make_run(tmp_path / "run", seeds=1))
    assert "with one paired seed: no interval, so no conclusion" in page.words
    assert "1 seed (0)" in page.words


@pytest.mark.parametrize("arms", [("label_only",), ("distilled",), ("classical_twin",)])
def test_one_arm_gives_no_answer(tmp_path, arms):
    _, page = report_of(make_run(tmp_path / "run", arms=arms))
    assert "it cannot say whether distillation helped" in page.words
    assert "The run has no pair of arms to compare." in page.words


def test_twin_without_a_baseline_is_compared(tmp_path):
    _, page = report_of(make_run(tmp_path / "run", arms=("distilled", "classical_twin")))
    assert "This run has no arm `label only`" in page.words
    assert "Against its classical twin" in page.words


def test_missing_twin_is_said(tmp_path):
    _, page = report_of(make_run(tmp_path / "run", arms=("label_only", "distilled")))
    assert "No classical twin was trained" in page.words


def test_classical_student_has_no_circuit(tmp_path):
    student = {"kind": "classical"}
    _, page = report_of(make_run(tmp_path / "run", student=student))
    assert "distilled into a classical student" in page.words
    assert "The student is classical and has no circuit." in page.words
    assert "No circuit was evaluated on a sampled target." in page.words


def test_a_quanvolutional_student_shows_the_circuit_of_a_filter(tmp_path):
    arms = ("label_only", "distilled")
    folder = make_run(tmp_path / "run", arms=arms, student={"kind": "quanvolution"})
    (folder.path / "circuit.qasm").write_text(dump_circuit(filter_circuit(4).circuit))
    filters = StudentSummary(parameters=5923, filter_parameters=33)
    folder.end(replace(folder.result, student=filters))
    text, page = report_of(folder)
    assert "distilled into a quanvolutional network" in page.words
    assert "Every filter runs this circuit on every patch" in page.words
    assert "is classical and has no circuit" not in page.words
    assert 'aria-label="Circuit of the student on 4 qubits"' in text


def test_many_seeds_epochs_and_targets_stay_small(tmp_path):
    targets = ("exact", "aer", "fake_torino", "fake_torino@1024")
    classes = [str(label) for label in range(10)]
    run = make_run(tmp_path / "run", seeds=20, epochs=200, targets=targets, classes=classes)
    text, page = report_of(run)
    assert len(text.encode()) < 1_500_000
    assert "fake_torino@1024" in page.words
    assert "1\u202f024 shots" in page.words
    assert "are few" not in page.words


def test_failed_students_are_named_and_left_out(tmp_path):
    failed = {"distilled": {"1": "the loss is not finite"}}
    _, page = report_of(make_run(tmp_path / "run", failed=failed))
    assert "1 student failed to train" in page.words
    assert "distilled, seed 1: the loss is not finite" in page.words
    assert "1 of 3 failed" in page.words
    assert "2 paired seeds" in page.words


def test_all_failed_is_a_report_too(tmp_path):
    reasons = {str(seed): "the loss is not finite" for seed in range(3)}
    _, page = report_of(make_run(tmp_path / "run", failed=dict.fromkeys(ALL_ARMS, reasons)))
    assert "9 students failed to train" in page.words
    assert "No pair of trained students is left" in page.words
    assert "all failed" in page.words


def test_losses_that_are_not_finite_leave_gaps(tmp_path):
    folder = make_run(tmp_path / "run", failed={"distilled": {"0": "the loss is not finite"}})
    path = folder.member("distilled", 0) / "metrics.jsonl"
    append_line(path, json.dumps(asdict(figures(5, 0)) | {"ce": float("nan")}) + "\n")
    text, _ = report_of(folder)
    assert "nan" not in re.findall(r' d="([^"]*)"', text)


def test_metrics_that_are_gone_are_said(tmp_path):
    folder = make_run(tmp_path / "run")
    for path in folder.path.rglob("metrics.jsonl"):
        path.unlink()
    _, page = report_of(folder)
    assert "no metrics of the training" in page.words


def test_result_of_an_earlier_version_has_no_confusion_of_the_teacher(tmp_path):
    folder = make_run(tmp_path / "run")
    teacher = replace(folder.result.teacher, confusion=None)
    folder.end(replace(folder.result, classes=(), teacher=teacher))
    _, page = report_of(folder)
    assert page.tags.count("svg") == 9


def test_teacher_that_gives_no_logits_leaves_dashes(tmp_path):
    folder = make_run(tmp_path / "run")
    _, before = report_of(folder)
    none, result = (None,) * 3, folder.result
    arms = {
        arm: {
            **by_target,
            "exact": replace(by_target["exact"], agreement=none, divergence=none),
        }
        for arm, by_target in result.arms.items()
    }
    folder.end(replace(result, arms=arms))
    _, page = report_of(folder)
    assert page.words.count("–") == before.words.count("–") + 2 * len(ALL_ARMS)


def test_everything_from_files_is_escaped(tmp_path):
    evil = "<script>alert('&')</script>"
    folder = make_run(
        tmp_path / "run<b>",
        classes=("<b>a</b>", "$x$ & y_{2}", '"quoted"'),
        failed={"distilled": {"1": evil}},
    )
    teacher = replace(folder.result.teacher, kind=evil)
    folder.end(replace(folder.result, command=evil, teacher=teacher, versions={evil: evil}))
    text, page = report_of(folder)
    assert "<script" not in text
    assert "b" not in page.tags
    assert "$x$ & y_{2}" in page.words


@pytest.mark.parametrize("classes", [("no", "yes"), [f"a rather long name {i}" for i in range(10)]])
def test_two_to_ten_classes(tmp_path, classes):
    report_of(make_run(tmp_path / "run", classes=classes))


def test_circuit_of_your_own_is_drawn_from_the_folder(tmp_path):
    folder = make_run(tmp_path / "run", student={"circuit": "mine/own.qasm"})
    _, page = report_of(folder)
    assert "The circuit cannot be drawn: " in page.words
    parts = build_circuit(qubits=2, encoding="angle", ansatz="real_amplitudes", layers=40)
    (folder.path / "circuit.qasm").write_text(dump_circuit(parts.circuit), encoding="utf-8")
    _, page = report_of(folder)
    assert "your own, own.qasm" in page.words
    assert re.search(r"The first 40 of \d+ time steps are drawn\.", page.words)


def test_run_that_has_not_ended_is_refused(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder.path / "result.json").unlink()
    with pytest.raises(CheckpointError, match="has not ended; continue it with"):
        write_report(folder)
    assert not (folder.path / "report.html").exists()


def test_report_is_the_same_each_time(tmp_path):
    folder = make_run(tmp_path / "run")
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_numbers_are_written_with_their_sign():
    assert [points(value) for value in (8.94, -1.9, 0.0, -0.04)] == [
        "+8.9",
        "−1.9",
        "+0.0",
        "−0.04",
    ]
    assert percent(0.6154) == "61.5\u202f%"
    assert [count(1297, "image"), count(1, "image")] == ["1\u202f297 images", "1 image"]


def test_exact_noisy_targets_say_so():
    name = "fake_torino:exact"
    options = {"scale": 2.0, "readout_mitigation": "calibrated"}
    target = TargetSummary(shots=None, options=options)
    result = make_result({"distilled": {name: [0.5]}}, targets={name: target})
    assert target.noisy
    assert conditions(result, name) == (
        "500 images, exact probabilities, synthetic noise, readout errors mitigated"
    )


STUDY_ARMS = (
    "label_only",
    "label_only_tuned",
    "distilled_tuned",
    "distilled",
    "shuffled_teacher",
    "transfer",
    "replicate",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The page of a study, and its result."""
    folder = make_run(
        tmp_path_factory.mktemp("runs") / "study",
        arms=STUDY_ARMS,
        targets=("exact",),
        seeds=8,
        failed={"distilled": {"3": "no better than chance"}},
    )
    result = folder.result
    accuracies = {
        arm: {
            "exact": [
                value + 0.003 * ((7 * seed + len(arm)) % 5)
                for seed, value in enumerate(by_target["exact"].accuracy)
            ]
        }
        for arm, by_target in result.arms.items()
    }
    tried = TriedSetting(lr=0.03, weight_decay=0.0, epochs=20, validation_accuracy=(0.5,))
    other = TriedSetting(lr=0.1, weight_decay=0.01, epochs=40, validation_accuracy=(0.5, 0.6))
    result = make_result(
        accuracies,
        failed=result.failed,
        tuning=Tuning(seeds=(0,), chosen=tried, tried=(tried,) * 11),
        tunings={"distilled_tuned": Tuning(seeds=(0, 1), chosen=other, tried=(other,) * 11)},
        command="qkd study digits",
    )
    folder.end(result)
    text = write_report(folder).read_text(encoding="utf-8")
    return Page(text), result


def test_a_study_answers_over_the_baseline_that_counts(study):
    page, result = study
    said = " ".join(page.text)
    (answer,) = conclusions(result, "exact")
    assert answer.sentence in said
    assert "over label-only students with settings of their own" in said
    assert "learning rate 0.03, weight decay 0, 20 epochs, the best of 11" in said
    assert "learning rate 0.1, weight decay 0.01, 40 epochs, the best of 11" in said
    assert "the floor of the noise" in said
    assert "sees images that the others do not" in said


def test_a_study_shows_every_comparison(study):
    page, result = study
    assert "Is it real?" in page.headings
    said = " ".join(page.text)
    for entry in result.comparisons:
        assert f"{arm_name(entry.arm)} − {arm_name(entry.baseline)}" in said
    tested = [entry for entry in result.comparisons if entry.p_holm is not None]
    assert len(tested) >= 5
    assert f"corrected for the {len(tested)} tests" in said
    assert "1 failed" in said
    assert "qkd study recipe.yaml" in said


def test_a_run_without_comparisons_has_no_such_section(usual):
    _, page = usual
    assert "Is it real?" not in page.headings
