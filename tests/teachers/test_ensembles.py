"""Several networks teach together: what is averaged, which networks they are, how they are kept."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import softmax

from qkd_qiskit import (
    DataSpec,
    DistillSpec,
    StudentSpec,
    TeacherSpec,
    as_teacher,
    distill,
    load_data,
    make_student,
    make_teacher,
)
from qkd_qiskit.distillation.trainer import make_distillation_data
from qkd_qiskit.errors import RecipeError, TeacherError
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.teachers import load_teachers
from qkd_qiskit.recipe.parsing import dump_recipe, load_recipe
from qkd_qiskit.report.report import write_report
from qkd_qiskit.storage import load_tensors
from qkd_qiskit.teachers.ensembles import average_logits
from qkd_qiskit.teachers.teacher import make_untrained_teacher

THREE = TeacherSpec(kind="mlp", epochs=3, ensemble=3)


@pytest.fixture(scope="module")
def data():
    return load_data(DataSpec(classes=(3, 5, 8), test_per_class=20))


@pytest.fixture(scope="module")
def ensemble(data):
    return make_teacher(THREE, data, cache=False)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_softened_by_the_temperature_it_is_the_mean_of_the_softened_members(temperature):
    logits = 10 * torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0))
    mean = average_logits(logits, average="probabilities", temperature=temperature)
    expected = softmax(logits.double() / temperature, dim=-1).mean(dim=0)
    torch.testing.assert_close(
        softmax(mean.double() / temperature, dim=-1), expected, atol=1e-6, rtol=0
    )


def test_an_average_of_logits_is_their_mean_whatever_the_temperature():
    logits = torch.randn(3, 7, 4)
    for temperature in (1.0, 4.0):
        mean = average_logits(logits, average="logits", temperature=temperature)
        assert torch.equal(mean, logits.mean(dim=0))


def test_equal_members_are_as_one(data):
    network = make_teacher(TeacherSpec(epochs=2), data)
    pair = as_teacher([network, network], data)
    logits = network.logits(data.test.images)
    torch.testing.assert_close(
        softmax(pair.logits(data.test.images, temperature=3.0) / 3, 1), softmax(logits / 3, 1)
    )
    assert pair.accuracy == network.accuracy
    assert pair.parameters == 2 * network.parameters


def test_the_first_network_is_that_of_the_same_seed_and_the_others_differ(data, ensemble):
    single = make_teacher(replace(THREE, ensemble=1), data, cache=False)
    digests = [member.digest for member in ensemble.members]
    assert digests[0] == single.digest
    assert len(set(digests)) == 3
    assert ensemble.parameters == 3 * single.parameters


def test_all_networks_train_on_one_draw(data, monkeypatch):
    seen = []
    original = torch.nn.functional.cross_entropy

    def watched(logits, labels, **options):
        seen.append(len(labels))
        return original(logits, labels, **options)

    monkeypatch.setattr("torch.nn.functional.cross_entropy", watched)
    spec = TeacherSpec(epochs=1, train_per_class=4, ensemble=2)
    teacher = make_teacher(spec, data, seed=7, cache=False)
    assert sum(seen) == 2 * 3 * 4
    single = make_teacher(replace(spec, ensemble=1), data, seed=7, cache=False)
    assert teacher.members[0].digest == single.digest
    rows = data.draw(4, seed=0)
    own = replace(data, pool=data.pool[rows])
    assert (
        make_teacher(spec, own, seed=7, cache=False).members[1].digest != teacher.members[1].digest
    )


def test_what_the_module_gives_are_the_logits(data, ensemble):
    images = data.test.images
    torch.testing.assert_close(ensemble.module(images), ensemble.logits(images, cache=False))
    maps = ensemble.features(images[:4], layer="1.1", cache=False)
    assert torch.equal(maps, ensemble.members[1].features(images[:4], layer="1", cache=False))


def test_a_student_is_taught_the_softened_mean(data, ensemble):
    student = make_student(
        StudentSpec(qubits=2, encoding="angle"), image_shape=data.image_shape, num_classes=3
    )
    examples = make_distillation_data(
        student, ensemble, data, draws=torch.arange(3)[None], temperature=4.0
    )
    members = [member.logits(data.pool.images, cache=False) for member in ensemble.members]
    expected = softmax(torch.stack(members).double() / 4, dim=-1).mean(dim=0)
    torch.testing.assert_close(
        softmax(examples.teacher_logits[0].double() / 4, dim=-1), expected, atol=1e-6, rtol=0
    )
    seen = []

    def loss(logits, teacher_logits, labels):
        seen.append(teacher_logits.exp().sum(dim=1))
        return torch.nn.functional.cross_entropy(logits, labels) + 0 * teacher_logits.sum()

    distill(student, ensemble, data, spec=DistillSpec(epochs=1), train_per_class=2, loss=loss)
    # A function of the user's own is given log-probabilities, not what 4 softens to the mean.
    torch.testing.assert_close(seen[-1], torch.ones_like(seen[-1]))


def test_several_of_any_kind_teach_from_python(data, ensemble):
    images = data.pool.images
    network, other = ensemble.members[0], ensemble.members[1]
    table = other.logits(images, cache=False).numpy()
    mixed = as_teacher([network, lambda given: other.module(given)], data, cache=False)
    assert math.isfinite(mixed.accuracy)
    expected = softmax(
        torch.stack([one.logits(images, cache=False) for one in (network, other)]), dim=-1
    ).mean(dim=0)
    torch.testing.assert_close(softmax(mixed.logits(images, cache=False), 1), expected)
    with_table = as_teacher([network, table], data, cache=False)
    assert math.isnan(with_table.accuracy)
    assert with_table.kind == "ensemble"
    torch.testing.assert_close(softmax(with_table.logits(images, cache=False), 1), expected)
    assert as_teacher([network], data) is network
    assert as_teacher(table.tolist(), data).members == ()  # rows of numbers are one teacher's


def test_what_is_no_ensemble_is_refused_in_one_line(data, ensemble):
    with pytest.raises(
        TeacherError, match="average is 'median'; give one of probabilities, logits"
    ):
        as_teacher([ensemble], data, average="median")
    with pytest.raises(TeacherError, match="the teacher is a str"):
        as_teacher([ensemble, "forest"], data)
    two = load_data(DataSpec(classes=(3, 5)))
    with pytest.raises(TeacherError, match="has 3 outputs for 2 classes"):
        as_teacher([ensemble, ensemble], two)
    with pytest.raises(RecipeError, match=r"teacher\.ensemble: 2 is not accepted; give 1 where"):
        TeacherSpec(ensemble=2, checkpoint="a.safetensors")
    with pytest.raises(RecipeError, match=r"teacher\.ensemble: 0 is not accepted; give a whole n"):
        TeacherSpec(ensemble=0)


def test_untrained_networks_are_as_many(data):
    untrained = make_untrained_teacher(THREE, data)
    assert len({member.digest for member in untrained.members}) == 3
    assert np.isnan(untrained.accuracy)


def test_a_recipe_without_an_ensemble_is_written_as_ever(tiny):
    assert "ensemble" not in dump_recipe(load_recipe(tiny))
    assert "ensemble: 2" in dump_recipe(load_recipe(tiny, {"teacher.ensemble": 2}))


@pytest.mark.parametrize("same_draw", [False, True])
def test_a_run_keeps_each_network_and_goes_on_without_training_it_again(
    tiny, tmp_path, same_draw, monkeypatch
):
    changes = {"teacher.ensemble": 2, "teacher.same_draw": same_draw, "targets": ["exact"]}
    folder = RunFolder.create(tmp_path / "run", load_recipe(tiny, changes))
    result = run(folder, command="")
    names = sorted(path.name for path in (folder.path / "teachers").iterdir())
    assert names == (
        [f"seed_{seed}_member_{k}.safetensors" for seed in (0, 1) for k in (0, 1)]
        if same_draw
        else ["member_0.safetensors", "member_1.safetensors"]
    )
    data = load_data(folder.recipe.data, seed=0)
    loaded = load_teachers(folder, data).by_seed[1]
    own = data
    if same_draw:
        own = replace(data, pool=data.pool[data.draw_for(folder.recipe.data, seed=1)])
    spec = replace(folder.recipe.teacher, same_draw=False)
    expected = make_teacher(spec, own, seed=1 if same_draw else 0, cache=False)
    assert [one.digest for one in loaded.members] == [one.digest for one in expected.members]
    assert loaded.accuracy == expected.accuracy
    assert len(result.teacher.members) == 2
    assert result.teacher.title == "2 × softmax"
    page = write_report(folder).read_text(encoding="utf-8")
    assert "An ensemble of 2 networks (softmax regression)" in page
    assert "Its members alone are right on" in page
    lost = folder.path / "teachers" / names[-1]
    before, _ = load_tensors(lost)
    lost.unlink()
    monkeypatch.setenv("QKD_CACHE", str(tmp_path / "cache"))
    assert load_teachers(folder, data, train=True).by_seed[1].accuracy == expected.accuracy
    after, _ = load_tensors(lost)
    assert all(torch.equal(after[name], before[name]) for name in before)
