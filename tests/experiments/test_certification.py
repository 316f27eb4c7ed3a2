"""Does the circuit matter: planted cases, what is fitted, kept and refused, and the answer."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from qkd_qiskit.cli import main
from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments import certification
from qkd_qiskit.experiments.certificate import Certificate, Variant, read_certificates
from qkd_qiskit.experiments.certification import check_request, decide
from qkd_qiskit.experiments.results import Comparison
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.statistics import compare
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.report.certification_section import certification_answer
from qkd_qiskit.run import Run, run_experiment
from qkd_qiskit.students.factory import load_student, make_student

STUDENT = {
    "kind": "quantum",
    "qubits": 4,
    "layers": 5,
    "reduction": "none",
    "encoding": "amplitude",
    "ansatz": "real_amplitudes",
    "readout": "bins",
    "head": "none",
}


def labelled_by_a_circuit(count):
    """Points whose labels are those of a random student: signs of a quadratic form."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(count, 1, 4, 4, generator=generator)
    student = make_student(StudentSpec(**STUDENT), image_shape=(1, 4, 4), num_classes=2)
    with torch.no_grad():
        student.weights.copy_(0.5 * torch.randn(len(student.weights), generator=generator))
        return images, 2 * student(images)


def labelled_by_a_line(count):
    """Points along one direction, whose side of the middle is the label."""
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(16, generator=generator)
    position = 2 * torch.rand(count, 1, generator=generator) - 1
    noise = 0.2 * (torch.rand(count, 16, generator=generator) - 0.5)
    images = 0.5 + 0.3 * position * direction / direction.abs().max() + noise
    return images.reshape(count, 1, 4, 4), torch.cat([4 * position, -4 * position], dim=1)


def certified(make, path, *, count, seeds, **changes):
    images, logits = make(count)
    arrays = {"images": images.numpy(), "teacher_logits": logits.numpy()}
    np.savez(path / "data.npz", labels=logits.argmax(dim=1).numpy(), **arrays)
    given = {f"student.{key}": value for key, value in STUDENT.items()}
    given |= {"data.name": "arrays", "data.file": str(path / "data.npz")}
    given |= {"data.train_per_class": None, "teacher.kind": "logits", "teacher.epochs": 60}
    given |= {"arms": ["distilled"], "targets": ["exact"], "seeds": seeds}
    given |= {"distill.batch_size": 50, **changes}
    run = run_experiment(load_recipe("digits_quantum", given), out=path / "run")
    return run, run.certify()


@pytest.mark.slow
def test_planted_cases_are_told_apart_on_ten_of_ten_seeds(tmp_path):
    given = {"count": 1500, "seeds": 10, "data.train_points": 500, "distill.epochs": 30}
    for name in ("circuit", "line"):
        (tmp_path / name).mkdir()
    _, matters = certified(labelled_by_a_circuit, tmp_path / "circuit", **given)
    _, left_out = certified(labelled_by_a_line, tmp_path / "line", **given)
    assert matters.verdict == "matters"
    assert left_out.verdict == "left_out"
    for certificate, sides in ((matters, [True] * 10), (left_out, [False] * 10)):
        best = certificate.variant(certificate.best).accuracy
        pairs = zip(certificate.accuracy, best, strict=True)
        assert [own - its > certificate.margin / 100 for own, its in pairs] == sides
    rivals = [variant for variant in matters.variants if variant.rival]
    assert {variant.ahead for variant in rivals} == {10}
    assert all(variant.parameters <= matters.parameters for variant in rivals)
    assert matters.variant("no_entanglers").comparison.mean > 20


