"""The training loop: members on their own, dead terms, checkpoints, choices and failures."""

import errno
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

import qkd_qiskit
from qkd_qiskit.data.splits import Data
from qkd_qiskit.distillation import losses
from qkd_qiskit.distillation import trainer as loop
from qkd_qiskit.distillation.population import Member, Population
from qkd_qiskit.errors import (
    CheckpointError,
    DataError,
    InputError,
    StorageError,
    TeacherError,
    TrainingError,
)
from qkd_qiskit.recipe import DistillSpec, StudentSpec, TeacherSpec
from qkd_qiskit.storage import load_tensors
from qkd_qiskit.students.factory import load_student, make_student
from qkd_qiskit.students.quantum import QuantumStudent
from qkd_qiskit.teachers.teacher import make_teacher

train_population = loop.train_population

SPEC = DistillSpec(epochs=3, batch_size=8, lr=0.05)
STUDENT = StudentSpec(qubits=2, layers=1)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    images = 0.2 * torch.rand(90, 1, 4, 4, generator=generator)
    images[torch.arange(90), 0, labels, labels] += 0.5
    return Data.from_arrays(images.numpy(), labels.numpy(), seed=1)


@pytest.fixture(scope="module")
def teacher(data):
    return make_teacher(TeacherSpec(kind="softmax", epochs=20, lr=0.1), data)


def student(which=STUDENT, *, seed=0):
    return make_student(which, image_shape=(1, 4, 4), num_classes=3, seed=seed)


def members():
    arms = (("label_only", 1.0, 0.0), ("distilled", 0.5, 0.5))
    return [Member(arm=a, seed=s, ce_weight=c, kd_weight=k) for a, c, k in arms for s in (0, 1)]


def train(data, teacher, chosen=None, *, spec=SPEC, shape=None, **options):
    chosen = members() if chosen is None else chosen
    shape = student() if shape is None else shape
    draws = torch.stack([data.draw(10, seed=member.seed) for member in chosen])
    return train_population(
        shape,
        chosen,
        starts=[dict(student(shape.spec, seed=m.seed).named_parameters()) for m in chosen],
        examples=loop.make_distillation_data(shape, teacher, data, draws=draws),
        spec=spec,
        **options,
    )


def test_a_member_does_not_depend_on_its_companions(data, teacher):
    together = train(data, teacher)
    for index, member in enumerate(members()):
        (alone,) = train(data, teacher, [member])
        for name, value in alone.state.items():
            torch.testing.assert_close(together[index].state[name], value, atol=1e-4, rtol=1e-3)
        assert together[index].history[0].ce == pytest.approx(alone.history[0].ce, rel=1e-4)
        assert together[index].chosen_epoch == alone.chosen_epoch


def test_training_is_plain_adam_on_the_weighted_terms(data, teacher):
    """The same figures from a loop over batches with an optimizer of torch, written out."""
    (member,) = members()[3:]
    (trained,) = train(data, teacher, [member], spec=replace(SPEC, selection="last"))
    model, rows = student(seed=member.seed), data.draw(10, seed=member.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=SPEC.lr)
    wanted = teacher.logits(data.pool.images)
    for epoch in range(SPEC.epochs):
        for group in optimizer.param_groups:
            group["lr"] = SPEC.lr * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * epoch / 3))).item()
        order = torch.randperm(len(rows), generator=loop.generator(member.seed, "order", epoch))
        for batch in rows[order].split(SPEC.batch_size):
            logits = model(data.pool.images[batch])
            ce = torch.nn.functional.cross_entropy(logits, data.pool.labels[batch])
            kd = torch.nn.functional.kl_div(
                (logits / 4).log_softmax(1), (wanted[batch] / 4).softmax(1), reduction="batchmean"
            )
            optimizer.zero_grad()
            (0.5 * ce + 0.5 * 16 * kd).backward()
            optimizer.step()
    for name, value in model.named_parameters():
        torch.testing.assert_close(trained.state[name], value, atol=1e-4, rtol=1e-3)


