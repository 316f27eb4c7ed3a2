import copy
import dataclasses
import logging
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from qkd_qiskit.data.splits import Data, load_data
from qkd_qiskit.errors import CheckpointError, DataError, InputError, StorageError, TeacherError
from qkd_qiskit.recipe import DataSpec, TeacherSpec
from qkd_qiskit.storage import load_tensors, save_tensors, tensor_digest
from qkd_qiskit.teachers import training as teacher_training
from qkd_qiskit.teachers.adamw import AdamW
from qkd_qiskit.teachers.architectures import build_teacher
from qkd_qiskit.teachers.base import Teacher
from qkd_qiskit.teachers.checkpoints import load_weights
from qkd_qiskit.teachers.resume import ResumableTraining
from qkd_qiskit.teachers.teacher import make_teacher, save_teacher
from qkd_qiskit.teachers.training import train_teacher

SOFTMAX = TeacherSpec(kind="softmax", epochs=3, lr=0.05)


@pytest.fixture(scope="module")
def digits():
    return load_data(DataSpec())


@pytest.fixture(scope="module")
def blobs():
    """Three classes of four features that a straight line can tell apart."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    return Data.from_arrays(rng.normal(size=(300, 4)) / 10 + np.eye(3, 4)[labels], labels)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def count_training(monkeypatch):
    calls = []
    original = teacher_training.train_teacher

    def counted(*args, **kwargs):
        calls.append(args)
        original(*args, **kwargs)

    monkeypatch.setattr(teacher_training, "train_teacher", counted)
    return calls


def count_forward(teacher):
    calls = []
    teacher.module.register_forward_hook(lambda *args: calls.append(args))
    return calls


def cached(cache, what):
    return sorted((cache / what).iterdir())


@pytest.mark.parametrize("kind", ["softmax", "mlp", "small_cnn"])
def test_teachers_learn_digits(digits, cache, kind):
    spec = TeacherSpec(kind=kind, epochs=25, lr=5e-3, batch_size=64)
    teacher = make_teacher(spec, digits, cache=cache)
    assert teacher.accuracy > 0.92
    logits = teacher.logits(digits.test.images, cache=cache)
    assert logits.shape == (len(digits.test), 10)
    right = (logits.argmax(1) == digits.test.labels).double().mean().item()
    assert teacher.accuracy == pytest.approx(right, abs=1e-12)
    assert teacher.parameters == sum(p.numel() for p in teacher.module.parameters())


def test_teacher_is_frozen_and_deterministic(blobs):
    spec = TeacherSpec(kind="mlp", epochs=2)
    before = torch.random.get_rng_state()
    first, again, other = (make_teacher(spec, blobs, seed=s, cache=False) for s in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.digest == again.digest != other.digest
    assert not first.module.training
    assert not any(weights.requires_grad for weights in first.module.parameters())
    assert not first.logits(blobs.test.images, cache=False).requires_grad


def test_epochs_are_reported(blobs):
    seen = []
    teacher = make_teacher(SOFTMAX, blobs, cache=False, on_epoch=lambda *epoch: seen.append(epoch))
    assert [epoch[:2] for epoch in seen] == [(1, 3), (2, 3), (3, 3)]
    losses = [epoch[2] for epoch in seen]
    assert losses == sorted(losses, reverse=True)
    right = teacher.module(blobs.validation.images).argmax(1) == blobs.validation.labels
    assert seen[-1][3] == pytest.approx(right.double().mean().item())


def test_one_step_is_adamw_on_cross_entropy(blobs):
    spec = dataclasses.replace(SOFTMAX, epochs=1, batch_size=10_000, weight_decay=0.3)
    module = build_teacher(spec, image_shape=blobs.image_shape, num_classes=3)
    linear = module[1]
    start = linear.weight.detach().clone()
    images = blobs.pool.images.flatten(1)
    error = torch.softmax(images @ start.T + linear.bias.detach(), 1)
    error[torch.arange(len(images)), blobs.pool.labels] -= 1
    gradient = error.T @ images / len(images)
    train_teacher(module, spec, blobs)
    # Adam's first step is lr times the gradient's sign; the decay is decoupled from it.
    expected = start * (1 - spec.lr * spec.weight_decay) - spec.lr * gradient.sign()
    torch.testing.assert_close(linear.weight, expected, atol=1e-5, rtol=0)


def test_learning_rate_is_constant_and_then_falls_to_zero(blobs, monkeypatch):
    rates = []
    original = AdamW.step

    def step(self, *, lr):
        rates.append(lr)
        original(self, lr=lr)

    monkeypatch.setattr(AdamW, "step", step)
    spec = TeacherSpec(kind="softmax", epochs=10, lr=0.5, batch_size=90)
    make_teacher(spec, blobs, cache=False)  # 180 images: 2 batches, 20 steps
    assert rates == pytest.approx([0.5] * 17 + [0.375, 0.25, 0.125])


def test_training_sees_only_the_draw(blobs):
    spec = dataclasses.replace(SOFTMAX, train_per_class=5, epochs=1, batch_size=4)
    module = build_teacher(spec, image_shape=blobs.image_shape, num_classes=3)
    seen = []
    module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    train_teacher(module, spec, blobs, seed=2)
    images = torch.cat(seen)
    assert len(images) == 15
    pool = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(blobs.pool.images, blobs.pool.labels, strict=True)
    }
    labels = [pool[image.numpy().tobytes()] for image in images]
    assert np.bincount(labels).tolist() == [5, 5, 5]
    with pytest.raises(DataError, match="training images"):
        make_teacher(dataclasses.replace(spec, train_per_class=5000), blobs, cache=False)


def test_no_batch_is_a_single_image(blobs):
    spec = TeacherSpec(kind="softmax", train_per_class=3, batch_size=4, epochs=1)
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 3))
    train_teacher(module, spec, blobs)  # 9 images in fours would leave one over
    assert module[1].num_batches_tracked == 3


def test_dropout_is_seeded_and_off_afterwards(blobs):
    digests = []
    for seed in (0, 0, 1):
        torch.rand(5)
        module = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 3))
        nn.init.zeros_(module[2].weight)
        nn.init.zeros_(module[2].bias)
        spec = dataclasses.replace(SOFTMAX, batch_size=10_000, epochs=2)
        train_teacher(module, spec, blobs, seed=seed)
        digests.append(tensor_digest(module.state_dict()))
        assert torch.equal(module(blobs.test.images), module(blobs.test.images))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("killed_in_step", [1, 5, 6, 8])
def test_a_killed_training_goes_on_to_the_same_bits(blobs, monkeypatch, tmp_path, killed_in_step):
    """Three batches per epoch: killed in the first, at an epoch's end and start, and within one."""
    spec = TeacherSpec(epochs=3, batch_size=67, lr=0.01)
    start = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 3))

    def train(on_epoch=None):
        module = copy.deepcopy(start)
        train_teacher(module, spec, blobs, checkpoint=tmp_path / "unfinished", on_epoch=on_epoch)
        return tensor_digest(module.state_dict())

    losses = []
    expected = train(lambda epoch, epochs, loss, accuracy: losses.append(loss))
    assert not (tmp_path / "unfinished").exists()

    monkeypatch.setattr(ResumableTraining, "seconds_between", 0.0)
    steps = []

    class Killed(AdamW):
        def step(self, *, lr):
            steps.append(None)
            if len(steps) == killed_in_step:
                raise KeyboardInterrupt
            super().step(lr=lr)

    with monkeypatch.context() as patch:
        patch.setattr(teacher_training, "AdamW", Killed)
        with pytest.raises(KeyboardInterrupt):
            train()
    again = []
    assert train(lambda epoch, epochs, loss, accuracy: again.append(loss)) == expected
    assert again == losses[-len(again) :]
    assert not (tmp_path / "unfinished").exists()


