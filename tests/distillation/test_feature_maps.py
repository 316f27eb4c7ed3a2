"""Feature maps by layer name, their loss in the training loop, and the learned adapter."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from qkd_qiskit.data.splits import Data
from qkd_qiskit.distillation import feature_maps as features
from qkd_qiskit.distillation import trainer as loop
from qkd_qiskit.distillation.losses import feature_loss
from qkd_qiskit.distillation.population import Member
from qkd_qiskit.errors import InputError, TeacherError, TrainingError
from qkd_qiskit.recipe import DistillSpec, StudentSpec, TeacherSpec
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.teachers.layer_outputs import captured, layer_outputs, only
from qkd_qiskit.teachers.teacher import make_teacher

SPEC = DistillSpec(
    epochs=2,
    batch_size=6,
    lr=0.05,
    temperature=1.0,
    ce_weight=0.5,
    kd_weight=0.25,
    feature_weight=2.0,
    teacher_layer="filters",
    student_layer="filters",
)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    images = 0.2 * torch.rand(60, 1, 4, 4, generator=generator)
    images[torch.arange(60), 0, labels, labels] += 0.5
    return Data.from_arrays(images.numpy(), labels.numpy(), seed=1)


@pytest.fixture(scope="module")
def teachers(data):
    spec = TeacherSpec(kind="quanvolution", epochs=5, lr=0.05)
    return [make_teacher(spec, data, seed=seed, cache=False) for seed in (0, 1)]


def student(seed=0):
    spec = StudentSpec(kind="convolution")
    return make_student(spec, image_shape=(1, 4, 4), num_classes=3, seed=seed)


def members():
    weights = {"label_only": (1.0, 0.0, 0.0), "both": (0.5, 0.25, 2.0), "maps": (0.0, 0.0, 1.0)}
    return [
        Member(arm=arm, seed=seed, ce_weight=ce, kd_weight=kd, feature_weight=feature)
        for arm, (ce, kd, feature) in weights.items()
        for seed in (0, 1)
    ]


def examples_for(data, teachers, chosen, *, layer="filters", shape=None):
    return loop.make_distillation_data(
        shape or student(),
        teachers,
        data,
        draws=torch.stack([data.draw(4, seed=member.seed) for member in chosen]),
        taught_by=torch.tensor([member.seed for member in chosen]),
        layer=layer,
    )


def train(data, teachers, chosen, *, spec=SPEC, layer="filters", **options):
    return loop.train_population(
        student(),
        chosen,
        starts=[dict(student(member.seed).named_parameters()) for member in chosen],
        examples=examples_for(data, teachers, chosen, layer=layer),
        spec=spec,
        **options,
    )


def test_equal_maps_have_no_loss_and_others_their_mean_square():
    maps = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert feature_loss(maps, maps) == 0
    torch.testing.assert_close(feature_loss(maps, maps + 0.5), torch.tensor(0.25))


def test_any_layer_is_captured_by_its_name_and_the_network_is_left_as_it_was():
    network = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Tanh(), nn.Linear(3, 2)))
    given = torch.randn(5, 4)
    found = layer_outputs(network, given, layer="1.0")
    torch.testing.assert_close(found, network[0](given).tanh().detach())
    assert not any(module._forward_hooks for module in network.modules())
    with pytest.raises(InputError, match=r"no layer 'body'; its layers are 0, 1, 1\.0, 1\.1"):
        layer_outputs(network, given, layer="body")
    unused = nn.Module()
    unused.spare, unused.forward = nn.Linear(4, 3), lambda x: x
    with pytest.raises(InputError, match="ran 0 times"):
        layer_outputs(unused, given, layer="spare")


def test_maps_are_captured_under_vmap():
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    given = torch.randn(2, 5, 4)
    stacked = {name: torch.stack([p, 2 * p]) for name, p in network.named_parameters()}

    def middle(parameters, batch):
        with captured(network, "1") as found:
            functional_call(network, parameters, (batch,))
        return only(found, "1")

    found = vmap(middle)(stacked, given)
    doubled = 2 * network[0](given[1])
    torch.testing.assert_close(found[1], doubled.tanh())


def test_training_is_plain_adam_on_the_three_terms(data, teachers):
    """The same figures from a loop over batches with an optimizer of torch, written out."""
    chosen = members()[3]
    (trained,) = train(data, teachers[1:], [replace(chosen, seed=0)])
    model, rows = student(0), data.draw(4, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=SPEC.lr)
    wanted = teachers[1].module(data.pool.images)
    maps = teachers[1].module.filters(data.pool.images)
    means = []
    for epoch, rate in enumerate((1.0, 0.5)):
        for group in optimizer.param_groups:
            group["lr"] = SPEC.lr * rate
        order = torch.randperm(len(rows), generator=loop.generator(0, "order", epoch))
        squares = []
        for batch in rows[order].split(SPEC.batch_size):
            logits = model(data.pool.images[batch])
            ce = nn.functional.cross_entropy(logits, data.pool.labels[batch])
            kd = nn.functional.kl_div(
                logits.log_softmax(1), wanted[batch].softmax(1), reduction="batchmean"
            )
            square = nn.functional.mse_loss(model.filters(data.pool.images[batch]), maps[batch])
            optimizer.zero_grad()
            (0.5 * ce + 0.25 * kd + 2 * square).backward()
            optimizer.step()
            squares.append(square.item())
        means.append(sum(squares) / len(squares))
    for name, value in model.named_parameters():
        torch.testing.assert_close(trained.state[name], value, atol=1e-4, rtol=1e-3)
    assert [epoch.feature for epoch in trained.history] == pytest.approx(means, rel=1e-3)
    for epoch in trained.history:
        total = 0.5 * epoch.ce + 0.25 * epoch.kd + 2 * epoch.feature
        assert epoch.loss == pytest.approx(total, rel=1e-5)


def test_a_member_learns_from_its_own_teacher_and_does_not_know_its_companions(data, teachers):
    together = train(data, teachers, members())
    for index, member in enumerate(members()):
        own = [teachers[member.seed]] * 2
        (alone,) = train(data, own, [member])
        for name, value in alone.state.items():
            torch.testing.assert_close(together[index].state[name], value, atol=1e-4, rtol=1e-3)


def test_the_maps_alone_bring_the_students_filters_to_the_teachers(data, teachers):
    (maps,) = train(data, teachers, members()[4:5], spec=replace(SPEC, epochs=60))
    assert maps.history[-1].feature < 0.3 * maps.history[0].feature


def test_a_training_that_was_stopped_ends_with_the_same_bits(data, teachers, tmp_path):
    chosen = members()
    path = tmp_path / "population.safetensors"

    def stop(figures):
        raise KeyboardInterrupt

    whole = train(data, teachers, chosen)
    with pytest.raises(KeyboardInterrupt):
        train(data, teachers, chosen, checkpoint=path, on_epoch=stop)
    resumed = train(data, teachers, chosen, checkpoint=path)
    for one, other in zip(whole, resumed, strict=True):
        assert one.history == other.history
        assert all(torch.equal(one.state[name], other.state[name]) for name in one.state)


def test_an_adapter_is_learned_where_channels_differ_and_is_no_part_of_the_student(data):
    wide = make_teacher(TeacherSpec(kind="small_cnn", epochs=2, lr=0.01), data, cache=False)
    spec = replace(SPEC, teacher_layer="features.2")  # 16 channels of 2x2
    chosen = members()[:4]
    trained = train(data, [wide, wide], chosen, spec=spec, layer="features.2")
    assert trained[2].state["adapter.weight"].shape == (16, 3)
    first = features.make_adapter((3, 2, 2), (16, 2, 2), seed=0)
    assert not torch.equal(trained[2].state["adapter.weight"], first["adapter.weight"])
    model = student()
    model.load_parameters(trained[2].state)
    assert not any(name.startswith("adapter") for name, _ in model.named_parameters())
    given = torch.randn(5, 3, 2, 2)
    convolution = nn.Conv2d(3, 16, 1)
    convolution.weight.data = first["adapter.weight"][..., None, None]
    convolution.bias.data = first["adapter.bias"]
    torch.testing.assert_close(features.adapt(first, given), convolution(given).detach())
    assert features.make_adapter((3, 2, 2), (3, 2, 2), seed=0) == {}
    with pytest.raises(InputError, match="differ in channels only"):
        features.make_adapter((3, 2, 2), (3, 4, 4), seed=0)


def test_a_term_that_does_not_reach_the_student_is_an_error(data, teachers, monkeypatch):
    original = loop.feature_loss
    monkeypatch.setattr(loop, "feature_loss", lambda maps, other: original(maps.detach(), other))
    with pytest.raises(TrainingError, match="loss term 'feature' of arm 'both' gives the student"):
        train(data, teachers, members())
    train(data, teachers, members()[:2])  # where no arm uses it, it may be dead


def test_an_adapter_alone_does_not_keep_a_term_alive(data, monkeypatch):
    wide = make_teacher(TeacherSpec(kind="small_cnn", epochs=1, lr=0.01), data, cache=False)
    original = loop.adapt
    monkeypatch.setattr(loop, "adapt", lambda parameters, maps: original(parameters, maps.detach()))
    with pytest.raises(TrainingError, match="'feature'"):
        train(data, [wide, wide], members(), layer="features.2")


def test_examples_without_maps_are_refused_where_a_member_needs_them(data, teachers):
    with pytest.raises(TrainingError, match="no feature maps to compare with"):
        train(data, teachers, members(), layer=None)


def test_layers_that_are_not_there_are_named(data, teachers):
    with pytest.raises(TeacherError, match=r"distill\.teacher_layer: the teacher has no layer 'a'"):
        examples_for(data, teachers, members(), layer="a")
    with pytest.raises(InputError, match="no layer 'b'; its layers are reduction, filters"):
        train(data, teachers, members(), spec=replace(SPEC, student_layer="b"))
