"""Fused steps in the training loop: the same training as under torch's autograd."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qkd_qiskit.data.splits import Data
from qkd_qiskit.distillation import trainer as loop
from qkd_qiskit.distillation.fused import fused_steps
from qkd_qiskit.distillation.population import Member
from qkd_qiskit.recipe import DistillSpec, StudentSpec, TeacherSpec
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.teachers.teacher import make_teacher

SPEC = DistillSpec(epochs=4, batch_size=7, lr=0.05, temperature=2.0)
MEMBERS = [
    Member(arm=arm, seed=seed, ce_weight=ce, kd_weight=kd)
    for arm, ce, kd in (("label_only", 1.0, 0.0), ("distilled", 0.5, 0.5))
    for seed in (0, 1)
]
STUDENTS = {
    "amplitude": StudentSpec(
        kind="quantum", qubits=4, encoding="amplitude", layers=2, reduction="none",
        readout="bins", head="none",
    ),
    "angle": StudentSpec(
        kind="quantum", qubits=4, encoding="angle", ansatz="ry_rz_ring", layers=2,
        reduction="avg_pool", readout="modulo", head="none", sharpness=4.0,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(3)
    labels = np.arange(90) % 3
    images = generator.random((90, 1, 4, 4)) * 0.5 + 0.5 * (labels / 2)[:, None, None, None]
    return Data.from_arrays(images.astype(np.float32), labels, validation_fraction=0.2)


@pytest.fixture(scope="module")
def teacher(data):
    return make_teacher(TeacherSpec(kind="softmax", epochs=5, lr=0.05), data, cache=False)


def train(
    data,
    teacher,
    spec=SPEC,
    *,
    student="amplitude",
    teach=lambda examples: examples,
    **options,
):
    shapes = {
        seed: make_student(STUDENTS[student], image_shape=(1, 4, 4), num_classes=3, seed=seed)
        for seed in (0, 1)
    }
    draws = torch.stack([data.draw(8, seed=member.seed) for member in MEMBERS])
    return loop.train_population(
        shapes[0],
        MEMBERS,
        starts=[dict(shapes[member.seed].named_parameters()) for member in MEMBERS],
        examples=teach(loop.make_distillation_data(shapes[0], teacher, data, draws=draws)),
        spec=spec,
        **options,
    )


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("change", [{}, {"student_temperature": 1.0, "weight_decay": 0.1}])
def test_fused_training_is_the_training_under_torch(student, change, data, teacher, monkeypatch):
    spec = replace(SPEC, **change)
    used = []
    monkeypatch.setattr(
        loop, "fused_steps", lambda *given: used.append(fused_steps(*given)) or used[-1]
    )
    fused = train(data, teacher, spec, student=student)
    assert used[0] is not None
    monkeypatch.setattr(loop, "fused_steps", lambda *_: None)
    plain = train(data, teacher, spec, student=student)
    for ours, theirs in zip(fused, plain, strict=True):
        for name, value in theirs.state.items():
            assert torch.allclose(ours.state[name], value, atol=2e-4), name
        for mine, other in zip(ours.history, theirs.history, strict=True):
            assert mine.loss == pytest.approx(other.loss, abs=1e-4)
            assert mine.kd == pytest.approx(other.kd, abs=1e-4)


@pytest.mark.parametrize("fused", [True, False])
def test_each_member_learns_from_its_own_teacher(fused, data, teacher, monkeypatch):
    if not fused:
        monkeypatch.setattr(loop, "fused_steps", lambda *_: None)
    own = train(data, teacher)

    def second_for_the_last(examples):
        logits = examples.teacher_logits
        teachers = torch.tensor([*[0] * (len(MEMBERS) - 1), 1])
        return replace(
            examples,
            teacher_logits=torch.cat([logits, logits.roll(1, 2)]),
            teachers=teachers,
        )

    def second_for_all(examples):
        return replace(examples, teacher_logits=examples.teacher_logits.roll(1, 2))

    mixed = train(data, teacher, teach=second_for_the_last)
    other = train(data, teacher, teach=second_for_all)
    expected = [*own[:-1], other[-1]]
    assert mixed[-1].history[-1].kd != own[-1].history[-1].kd
    for found, alone in zip(mixed, expected, strict=True):
        for name, value in alone.state.items():
            assert torch.allclose(found.state[name], value, atol=1e-5), name


def test_a_resumed_fused_training_ends_with_the_same_bits(data, teacher, tmp_path):
    whole = train(data, teacher)

    def stop(figures):
        if figures[0].epoch == 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "population.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(data, teacher, checkpoint=checkpoint, on_epoch=stop)
    resumed = train(data, teacher, checkpoint=checkpoint)
    for one, other in zip(whole, resumed, strict=True):
        assert all(torch.equal(one.state[name], other.state[name]) for name in one.state)
        assert one.history == other.history


def test_a_student_with_more_to_train_is_not_fused(data, teacher):
    for changed in (
        {"sharpness": "learned"},
        {"kind": "hybrid", "reduction": "linear"},
        {"kind": "hybrid", "head": "linear"},
    ):
        student = make_student(
            replace(STUDENTS["amplitude"], **changed), image_shape=(1, 4, 4), num_classes=3
        )
        assert not student.only_circuit_is_trained