def test_a_damaged_unfinished_training_starts_again(blobs, tmp_path, caplog):
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    other = copy.deepcopy(module)
    (tmp_path / "unfinished").write_bytes(b"nothing")
    train_teacher(module, SOFTMAX, blobs, checkpoint=tmp_path / "unfinished")
    train_teacher(other, SOFTMAX, blobs)
    assert tensor_digest(module.state_dict()) == tensor_digest(other.state_dict())
    assert "starting again" in caplog.text


def test_divergence_is_an_error_that_says_what_to_do(blobs):
    images = blobs.pool.images.clone()
    spec = TeacherSpec(kind="mlp", lr=1e30, epochs=4)
    with pytest.raises(TeacherError, match=r"diverged in epoch \d of 4 .*lower teacher\.lr"):
        make_teacher(spec, blobs, cache=False)
    assert torch.equal(images, blobs.pool.images)


class TestCache:
    def test_trains_once(self, blobs, cache, monkeypatch):
        training = count_training(monkeypatch)
        first = make_teacher(SOFTMAX, blobs, cache=cache)
        again = make_teacher(SOFTMAX, blobs, cache=cache)
        assert len(training) == 1
        assert (again.digest, again.accuracy) == (first.digest, first.accuracy)
        assert not again.module.training
        assert not any(weights.requires_grad for weights in again.module.parameters())

    def test_depends_on_everything_that_changes_the_weights(self, blobs, cache, monkeypatch):
        training = count_training(monkeypatch)
        specs = [
            dataclasses.replace(SOFTMAX, **change)
            for change in (
                {},
                {"epochs": 4},
                {"lr": 0.04},
                {"batch_size": 50},
                {"weight_decay": 0.1},
                {"train_per_class": 20},
                {"kind": "mlp"},
            )
        ]
        for spec in specs * 2:
            make_teacher(spec, blobs, cache=cache)
        make_teacher(SOFTMAX, blobs, seed=1, cache=cache)
        pool = dataclasses.replace(blobs.pool, labels=blobs.pool.labels.roll(1))
        make_teacher(SOFTMAX, dataclasses.replace(blobs, pool=pool), cache=cache)
        assert len(training) == len(specs) + 2

    def test_does_not_depend_on_the_test_images(self, blobs, cache, monkeypatch):
        training = count_training(monkeypatch)
        full = make_teacher(SOFTMAX, blobs, cache=cache)
        few = dataclasses.replace(blobs, test=blobs.test[torch.arange(10)])
        assert make_teacher(SOFTMAX, few, cache=cache).digest == full.digest
        assert len(training) == 1

    def test_own_module_is_trained_again_when_its_source_changes(
        self, blobs, cache, monkeypatch, tmp_path
    ):
        source = (
            "from torch import nn\n"
            "def net(shape, classes):\n"
            "    return nn.Sequential(nn.Flatten(), nn.Linear(shape[2], classes))\n"
        )
        (tmp_path / "cached_network.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        spec = TeacherSpec(kind="module", module="cached_network:net", epochs=1)
        training = count_training(monkeypatch)
        first = make_teacher(spec, blobs, cache=cache)
        make_teacher(spec, blobs, cache=cache)
        assert len(training) == 1
        (tmp_path / "cached_network.py").write_text(source + "# changed\n")
        again = make_teacher(spec, blobs, cache=cache)
        assert len(training) == 2
        assert again.architecture != first.architecture

    def test_logits_are_computed_once_per_weights_and_images(self, blobs, cache):
        teacher = make_teacher(SOFTMAX, blobs, cache=cache)
        calls = count_forward(teacher)
        first = teacher.logits(blobs.pool.images, cache=cache)
        assert len(calls) == 1
        assert torch.equal(teacher.logits(blobs.pool.images.clone(), cache=cache), first)
        assert len(calls) == 1
        teacher.logits(blobs.pool.images + 1, cache=cache)
        assert len(calls) == 2
        other = make_teacher(SOFTMAX, blobs, seed=1, cache=cache)
        assert not torch.equal(other.logits(blobs.pool.images, cache=cache), first)
        teacher.logits(blobs.pool.images, cache=False)
        assert len(calls) == 3

    @pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other", "nan"])
    def test_damaged_files_are_made_again(self, blobs, cache, monkeypatch, caplog, damage):
        training = count_training(monkeypatch)
        teacher = make_teacher(SOFTMAX, blobs, cache=cache)
        logits = teacher.logits(blobs.test.images, cache=cache)
        paths = [*cached(cache, "teachers"), *cached(cache, "logits")]
        assert len(paths) == 2
        for path in paths:
            content = path.read_bytes()
            flipped = content[:-1] + bytes([content[-1] ^ 64])
            if damage == "other":
                save_tensors(path, {"weights": torch.zeros(2)})
            elif damage == "nan":
                tensors, _ = load_tensors(path)
                save_tensors(path, {name: value * torch.nan for name, value in tensors.items()})
            else:
                path.write_bytes({"flip": flipped, "cut": content[:-3], "empty": b""}[damage])
        with caplog.at_level(logging.WARNING):
            again = make_teacher(SOFTMAX, blobs, cache=cache)
        assert len(training) == 2
        assert again.digest == teacher.digest
        assert torch.equal(again.logits(blobs.test.images, cache=cache), logits)
        assert again.accuracy == teacher.accuracy
        assert [record.message.split(",")[0] for record in caplog.records] == [
            "computing teachers again",
            "computing logits again",
        ]

    def test_works_where_nothing_can_be_kept(self, blobs, tmp_path, caplog):
        (tmp_path / "file").write_text("in the way")
        with caplog.at_level(logging.WARNING):
            teacher = make_teacher(SOFTMAX, blobs, cache=tmp_path / "file")
        assert teacher.digest == make_teacher(SOFTMAX, blobs, cache=False).digest
        assert "going on without the cache" in caplog.text
        assert "QKD_CACHE" in caplog.text

    def test_folder_comes_from_the_environment(self, blobs, tmp_path, monkeypatch):
        monkeypatch.setenv("QKD_CACHE", str(tmp_path / "mine"))
        make_teacher(SOFTMAX, blobs)
        assert len(cached(tmp_path / "mine", "teachers")) == 1
        monkeypatch.delenv("QKD_CACHE")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        make_teacher(SOFTMAX, blobs)
        assert len(cached(tmp_path / "home/.cache/qkd_qiskit", "teachers")) == 1


def test_logits_do_not_depend_on_the_batches(digits, monkeypatch):
    spec = TeacherSpec(kind="small_cnn", epochs=1)
    teacher = make_teacher(spec, digits, cache=False)
    whole = teacher.logits(digits.test.images, cache=False)
    monkeypatch.setattr("qkd_qiskit.teachers.training._INFERENCE_BATCH", 7)
    batched = teacher.logits(digits.test.images, cache=False)
    torch.testing.assert_close(batched, whole)
    one_by_one = torch.cat([teacher.module(image[None]) for image in digits.test.images])
    torch.testing.assert_close(whole, one_by_one)


class TestCheckpoint:
    @pytest.fixture
    def saved(self, blobs, tmp_path):
        teacher = make_teacher(SOFTMAX, blobs, cache=False)
        save_teacher(teacher, tmp_path / "teacher.safetensors")
        return teacher, tmp_path / "teacher.safetensors"

    def load(self, path, data, kind="softmax"):
        return make_teacher(TeacherSpec(kind=kind, checkpoint=str(path)), data, cache=False)

    def test_replaces_training(self, saved, blobs, monkeypatch):
        training = count_training(monkeypatch)
        teacher, path = saved
        loaded = self.load(path, blobs)
        assert training == []
        assert (loaded.digest, loaded.accuracy) == (teacher.digest, teacher.accuracy)
        assert not loaded.module.training
        assert not any(weights.requires_grad for weights in loaded.module.parameters())

    def test_holds_plain_weights(self, saved):
        teacher, path = saved
        tensors, metadata = load_tensors(path)
        assert metadata == {"kind": "softmax", "num_classes": "3"}
        assert tensors.keys() == teacher.module.state_dict().keys()

    def test_failed_save_leaves_the_old_file(self, saved, tmp_path, monkeypatch):
        teacher, path = saved
        before = path.read_bytes()

        def fail(self, target):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "replace", fail)
        with pytest.raises(StorageError, match="Permission denied; what was there before"):
            save_teacher(teacher, path)
        assert path.read_bytes() == before
        assert [*tmp_path.iterdir()] == [path]

    def test_other_number_of_classes_is_said(self, saved):
        rng = np.random.default_rng(0)
        data = Data.from_arrays(rng.random((40, 4)), np.arange(40) % 4)
        with pytest.raises(TeacherError, match=r"gives 3 outputs for 4 classes; .*data\.classes"):
            self.load(saved[1], data)

    def test_other_kind_is_said(self, saved, blobs):
        with pytest.raises(TeacherError, match=r"it holds a softmax\) lacks 3\.bias, 3\.weight"):
            self.load(saved[1], blobs, kind="mlp")

    def test_other_images_are_said(self, saved):
        data = Data.from_arrays(np.random.default_rng(0).random((30, 5)), np.arange(30) % 3)
        with pytest.raises(
            TeacherError, match=r"1\.weight of shape \(3, 4\), \(3, 5\) is expected"
        ):
            self.load(saved[1], data)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda t: t | {"1.weight": t["1.weight"] * torch.inf}, r"NaN or infinite.*1\.weight"),
            (lambda t: {"1.weight": t["1.weight"]}, r"lacks 1\.bias and has nothing too many"),
            (lambda t: t | {"x": torch.ones(2)}, "lacks nothing and has x too many"),
            (lambda t: t | {"1.weight": torch.ones(3)}, r"shape \(3,\), \(3, 4\) is expected"),
            (lambda t: {f"net.{k}": v for k, v in t.items()}, r"has net\.1\.bias, net\.1\.weight"),
        ],
    )
    def test_weights_that_do_not_fit_are_refused(self, saved, blobs, change, message):
        tensors, _ = load_tensors(saved[1])
        save_file(change(tensors), saved[1])
        with pytest.raises(TeacherError, match=message) as caught:
            self.load(saved[1], blobs)
        assert str(saved[1]) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_refused_file_changes_nothing(self, saved, blobs):
        tensors, _ = load_tensors(saved[1])
        save_file(tensors | {"1.bias": tensors["1.bias"] * torch.nan}, saved[1])
        module = build_teacher(SOFTMAX, image_shape=blobs.image_shape, num_classes=3, seed=5)
        before = tensor_digest(module.state_dict())
        with pytest.raises(TeacherError):
            load_weights(module, saved[1], num_classes=3)
        assert tensor_digest(module.state_dict()) == before

    def test_files_that_cannot_be_read_are_refused(self, saved, blobs, tmp_path):
        teacher, path = saved
        torch.save(teacher.module.state_dict(), tmp_path / "teacher.pt")
        with pytest.raises(CheckpointError, match="is a pickle"):
            self.load(tmp_path / "teacher.pt", blobs)
        path.write_bytes(path.read_bytes()[:-4])
        with pytest.raises(CheckpointError, match="not a whole safetensors file"):
            self.load(path, blobs)
        with pytest.raises(CheckpointError, match="No such file"):
            self.load(tmp_path / "none.safetensors", blobs)

    def test_a_teacher_of_other_classes_is_noticed(self, blobs, saved, caplog):
        roll = {"labels": (blobs.test.labels + 1) % 3}
        data = dataclasses.replace(blobs, test=dataclasses.replace(blobs.test, **roll))
        with caplog.at_level(logging.WARNING):
            self.load(saved[1], blobs)
            assert caplog.records == []
            self.load(saved[1], data)
        assert "no better than chance" in caplog.text