def test_arms_of_a_seed_share_start_and_order(data, teacher, monkeypatch):
    seen = []
    original = loop._terms

    def recorded(model, parameters, batch, spec, others):
        seen.append(({name: value.clone() for name, value in parameters.items()}, batch))
        return original(model, parameters, batch, spec, others)

    # Without vmap, so that what a member sees can be looked at.
    def mapped(function, in_dims=0, **_):
        def run(parameters, *batch):
            if in_dims == (0, None):
                outputs = [
                    function({k: v[i] for k, v in parameters.items()}, *batch) for i in range(4)
                ]
            else:
                outputs = [
                    function({k: v[i] for k, v in parameters.items()}, *(b[i] for b in batch))
                    for i in range(4)
                ]
            return torch.stack(outputs)

        return run

    monkeypatch.setattr(loop, "hybrid_steps", lambda *_, **__: None)
    monkeypatch.setattr(loop, "_terms", recorded)
    monkeypatch.setattr(loop, "vmap", mapped)
    monkeypatch.setattr(loop, "check_terms", lambda *_, **__: None)
    train(data, teacher, spec=replace(SPEC, epochs=1))
    steps = [seen[start : start + 4] for start in range(0, len(seen), 4)]
    assert len(steps) == 4  # 30 images in batches of 8
    for step in steps:
        for first, second in ((0, 2), (1, 3)):  # label_only and distilled of one seed
            for left, right in zip(step[first][1], step[second][1], strict=True):
                assert torch.equal(left, right)
        assert not torch.equal(step[0][1][0], step[1][1][0])
    for name, value in steps[0][0][0].items():
        assert torch.equal(value, steps[0][2][0][name])


class Deaf(QuantumStudent):
    """A student that no loss reaches."""

    def forward(self, inputs):
        return super().forward(inputs).detach()


def test_a_student_that_no_term_reaches_is_refused(data, teacher):
    deaf = student()
    deaf.__class__ = Deaf
    with pytest.raises(TrainingError, match=r"'ce' of arm 'label_only'.*no gradient"):
        train(data, teacher, shape=deaf)


@pytest.mark.parametrize("dead", ["constant", "detached"])
def test_a_dead_term_is_named_before_anything_is_trained(dead, data, teacher, monkeypatch):
    def loss(logits, teacher_logits, **_):
        return logits.new_tensor(0.7) if dead == "constant" else 0 * logits.sum() + 0.7

    monkeypatch.setattr(losses, "distillation_loss", loss)
    epochs = []
    with pytest.raises(TrainingError, match=r"'kd' of arm 'distilled'") as caught:
        train(data, teacher, on_epoch=epochs.append)
    assert not epochs
    assert "\n" not in str(caught.value)
    # Where the term has no weight nobody is harmed.
    assert train(data, teacher, members()[:2])


def test_a_term_that_overflows_is_named(data, teacher, monkeypatch):
    monkeypatch.setattr(losses, "distillation_loss", lambda logits, *_, **__: logits.sum() * 1e39)
    with pytest.raises(TrainingError, match=r"'kd' of arm 'distilled'.*not finite"):
        train(data, teacher)


@pytest.mark.parametrize("selection", ["validation", "last"])
def test_a_resumed_training_ends_with_the_same_bits(selection, data, teacher, tmp_path):
    spec = replace(SPEC, epochs=5, selection=selection)
    whole = train(data, teacher, spec=spec)

    class Stopped(Exception):
        pass

    def stop_after(epoch):
        def on_epoch(figures):
            if figures[0].epoch == epoch:
                raise Stopped

        return on_epoch

    path = tmp_path / "checkpoint.safetensors"
    for epoch in (2, 3):
        with pytest.raises(Stopped):
            train(data, teacher, spec=spec, checkpoint=path, on_epoch=stop_after(epoch))
    resumed = train(data, teacher, spec=spec, checkpoint=path)
    again = train(data, teacher, spec=spec, checkpoint=path)  # nothing is left to do
    for other in (resumed, again):
        for left, right in zip(whole, other, strict=True):
            assert left.history == right.history
            assert left.chosen_epoch == right.chosen_epoch
            for name, value in left.state.items():
                assert torch.equal(value, right.state[name])


