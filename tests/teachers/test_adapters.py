"""Modules, functions, classifiers and arrays teach what they say themselves."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from torch.nn.functional import softmax

from qkd_qiskit import DataSpec, TeacherSpec, as_teacher, load_data, make_teacher
from qkd_qiskit.errors import TeacherError


@pytest.fixture(scope="module")
def data():
    return load_data(DataSpec(classes=(3, 5, 8), test_per_class=20))


@pytest.fixture(scope="module")
def network(data):
    return make_teacher(TeacherSpec(epochs=5), data, cache=False)


def probabilities_of(teacher, images):
    return softmax(teacher.logits(images, cache=False).double(), dim=1).numpy()


def test_a_teacher_is_taken_as_it_is(data, network):
    assert as_teacher(network, data) is network


@pytest.mark.parametrize("outputs", [None, "logits", "probabilities", "log_probabilities"])
@pytest.mark.parametrize("kind", ["module", "function", "array"])
def test_what_is_given_decides_what_is_taught(data, network, kind, outputs):
    change = {
        "probabilities": lambda x: softmax(x, 1),
        "log_probabilities": lambda x: softmax(x, 1).log(),
    }
    changed = change.get(outputs, lambda logits: logits)

    class Changed(torch.nn.Module):
        def forward(self, images):
            return changed(network.module(images))

    images = data.pool.images
    source = {
        "module": Changed(),
        "function": lambda given: changed(network.module(given)),
        "array": changed(network.logits(images, cache=False)).numpy(),
    }[kind]
    teacher = as_teacher(source, data, outputs=outputs, cache=False)
    expected = softmax(network.logits(images, cache=False).double(), dim=1)
    np.testing.assert_allclose(probabilities_of(teacher, images), expected, atol=1e-6)


def test_a_forest_teaches_its_probabilities(data):
    images, labels = data.pool.images.flatten(1).numpy(), data.pool.labels.numpy()
    forest = RandomForestClassifier(random_state=0).fit(images, labels)
    teacher = as_teacher(forest, data)
    expected = forest.predict_proba(data.test.images.flatten(1).numpy())
    np.testing.assert_allclose(probabilities_of(teacher, data.test.images), expected, atol=1e-6)
    assert teacher.accuracy == pytest.approx(
        forest.score(data.test.images.flatten(1).numpy(), data.test.labels.numpy())
    )


def test_classes_are_matched_by_their_names(data):
    images = data.pool.images.flatten(1).numpy()
    names = np.array(data.class_names)[data.pool.labels.numpy()]
    order = np.array(["8", "3", "5"])  # sorted by scikit-learn all the same
    assert set(order) == set(names)
    forest = RandomForestClassifier(random_state=0).fit(images, names)
    choices = as_teacher(forest, data).logits(data.pool.images, cache=False).argmax(dim=1)
    assert (choices == data.pool.labels).double().mean() > 0.95


def test_a_classifier_without_probabilities_teaches_its_decision_values(data):
    images, labels = data.pool.images.flatten(1).numpy(), data.pool.labels.numpy()
    machine = LinearSVC().fit(images, labels)
    logits = as_teacher(machine, data).logits(data.pool.images, cache=False)
    np.testing.assert_allclose(logits, machine.decision_function(images), atol=1e-5)


def test_a_classifier_that_knows_fewer_classes_gives_the_others_nothing(data):
    two = data.pool.labels < 2
    images, labels = data.pool.images[two].flatten(1).numpy(), data.pool.labels[two].numpy()
    forest = RandomForestClassifier(random_state=0).fit(images, labels)
    assert probabilities_of(as_teacher(forest, data), data.pool.images)[:, 2].max() < 1e-9


def test_a_table_knows_its_pool_alone(data, network):
    table = as_teacher(network.logits(data.pool.images, cache=False), data)
    with pytest.raises(TeacherError, match="knows the images of its pool alone"):
        table.logits(data.test.images, cache=False)


def test_what_cannot_teach_is_refused_in_one_line(data):
    with pytest.raises(TeacherError, match="the teacher is a str; give what make_teacher returns"):
        as_teacher("forest", data)
    with pytest.raises(TeacherError, match="is not fitted; call its fit"):
        as_teacher(RandomForestClassifier(), data)
    with pytest.raises(TeacherError, match=r"outputs have shape \(2, 3\); give"):
        as_teacher(np.zeros((2, 3)), data)
    images, labels = data.pool.images.flatten(1).numpy(), data.pool.labels.numpy()
    with pytest.raises(TeacherError, match=r"knows the classes .* the data has \['3', '5', '8'\]"):
        as_teacher(RandomForestClassifier().fit(images, labels + 20), data)


def odd(change):
    """A function of images that returns its logits in another way."""
    return lambda images: change(images.flatten(1)[:, :3])


@pytest.mark.parametrize(
    "change",
    [
        lambda z: z.numpy().astype(">f8"),
        lambda z: z.numpy()[::-1].copy()[::-1],
        lambda z: {"logits": z},
        lambda z: (z.numpy(), None),
        lambda z: z.tolist(),
    ],
)
def test_a_function_may_return_any_container(data, change):
    expected = data.test.images.flatten(1)[:, :3]
    assert torch.equal(as_teacher(odd(change), data).logits(data.test.images), expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.clone().requires_grad_(),
        lambda table: table.double(),
        lambda table: table.numpy().astype(">f4"),
        lambda table: table.tolist(),
    ],
)
def test_an_array_may_be_of_any_type(data, network, change):
    table = network.logits(data.pool.images, cache=False)
    teacher = as_teacher(change(table), data)
    torch.testing.assert_close(teacher.logits(data.pool.images), table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table * 1j, "of type complex64; give real numbers"),
        (lambda table: table.numpy().astype(str), "give real numbers"),
        (lambda table: torch.where(table > 0, torch.nan, table), "NaN or infinite in"),
        (lambda table: [*table.tolist(), [1.0]], "outputs are a list that is no array"),
        (lambda table: table.to_sparse(), "outputs are a Tensor that is no array"),
    ],
)
def test_an_array_of_no_numbers_is_one_line(data, network, change, message):
    with pytest.raises(TeacherError, match=message) as caught:
        as_teacher(change(network.logits(data.pool.images, cache=False)), data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("classes", [(1, 0), (1, 2), (3, 8)])
@pytest.mark.parametrize("by", ["number", "name"])
def test_classes_are_read_by_name_or_number_whichever_is_right(classes, by):
    data = load_data(DataSpec(classes=classes, test_per_class=20))
    labels = data.pool.labels.numpy()
    known = labels if by == "number" else np.array(data.class_names).astype(int)[labels]
    tree = DecisionTreeClassifier(random_state=0).fit(data.pool.images.flatten(1).numpy(), known)
    assert as_teacher(tree, data).accuracy > 0.85


def test_a_classifier_of_pairs_of_classes_is_one_line():
    four = load_data(DataSpec(classes=(3, 5, 8, 9), test_per_class=20))
    images, labels = four.pool.images.flatten(1).numpy(), four.pool.labels.numpy()
    pairs = SVC(decision_function_shape="ovo").fit(images, labels)
    with pytest.raises(TeacherError, match="SVC gives 6 values for 4 classes; set decision_func"):
        as_teacher(pairs, four)


@pytest.mark.parametrize("kind", [torch.nn.Linear, SVC])
def test_a_class_is_no_teacher(data, kind):
    with pytest.raises(TeacherError, match=f"the teacher is the class {kind.__name__}; give a tr"):
        as_teacher(kind, data)


def test_an_exported_network_is_a_teacher(data, network):
    batch = {0: torch.export.Dim("batch", min=1)}
    exported = torch.export.export(network.module, (data.test.images[:4],), dynamic_shapes=(batch,))
    assert as_teacher(exported, data, cache=False).accuracy == network.accuracy


def test_outputs_that_change_are_said(data, network, caplog):
    class Noisy(torch.nn.Module):
        def forward(self, images):
            return torch.nn.functional.dropout(network.module(images), 0.5)

    as_teacher(network.module, data, cache=False)
    assert "when it is asked again" not in caplog.text
    as_teacher(Noisy(), data, cache=False)
    assert (
        "the module Noisy gives other outputs for the same images when it is asked" in caplog.text
    )
