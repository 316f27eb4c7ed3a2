"""Modules, functions, classifiers and arrays teach what they say themselves."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import LinearSVC
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