class Scaled(nn.Module):
    """A linear layer times a number that is none of its weights."""

    def __init__(self, scale):
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 3), scale

    def forward(self, images):
        return self.scale * self.layer(images.flatten(1))


class TestFromModule:
    def test_a_network_of_your_own_is_copied_frozen_and_measured(self, blobs, cache):
        module = Scaled(2.0).train()
        teacher = Teacher.from_module(module, blobs, cache=cache)
        with torch.no_grad():
            expected = module(blobs.test.images)
        assert torch.equal(teacher.logits(blobs.test.images, cache=cache), expected)
        right = (expected.argmax(dim=1) == blobs.test.labels).double().mean().item()
        assert (teacher.accuracy, teacher.kind, teacher.parameters) == (right, "module", 15)
        assert module.training
        assert all(parameter.requires_grad for parameter in module.parameters())
        assert not any(parameter.requires_grad for parameter in teacher.module.parameters())
        with torch.no_grad():
            module.layer.weight.zero_()
        assert torch.equal(teacher.module(blobs.test.images), expected)

    def test_the_cache_tells_networks_of_equal_weights_apart(self, blobs, cache):
        module = Scaled(2.0)
        other = copy.deepcopy(module)
        other.scale = -1.0
        logits = [
            Teacher.from_module(network, blobs, cache=cache).logits(blobs.pool.images, cache=cache)
            for network in (module, other)
        ]
        torch.testing.assert_close(logits[0], -2 * logits[1])

    @pytest.mark.parametrize(
        ("module", "message"),
        [
            (nn.Linear(4, 3), r"the module Linear gives \(2, 1, 1, 3\) for 2 images of 3 classes"),
            (nn.Sequential(nn.Flatten(), nn.Linear(4, 5)), "gives 5 outputs for 3 classes"),
            (nn.Conv2d(3, 1, 1), r"fails on images of shape \(2, 1, 1, 4\)"),
            (lambda images: images, "gives a function; give an nn.Module"),
        ],
    )
    def test_what_does_not_fit_is_one_line(self, module, message, blobs):
        with pytest.raises(TeacherError, match=message) as caught:
            Teacher.from_module(module, blobs, cache=False)
        assert "\n" not in str(caught.value)


