"""`DistilledClassifier` is one of scikit-learn's, and its student learns from the teacher."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from qkd_qiskit import DistilledClassifier, DistillSpec, StudentSpec
from qkd_qiskit.errors import DataError, RecipeError

QUICK = {"epochs": 15, "lr": 0.1, "random_state": 0}


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([DistilledClassifier(**QUICK)])
def test_it_is_a_classifier_of_scikit_learn(estimator, check):
    check(estimator)


def test_labels_keep_their_names_and_probabilities_their_order(iris):
    samples, labels = iris
    names = np.array(["setosa", "versicolor", "virginica"])[labels]
    model = DistilledClassifier(**QUICK).fit(samples, names)
    assert list(model.classes_) == ["setosa", "versicolor", "virginica"]
    probabilities = model.predict_proba(samples)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert (model.classes_[probabilities.argmax(axis=1)] == model.predict(samples)).all()
    assert model.score(samples, names) > 0.9


def test_without_labels_the_student_follows_a_teacher_that_is_wrong(iris):
    """With ce_weight 0 the labels are not read: a teacher of permuted classes is imitated."""
    samples, labels = iris
    wrong = RandomForestClassifier(random_state=0).fit(samples, (labels + 1) % 3)
    model = DistilledClassifier(wrong, ce_weight=0.0, kd_weight=1.0, **QUICK).fit(samples, labels)
    assert (model.predict(samples) == (labels + 1) % 3).mean() > 0.9


def test_without_the_teacher_it_is_not_heard(iris):
    samples, labels = iris
    wrong = RandomForestClassifier(random_state=0).fit(samples, (labels + 1) % 3)
    model = DistilledClassifier(wrong, ce_weight=1.0, kd_weight=0.0, **QUICK).fit(samples, labels)
    assert model.score(samples, labels) > 0.9


def test_a_module_teaches_from_the_samples_as_they_are(iris):
    samples, labels = iris
    shapes = []

    class Threshold(torch.nn.Module):
        def forward(self, images):
            shapes.append(tuple(images.shape[1:]))
            return 8 * torch.stack([2.5 - images[..., 2], images[..., 2] - 2.5], -1).flatten(1)

    two = labels > 0
    model = DistilledClassifier(Threshold(), ce_weight=0.0, kd_weight=1.0, **QUICK)
    assert model.fit(samples, two).score(samples, two) > 0.95
    assert set(shapes) == {(1, 1, 4)}


def test_specifications_and_their_fields_can_be_given(iris):
    model = DistilledClassifier(
        student=StudentSpec(qubits=3, layers=1), spec=DistillSpec(epochs=1), layers=2
    )
    student = clone(model).fit(*iris).student_
    assert (student.spec.qubits, student.spec.layers) == (3, 2)


def test_pipelines_and_searches_work(iris):
    pipeline = make_pipeline(MinMaxScaler(), DistilledClassifier(**QUICK))
    assert cross_val_score(pipeline, *iris, cv=3).mean() > 0.8
    search = GridSearchCV(pipeline, {"distilledclassifier__layers": [1, 2]}, cv=2).fit(*iris)
    assert search.best_params_["distilledclassifier__layers"] in (1, 2)


def test_equal_seeds_give_equal_students(iris):
    first, second = (DistilledClassifier(**QUICK).fit(*iris) for _ in range(2))
    assert (first.predict_proba(iris[0]) == second.predict_proba(iris[0])).all()


def test_wrong_settings_are_refused_in_one_line(iris):
    with pytest.raises(DataError, match=r"image_shape \(1, 3, 3\) has 9 pixels, a row of X 4"):
        DistilledClassifier(image_shape=(1, 3, 3)).fit(*iris)
    with pytest.raises(RecipeError, match=r"distill\.lr"):
        DistilledClassifier(lr=-1.0).fit(*iris)


def test_images_are_taken_in_their_shape():
    images, labels = load_digits(n_class=2, return_X_y=True)
    model = DistilledClassifier(
        student=StudentSpec(kind="quantum", reduction="avg_pool", readout="bins", head="none"),
        image_shape=(1, 8, 8),
        scale=False,
        epochs=10,
        random_state=0,
    ).fit(images / 16, labels)
    assert model.student_.image_shape == (1, 8, 8)
    assert model.score(images / 16, labels) > 0.8