@pytest.mark.parametrize(
    "change",
    [
        {"chosen": members()[:2]},
        {"spec": replace(SPEC, lr=0.04)},
        {"shape": student(replace(STUDENT, layers=2))},
    ],
)
def test_the_checkpoint_of_another_population_is_refused(change, data, teacher, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    train(data, teacher, checkpoint=path)
    with pytest.raises(CheckpointError, match="another recipe or population"):
        train(data, teacher, checkpoint=path, **change)


def test_a_damaged_checkpoint_is_refused(data, teacher, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    train(data, teacher, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        train(data, teacher, checkpoint=path)


@pytest.mark.parametrize(("seconds", "epochs"), [(0.0, [1, 2, 3]), (2.0, [2, 3]), (9.0, [3])])
def test_a_checkpoint_is_written_when_seconds_have_passed_and_at_the_end(
    seconds, epochs, data, teacher, tmp_path, monkeypatch
):
    clock = iter(1.5 * tick for tick in range(100))  # looked at once an epoch and once a checkpoint
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", seconds)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    saved, save = [], Population.save
    monkeypatch.setattr(
        Population, "save", lambda self, path: (saved.append(self.epochs_done), save(self, path))
    )
    path = tmp_path / "checkpoint.safetensors"
    train(data, teacher, spec=replace(SPEC, epochs=3), checkpoint=path)
    assert saved == epochs


def test_a_full_disk_leaves_the_last_checkpoint(data, teacher, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.safetensors"
    from qkd_qiskit import storage

    save_file, calls = storage.save_file, []

    def full_after_two(tensors, new, metadata):
        calls.append(new)
        save_file(tensors, new, metadata=metadata)
        if len(calls) > 2:
            with new.open("r+b") as file:
                file.truncate(100)
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "save_file", full_after_two)
        with pytest.raises(StorageError, match="No space left on device"):
            train(data, teacher, checkpoint=path)
    assert len(load_tensors(path)[0]["history"]) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    resumed, whole = train(data, teacher, checkpoint=path), train(data, teacher)
    for left, right in zip(resumed, whole, strict=True):
        assert left.history == right.history
        for name, value in left.state.items():
            assert torch.equal(value, right.state[name])


def test_training_ends_after_its_steps_within_an_epoch(data, teacher):
    whole = train(data, teacher)
    assert loop.step_sizes(SPEC, 30) == [[8, 8, 8, 6]] * 3
    means = {}
    spec = replace(SPEC, steps=6, schedule="constant")
    cut = train(data, teacher, spec=spec, on_step=means.__setitem__)
    assert loop.step_sizes(spec, 30) == [[8, 8, 8, 6], [8, 8]]
    assert list(means) == [1, 2, 3, 4, 5, 6]
    for one, other in zip(cut, whole, strict=True):
        assert one.history[0] == other.history[0]
        assert len(one.history) == 2
    assert sum(means[step] for step in (5, 6)) / 2 == pytest.approx(
        sum(one.history[1].loss for one in cut) / len(cut), rel=1e-5
    )
    exact = train(data, teacher, spec=replace(spec, steps=4))
    assert [one.history for one in exact] == [one.history[:1] for one in cut]


def test_selection_keeps_the_best_or_the_last_epoch(data, teacher):
    spec = replace(SPEC, epochs=6, lr=0.3, schedule="constant", selection="validation")
    best = train(data, teacher, spec=spec)
    last = train(data, teacher, spec=replace(spec, selection="last"))
    for chosen, final in zip(best, last, strict=True):
        accuracies = [epoch.validation_accuracy for epoch in chosen.history]
        assert chosen.history == final.history
        assert chosen.validation_accuracy == max(accuracies)
        # Of equally good epochs the last.
        expected = max(e for e, a in enumerate(accuracies, start=1) if a == max(accuracies))
        assert chosen.chosen_epoch == expected
        assert final.chosen_epoch == 6
    # What is kept are that epoch's weights: they have its accuracy.
    model = student()
    for one in best:
        model.load_parameters(one.state)
        hits = model(data.validation.images).argmax(dim=1) == data.validation.labels
        assert hits.float().mean().item() == pytest.approx(one.validation_accuracy)


@pytest.mark.parametrize("selection", ["validation", "last"])
def test_a_member_that_overflows_harms_nobody_else(selection, data, teacher, tmp_path):
    spec, path = replace(SPEC, selection=selection), tmp_path / "checkpoint.safetensors"
    broken = Member(arm="distilled", seed=7, ce_weight=3e38, kd_weight=3e38)
    healthy = members()
    alone = train(data, teacher, healthy, spec=spec)
    mixed = train(data, teacher, [*healthy[:2], broken, *healthy[2:]], spec=spec, checkpoint=path)
    failed = mixed.pop(2)
    assert not torch.isfinite(torch.tensor(failed.history[-1].loss))
    assert failed.chosen_epoch == 0
    assert math.isnan(failed.validation_accuracy)
    for name, value in student(seed=7).named_parameters():
        assert torch.equal(failed.state[name], value)
    for left, right in zip(mixed, alone, strict=True):
        for name, value in left.state.items():
            torch.testing.assert_close(value, right.state[name], atol=1e-4, rtol=1e-3)
    again = train(data, teacher, [*healthy[:2], broken, *healthy[2:]], spec=spec, checkpoint=path)
    assert torch.equal(again[2].state["head.weight"], failed.state["head.weight"])


def test_metrics_add_up(data, teacher):
    for one in train(data, teacher):
        for epoch in one.history:
            total = one.member.ce_weight * epoch.ce + one.member.kd_weight * epoch.kd
            assert epoch.loss == pytest.approx(total, rel=1e-5)
            assert 0 <= epoch.validation_accuracy <= 1
        assert [epoch.lr for epoch in one.history] == pytest.approx([0.05, 0.0375, 0.0125])
        assert one.history[-1].loss < one.history[0].loss


@pytest.mark.parametrize(
    "which",
    [
        StudentSpec(qubits=2, layers=1, reduction="pca"),
        StudentSpec(
            kind="quantum",
            qubits=4,
            layers=1,
            encoding="amplitude",
            reduction="none",
            readout="bins",
            head="none",
            sharpness="learned",
        ),
        StudentSpec(kind="classical", qubits=2),
    ],
)
def test_distill_trains_every_kind_of_student_in_place(which, data, teacher):
    model, epochs = student(which), []
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    trained = qkd_qiskit.distill(
        model, teacher, data, spec=SPEC, train_per_class=10, seed=3, on_epoch=epochs.append
    )
    assert len(epochs) == len(trained.history) == SPEC.epochs
    assert trained.history[-1].loss < trained.history[0].loss
    for name, value in model.named_parameters():
        assert torch.equal(value, trained.state[name])
        assert not torch.equal(value, before[name])
    images = data.validation.images
    hits = model(images).argmax(dim=1) == data.validation.labels
    assert hits.float().mean().item() == pytest.approx(trained.validation_accuracy)


def test_a_circuit_without_weights_is_trained_around(data, teacher, tmp_path):
    circuit = QuantumCircuit(2)
    circuit.ry(Parameter("x_000"), 0)
    circuit.ry(Parameter("x_001"), 1)
    model = make_student(STUDENT, image_shape=(1, 4, 4), num_classes=3, circuit=circuit)
    trained = qkd_qiskit.distill(model, teacher, data, spec=SPEC)
    assert trained.history[-1].loss < trained.history[0].loss
    model.save(tmp_path)
    images = data.test.images
    assert torch.equal(load_student(tmp_path)(images), model(images))


def test_what_does_not_belong_together_is_refused(data, teacher):
    other = make_student(STUDENT, image_shape=(1, 4, 4), num_classes=2)
    with pytest.raises(InputError, match="in 3 classes"):
        qkd_qiskit.distill(other, teacher, data, spec=SPEC)
    wide = make_student(STUDENT, image_shape=(1, 5, 5), num_classes=3)
    with pytest.raises(InputError, match=r"images of shape \(1, 4, 4\)"):
        qkd_qiskit.distill(wide, teacher, data, spec=SPEC)
    with pytest.raises(TeacherError, match="has 5 outputs, the student 3"):
        qkd_qiskit.distill(student(), replace(teacher, num_classes=5), data, spec=SPEC)
    with pytest.raises(TeacherError, match="the teacher is a str; give what make_teacher"):
        qkd_qiskit.distill(student(), "softmax", data, spec=SPEC)
    with pytest.raises(DataError, match="per class are asked for"):
        qkd_qiskit.distill(student(), teacher, data, spec=SPEC, train_per_class=1000)