def test_a_circuit_that_matters_on_few_points(tmp_path):
    given = {"data.train_points": 300, "distill.epochs": 15}
    run, certificate = certified(labelled_by_a_circuit, tmp_path, count=600, seeds=5, **given)
    assert certificate.verdict == "matters"
    assert certificate.closed_form.kind == "quadratic"
    assert certificate.closed_form.difference < 1e-6
    assert certificate.refused == {"frozen_circuit": "nothing but the circuit is trained"}
    student = load_student(run.folder.member("distilled", 2))
    module = torch.export.load(run.path / certificate.closed_form.files[2]).module()
    images = run.data.test.images
    torch.testing.assert_close(module(images).float(), student(images), atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def small(finished, tmp_path_factory):
    """A copy of the tiny run, certified by the command."""
    path = tmp_path_factory.mktemp("certified") / "run"
    shutil.copytree(finished.path, path)
    assert main(["certify", str(path), "--quiet"]) == 0
    return path


def test_everything_is_fitted_once(small, capsys, monkeypatch):
    (certificate,) = read_certificates(RunFolder.open(small))
    names = [variant.name for variant in certificate.variants]
    assert names[:2] == ["classical_twin", "twin_pca"]
    expected = ("no_circuit", "linear_probe", "no_entanglers", "frozen_circuit")
    assert tuple(names[7:]) == expected
    for name in names:
        assert (small / "certify" / "distilled" / f"{name}_refit" / "seed_1").is_dir()
    monkeypatch.setattr(certification, "train_task", None)  # nothing is trained again
    assert main(["certify", str(small), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    answer = content.pop("answer")
    assert answer.startswith("Open: ")
    assert answer.endswith("a conclusion takes 5 seeds.")
    assert content == json.loads((small / "certify/distilled/certificate.json").read_text())


def test_refits_are_those_of_the_arm(small, finished):
    """The twin of the same seeds, loss and teacher is the one that the run itself has trained."""
    (certificate,) = read_certificates(RunFolder.open(small))
    own = finished.ended().arms
    assert certificate.accuracy == own["distilled"]["exact"].accuracy
    assert certificate.variant("classical_twin").accuracy == own["classical_twin"]["exact"].accuracy


def test_a_linear_probe_has_the_trained_reduction(small, finished):
    probe = load_student(small / "certify" / "distilled" / "linear_probe_refit" / "seed_1")
    trained = load_student(finished.member("distilled", 1))
    assert torch.equal(probe.reduction[1].weight, trained.reduction[1].weight)
    assert probe.num_parameters == 2 * 2 + 2


def test_report_and_table(small, capsys):
    page = (small / "report.html").read_text()
    assert "Does the circuit matter?" in page
    assert "models without the circuit, and the students in closed form" in page
    assert main(["certify", str(small)]) == 0
    out = capsys.readouterr().out
    assert "twin" in out
    assert "without this package." in out
    assert f"report: {small / 'report.html'}" in out


def test_another_arm_has_a_certificate_of_its_own(small):
    run = Run.open(small)
    certificate = run.certify("label_only", margin=50)
    assert certificate.arm == "label_only"
    assert [it.arm for it in read_certificates(run.folder)] == ["distilled", "label_only"]
    losses = [
        RunFolder.open(small / "certify" / arm).metrics("twin_pca_refit", 0)[0].loss
        for arm in ("distilled", "label_only")
    ]
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arm", "nonsense"], "'nonsense' is no arm of this run with a circuit"),
        (["--arm", "classical_twin"], "give one of label_only, distilled"),
        (["--margin", "-1"], "--margin: -1.0 is not accepted; give points, 0 or more"),
        (["--margin", "nan"], "--margin: nan is not accepted"),
    ],
)
def test_bad_requests_are_one_line(words, message, finished, capsys):
    assert main(["certify", str(finished.path), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (finished.path / "certify").exists()


def test_what_is_not_trained_exactly_is_refused(tiny):
    noisy = load_recipe(tiny, {"arms": ["distilled_noisy", "label_only", "self_distilled"]})
    with pytest.raises(InputError, match="'distilled_noisy' is trained on a target"):
        check_request(noisy, arm="distilled_noisy", margin=1)
    with pytest.raises(InputError, match="'self_distilled' is trained from other students"):
        check_request(noisy, arm="self_distilled", margin=1)


def variant(name, accuracy, *, own, rival=True, validation=0.5, p_holm=0.01):
    test = compare(own, accuracy)
    comparison = Comparison(
        arm="distilled", baseline=name, target="exact", left_out=(), **vars(test)
    )
    return Variant(
        name=name,
        parameters=9,
        rival=rival,
        validation_accuracy=validation,
        accuracy=tuple(accuracy),
        ahead=0,
        comparison=replace(comparison, p_holm=p_holm),
    )


OWN = [0.90, 0.91, 0.92, 0.90, 0.91]
BELOW, EQUAL, ABOVE = (
    [value + shift + 0.001 * (row % 2) for row, value in enumerate(OWN)]
    for shift in (-0.1, -0.001, 0.1)
)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([("twin_pca", BELOW, {})], "matters"),
        ([("twin_pca", BELOW, {}), ("twin_conv", BELOW, {"p_holm": 0.2})], "open"),
        ([("twin_pca", BELOW, {}), ("twin_conv", EQUAL, {"validation": 0.9})], "left_out"),
        # The best by validation is what counts, not the best on the test data.
        ([("twin_pca", BELOW, {"validation": 0.9}), ("twin_conv", ABOVE, {})], "open"),
        ([("twin_pca", ABOVE, {})], "left_out"),
        # One with more numbers, or with a circuit, does not count.
        ([("twin_pca", BELOW, {}), ("no_circuit", ABOVE, {"rival": False})], "matters"),
        ([("no_circuit", ABOVE, {"rival": False})], "open"),
    ],
)
def test_the_rule(others, expected):
    variants = [variant(name, its, own=OWN, **changes) for name, its, changes in others]
    assert decide(variants, margin=1.0) == expected


def test_fewer_than_five_pairs_are_open():
    assert decide([variant("twin_pca", BELOW[:4], own=OWN[:4])], margin=1.0) == "open"


@pytest.mark.parametrize(
    ("verdict", "accuracy", "expected"),
    [
        ("matters", BELOW, "The circuit matters: +10.0 points (95 % interval +9.9 to +10.0, "),
        ("left_out", ABOVE, "The circuit can be left out: the PCA twin is as good within 1 point;"),
        ("open", EQUAL, "Open: +0.1 points"),
    ],
)
def test_the_answer_is_one_sentence(verdict, accuracy, expected):
    its = variant("twin_pca", accuracy, own=OWN)
    certificate = Certificate(
        arm="distilled",
        seeds=(0, 1, 2, 3, 4),
        parameters=9,
        accuracy=tuple(OWN),
        margin=1.0,
        verdict=verdict,
        best="twin_pca",
        variants=(its,),
    )
    answer = certification_answer(certificate).replace("\u202f", " ")
    assert answer.startswith(expected)
    assert answer.endswith(".")
    assert ". " not in answer
