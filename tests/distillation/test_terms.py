"""Lists of loss terms and losses of one's own: what is minimised, shown, refused and resumed."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

import qkd_qiskit
from qkd_qiskit.data.splits import Data
from qkd_qiskit.distillation import losses, terms
from qkd_qiskit.distillation import trainer as loop
from qkd_qiskit.distillation.fused import fused_steps
from qkd_qiskit.distillation.population import Member
from qkd_qiskit.errors import TrainingError
from qkd_qiskit.recipe import DistillSpec, LossName, LossTerm, StudentSpec, TeacherSpec
from qkd_qiskit.storage import load_tensors
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.teachers.teacher import make_teacher

DKD = LossTerm(loss="dkd", weight=0.3, alpha=0.7, beta=2.0)
DIST = LossTerm(loss="dist", weight=0.4, temperature=1.0)
SPEC = DistillSpec(
    epochs=3, batch_size=8, lr=0.05, terms=(LossTerm(loss="ce", weight=0.5), DKD, DIST)
)
PLAIN = replace(SPEC, terms=None, ce_weight=0.5, kd_weight=0.5)
HYBRID = StudentSpec(qubits=2, layers=1)
CIRCUIT = StudentSpec(
    kind="quantum", qubits=4, encoding="amplitude", layers=1, reduction="none", readout="bins",
    head="none",
)  # fmt: skip
GENERATOR = torch.Generator().manual_seed(1)
LOGITS, TAUGHT = (torch.randn(6, 3, generator=GENERATOR) for _ in range(2))
LABELS = torch.arange(6) % 3


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    images = 0.2 * torch.rand(90, 1, 4, 4, generator=generator)
    images[torch.arange(90), 0, labels, labels] += 0.5
    return Data.from_arrays(images.numpy(), labels.numpy(), seed=1)


@pytest.fixture(scope="module")
def teacher(data):
    return make_teacher(TeacherSpec(kind="softmax", epochs=20, lr=0.1), data, cache=False)


def student(which=HYBRID, *, seed=0):
    return make_student(which, image_shape=(1, 4, 4), num_classes=3, seed=seed)


def members(spec):
    none = (0.0,) * len(spec.other_terms)
    others = tuple(term.weight for term in spec.other_terms)
    return [
        Member(arm="label_only", seed=0, ce_weight=1.0, kd_weight=0.0, other_weights=none),
        *(
            Member(
                arm="distilled",
                seed=seed,
                ce_weight=spec.ce_weight,
                kd_weight=spec.kd_weight,
                other_weights=others,
            )
            for seed in (0, 1)
        ),
    ]


def train(data, teacher, spec=SPEC, *, which=HYBRID, chosen=None, **options):
    chosen = members(spec) if chosen is None else chosen
    shape = student(which)
    draws = torch.stack([data.draw(10, seed=member.seed) for member in chosen])
    return loop.train_population(
        shape,
        chosen,
        starts=[dict(student(which, seed=m.seed).named_parameters()) for m in chosen],
        examples=loop.make_distillation_data(shape, teacher, data, draws=draws),
        spec=spec,
        **options,
    )


def same(left, right):
    return left.history == right.history and all(
        torch.equal(value, right.state[name]) for name, value in left.state.items()
    )


EXPECTED = {
    "label_smoothing": (
        {"smoothing": 0.3},
        losses.label_smoothing_loss(LOGITS, LABELS, smoothing=0.3),
    ),
    "standardized_kd": ({}, losses.standardized_distillation_loss(LOGITS, TAUGHT, temperature=5.0)),
    "dkd": (
        {"temperature": 2.0, "alpha": 0.5, "beta": 3.0},
        losses.decoupled_loss(LOGITS, TAUGHT, LABELS, temperature=2.0, alpha=0.5, beta=3.0),
    ),
    "dist": (
        {"beta": 2.0, "gamma": 3.0},
        losses.dist_loss(LOGITS, TAUGHT, temperature=5.0, beta=2.0, gamma=3.0),
    ),
    "jensen_shannon": (
        {"temperature": 1.5},
        losses.jensen_shannon_loss(LOGITS, TAUGHT, temperature=1.5),
    ),
    "rkd_distance": ({}, losses.rkd_distance_loss(LOGITS, TAUGHT)),
    "rkd_angle": ({}, losses.rkd_angle_loss(LOGITS, TAUGHT)),
    "similarity": ({}, losses.similarity_loss(LOGITS, TAUGHT)),
    "pkt": ({}, losses.pkt_loss(LOGITS, TAUGHT)),
    "fidelity": ({}, losses.fidelity_loss(LOGITS, TAUGHT, temperature=5.0)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_term_is_its_loss_with_its_options(name):
    options, expected = EXPECTED[name]
    spec = DistillSpec(temperature=5.0, terms=[LossTerm(loss=name, **options)])
    ((key, loss),) = terms.other_losses(spec).items()
    assert key == name
    assert loss(LOGITS, TAUGHT, LABELS) == expected


def test_every_name_of_a_recipe_has_a_loss():
    named = {"ce", "kd", "feature"} | set(terms.FUNCTIONS)
    assert named == set(get_args(LossName)) == {"ce", "kd", "feature"} | set(EXPECTED)


def test_training_is_plain_adam_on_the_weighted_terms(data, teacher):
    trained = train(data, teacher)[2]
    model, rows = student(seed=1), data.draw(10, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=SPEC.lr)
    wanted, means = teacher.logits(data.pool.images), []
    for epoch in range(SPEC.epochs):
        for group in optimizer.param_groups:
            group["lr"] = loop.learning_rate(SPEC, epoch)
        order = torch.randperm(len(rows), generator=loop.generator(1, "order", epoch))
        sums = torch.zeros(2)
        for batch in rows[order].split(SPEC.batch_size):
            logits, labels = model(data.pool.images[batch]), data.pool.labels[batch]
            decoupled = losses.decoupled_loss(logits, wanted[batch], labels, alpha=0.7, beta=2.0)
            related = losses.dist_loss(logits, wanted[batch])
            optimizer.zero_grad()
            (0.5 * cross_entropy(logits, labels) + 0.3 * decoupled + 0.4 * related).backward()
            optimizer.step()
            sums += torch.stack([decoupled, related]).detach() * len(batch)
        means.append(sums / len(rows))
    for name, value in model.named_parameters():
        torch.testing.assert_close(trained.state[name], value, atol=1e-4, rtol=1e-3)
    for epoch, mean in zip(trained.history, means, strict=True):
        assert list(epoch.terms) == ["dkd", "dist"]
        assert list(epoch.terms.values()) == pytest.approx(mean.tolist(), rel=1e-3)
        total = 0.5 * epoch.ce + 0.3 * epoch.terms["dkd"] + 0.4 * epoch.terms["dist"]
        assert epoch.loss == pytest.approx(total, rel=1e-5)


def test_a_list_of_the_usual_terms_trains_as_their_weights_do(data, teacher):
    listed = replace(
        PLAIN, terms=(LossTerm(loss="ce", weight=0.5), LossTerm(loss="kd", weight=0.5))
    )
    for which in (HYBRID, CIRCUIT):
        pairs = zip(
            train(data, teacher, listed, which=which),
            train(data, teacher, PLAIN, which=which),
            strict=True,
        )
        assert all(same(*pair) for pair in pairs)


def test_labels_alone_are_learned_as_without_other_terms(data, teacher):
    with_terms, without = (train(data, teacher, spec)[0] for spec in (SPEC, PLAIN))
    for name, value in with_terms.state.items():
        torch.testing.assert_close(value, without.state[name], atol=1e-6, rtol=1e-5)


def test_fused_steps_leave_other_terms_to_torch(data, teacher, monkeypatch):
    used = []
    monkeypatch.setattr(
        loop, "fused_steps", lambda *given: used.append(fused_steps(*given)) or used[-1]
    )
    trained = train(data, teacher, which=CIRCUIT)[1]
    assert used == [None]
    assert trained.history[-1].loss < trained.history[0].loss
    train(data, teacher, PLAIN, which=CIRCUIT)
    assert used[-1] is not None


@pytest.mark.parametrize("dead", ["constant", "detached"])
def test_a_dead_term_is_named_before_anything_is_trained(dead, data, teacher, monkeypatch):
    def loss(logits, *_, **__):
        return logits.new_tensor(0.7) if dead == "constant" else 0 * logits.sum() + 0.7

    monkeypatch.setitem(terms.FUNCTIONS, "dist", loss)
    epochs = []
    with pytest.raises(TrainingError, match=r"'dist' of arm 'distilled'.*no gradient") as caught:
        train(data, teacher, on_epoch=epochs.append)
    assert not epochs
    assert "\n" not in str(caught.value)
    assert train(data, teacher, chosen=members(SPEC)[:1])  # where it has no weight


def test_members_have_a_weight_for_every_term(data, teacher):
    with pytest.raises(TrainingError, match=r"\['dkd', 'dist'\].*other_weights"):
        train(data, teacher, chosen=members(PLAIN))


def test_a_resumed_training_ends_with_the_same_bits(data, teacher, tmp_path):
    class Stopped(Exception):
        pass

    def stop(figures):
        if figures[0].epoch == 2:
            raise Stopped

    path, whole = tmp_path / "checkpoint.safetensors", train(data, teacher)
    with pytest.raises(Stopped):
        train(data, teacher, checkpoint=path, on_epoch=stop)
    resumed = train(data, teacher, checkpoint=path)
    assert all(same(*pair) for pair in zip(whole, resumed, strict=True))


def test_a_checkpoint_without_other_terms_is_as_it_was(data, teacher, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    train(data, teacher, PLAIN, checkpoint=path)
    identity = load_tensors(path)[1]["members"]
    assert "terms" not in identity
    assert "other_weights" not in identity


@pytest.mark.parametrize("which", [HYBRID, CIRCUIT])
def test_a_loss_of_ones_own_trains_as_the_term_that_it_is(which, data, teacher):
    def own(logits, teacher_logits, labels):
        return losses.decoupled_loss(logits, teacher_logits, labels)

    spec = replace(PLAIN, terms=(LossTerm(loss="dkd"),))
    models = student(which), student(which)
    by_function = qkd_qiskit.distill(models[0], teacher, data, spec=PLAIN, loss=own)
    by_name = qkd_qiskit.distill(models[1], teacher, data, spec=spec)
    assert [e.terms["own"] for e in by_function.history] == pytest.approx(
        [e.terms["dkd"] for e in by_name.history], rel=1e-4
    )
    for name, value in models[0].named_parameters():
        torch.testing.assert_close(
            value, dict(models[1].named_parameters())[name], atol=1e-4, rtol=1e-3
        )


def test_a_loss_of_ones_own_need_not_run_under_vmap(data, teacher):
    def own(logits, teacher_logits, labels):
        sure = teacher_logits.softmax(dim=1).max(dim=1).values > 0.4  # a shape that depends on data
        assert sure.any()
        divergence = kl_div(
            logits[sure].log_softmax(dim=1), teacher_logits[sure].softmax(dim=1), reduction="sum"
        )
        return divergence / len(labels) + 0.1 * cross_entropy(logits, labels)

    trained = qkd_qiskit.distill(student(), teacher, data, spec=PLAIN, loss=own)
    assert trained.history[-1].loss < trained.history[0].loss


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda logits, *_: logits.sum(dim=1), r"returns shape \(32,\)"),
        (lambda logits, *_: logits.sum()[None], r"returns shape \(1,\)"),
        (lambda *_: 0.7, "returns float"),
        (lambda *_: None, "returns NoneType"),
        (lambda logits: logits.sum(), "too many .*logits, teacher_logits, labels, in this order"),
        (lambda a, b, c, d: a.sum(), "missing a required argument: 'd'; give a function of"),
        (lambda logits, *_: logits.detach().sum(), "no gradient"),
        (lambda logits, taught, labels: cross_entropy(taught, labels), "no gradient"),
        (lambda logits, *_: logits.sum() * torch.inf, "not finite"),
    ],
)
def test_a_loss_of_ones_own_that_trains_nothing_is_refused(loss, message, data, teacher):
    model, epochs = student(), []
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    spec = DistillSpec(epochs=2)
    with pytest.raises(TrainingError, match=message) as caught:
        qkd_qiskit.distill(model, teacher, data, spec=spec, loss=loss, on_epoch=epochs.append)
    assert "\n" not in str(caught.value)
    assert not epochs
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_a_loss_of_ones_own_has_no_terms_beside_it(data, teacher):
    with pytest.raises(TrainingError, match="leave loss= out"):
        qkd_qiskit.distill(student(), teacher, data, spec=SPEC, loss=losses.dist_loss)