def test_logits_that_are_not_finite_are_refused(blobs):
    teacher = make_teacher(SOFTMAX, blobs, cache=False)
    images = blobs.test.images.clone()
    images[3] = torch.inf
    with pytest.raises(TeacherError, match=r"logits for 1 of \d+ images, the first is number 3"):
        teacher.logits(images, cache=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "least"), [("mnist", 0.988), ("fashion_mnist", 0.89)])
def test_lenet5_reaches_the_published_range(name, least):
    folder = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name]
    if not Path(os.environ.get("QKD_DATA") or "/nonexistent", folder, "raw").is_dir():
        pytest.skip(f"QKD_DATA does not hold {folder}/raw")
    data = load_data(DataSpec(name=name))
    spec = TeacherSpec(kind="lenet5", epochs=25, lr=3e-3)
    assert make_teacher(spec, data, cache=False).accuracy >= least


def test_training_looks_at_the_loss_once_in_an_epoch(digits, on_device, monkeypatch):
    """On a GPU a look waits for the step; `meta` has nothing to look at."""
    done = []
    monkeypatch.setattr(
        ResumableTraining, "after_step", lambda self, step, *, loss_sum: done.append(step)
    )
    shape, classes = digits.image_shape, digits.num_classes
    spec = TeacherSpec(kind="mlp", epochs=2, batch_size=64)
    module = build_teacher(spec, image_shape=shape, num_classes=classes, seed=0).to("meta")
    with pytest.raises(AssertionError, match="_local_scalar_dense"), on_device(uploads=True):
        train_teacher(module, spec, digits)
    assert done == list(range(1, 1 + math.ceil(len(digits.pool) / 64)))


def test_a_gpu_that_is_not_there(digits):
    with pytest.raises(InputError, match="device 'cuda:9' is not there"):
        make_teacher(TeacherSpec(kind="softmax", epochs=1), digits, device="cuda:9")
