"""More inputs: what each member sees depends on its seed alone, and takes as many steps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qkd_qiskit import (
    DataSpec,
    DistillSpec,
    StudentSpec,
    TeacherSpec,
    distill,
    load_data,
    make_student,
    make_teacher,
)
from qkd_qiskit.data.splits import Data
from qkd_qiskit.distillation.inputs import (
    draw_unlabelled,
    in_usual_steps,
    with_copies,
    with_unlabelled,
)
from qkd_qiskit.distillation.schedule import step_sizes
from qkd_qiskit.errors import DataError, TrainingError


@pytest.fixture(scope="module")
def data():
    stream = np.random.default_rng(0)
    return Data.from_arrays(stream.random((120, 1, 8, 8)), np.arange(120) % 3, seed=0)


def test_copies_of_a_seed_do_not_depend_on_the_other_seeds(data):
    spec = DistillSpec(augment="shift", copies=3)
    draws = torch.stack([data.draw(4, seed=seed) for seed in (0, 0, 1)])
    pool, rows = with_copies(data, draws, spec=spec, seeds=(0, 0, 1))
    alone, own = with_copies(data, draws[2:], spec=spec, seeds=(1,))
    assert rows.shape == (3, 3 * 12)
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(pool.pool.images[rows[2]], alone.pool.images[own[0]])
    assert torch.equal(pool.pool.images[rows[0][:12]], data.pool.images[draws[0]])
    for copy in rows[0].split(12):
        assert torch.equal(pool.pool.labels[copy], data.pool.labels[draws[0]])


@pytest.mark.parametrize("augment", ["shift", "jitter"])
def test_points_are_not_moved(augment):
    spec = DistillSpec(augment=augment)
    stream = np.random.default_rng(0)
    vectors = Data.from_arrays(stream.random((60, 12)), np.arange(60) % 3, seed=0)
    generated = load_data(DataSpec(name="generated", points=90))
    for points, features in ((vectors, 12), (generated, 64)):
        with pytest.raises(DataError, match=f"points of {features} features; give mixup or none"):
            with_copies(points, torch.zeros(1, 4, dtype=torch.int64), spec=spec, seeds=(0,))
    mixed = DistillSpec(augment="mixup", copies=2)
    _, rows = with_copies(vectors, torch.arange(4)[None], spec=mixed, seeds=(0,))
    assert rows.shape == (1, 8)


@pytest.mark.parametrize(("usual", "more"), [(40, 360), (33, 99), (10, 10)])
def test_as_many_steps_as_without(usual, more):
    spec = DistillSpec(epochs=7, batch_size=16)
    steps = sum(map(len, step_sizes(spec, usual)))
    changed = in_usual_steps(spec, usual=usual, more=more)
    assert sum(map(len, step_sizes(changed, more))) == steps


def student_of(data, seed=0):
    return make_student(
        StudentSpec(qubits=2, encoding="angle", layers=1),
        image_shape=data.image_shape,
        num_classes=data.num_classes,
        seed=seed,
    )


def weights_after(data, teacher, **spec):
    student = student_of(data)
    distill(student, teacher, data, spec=DistillSpec(epochs=2, **spec), train_per_class=4)
    return torch.cat([value.flatten() for value in student.parameters()]).detach()


def test_distill_takes_unlabelled_images_where_no_term_reads_labels(data):
    teacher = make_teacher(TeacherSpec(epochs=2), data)
    few = weights_after(data, teacher, ce_weight=0.0)
    more = weights_after(data, teacher, ce_weight=0.0, unlabelled=3)
    assert not torch.equal(few, more)
    with pytest.raises(TrainingError, match="unlabelled is 3, and the loss term ce reads labels"):
        weights_after(data, teacher, unlabelled=3)
    with pytest.raises(TrainingError, match="augment is mixup, and the loss term ce reads labels"):
        weights_after(data, teacher, augment="mixup")
    mixed = weights_after(data, teacher, augment="mixup", ce_weight=0.0)
    assert not torch.equal(mixed, few)


def test_labels_of_unlabelled_images_are_not_read(data):
    """With other labels on all images that are not drawn, the student is the same."""
    teacher = make_teacher(TeacherSpec(epochs=2), data)
    before = weights_after(data, teacher, ce_weight=0.0, unlabelled=3)
    rows = data.draw(4, seed=0)
    kept = data.pool.labels.clone()
    try:
        others = torch.ones(len(data.pool), dtype=torch.bool)
        others[rows] = False
        data.pool.labels[others] = 0
        from unittest.mock import patch

        with patch.object(Data, "draw", lambda *_, **__: rows):
            after = weights_after(data, teacher, ce_weight=0.0, unlabelled=3)
    finally:
        data.pool.labels[:] = kept
    assert torch.equal(before, after)


def test_unlabelled_images_of_ones_own_take_the_place_of_the_others_of_the_pool(data, caplog):
    rows = data.draw(4, seed=0)
    others = torch.ones(len(data.pool), dtype=torch.bool)
    others[rows] = False
    apart = replace(data, pool=data.pool[rows], unlabelled=data.pool.images[others])
    teacher = make_teacher(TeacherSpec(epochs=2), data)
    same = weights_after(data, teacher, ce_weight=0.0, unlabelled=3)
    assert torch.equal(weights_after(apart, teacher, ce_weight=0.0, unlabelled=3), same)
    assert "not used" not in caplog.text
    without = weights_after(apart, teacher, ce_weight=0.0)
    assert "unlabelled images are not used; a DistillSpec with unlabelled=9" in caplog.text
    assert torch.equal(without, weights_after(data, teacher, ce_weight=0.0))


def test_unlabelled_rows_come_after_the_pool_as_many_as_there_are(data):
    own = replace(data, unlabelled=torch.rand(10, 1, 8, 8))
    rows = own.draw(2, seed=1)
    drawn = draw_unlabelled(own, rows, share=1, seed=1)
    assert torch.equal(drawn[:6], rows)
    assert len(drawn) == 12
    assert (drawn[6:] >= len(data.pool)).all()
    assert not torch.equal(drawn[6:], draw_unlabelled(own, rows, share=1, seed=2)[6:])
    images = with_unlabelled(own).pool.images
    assert torch.equal(images[drawn[6:]], own.unlabelled[drawn[6:] - len(data.pool)])
    assert len(draw_unlabelled(own, rows, share=9, seed=1)) == 16
    assert with_unlabelled(data) is data
