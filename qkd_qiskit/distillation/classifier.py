"""A distilled student in scikit-learn's idiom: fit, predict, predict_proba, score."""

from __future__ import annotations

import copy
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data
from torch import Tensor
from torch.nn.functional import softmax

from qkd_qiskit.data.splits import Data, Split
from qkd_qiskit.distillation.single_student import distill
from qkd_qiskit.errors import DataError
from qkd_qiskit.recipe import DistillSpec, StudentSpec
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.teachers.adapters import as_teacher


class DistilledClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A quantum student that is distilled from any classifier when it is fitted.

    Works in `Pipeline`, `cross_val_score` and `GridSearchCV`. Features are brought to [0, 1]
    first, as encodings expect numbers of the order of 1.

    Args:
        teacher: A scikit-learn classifier, fitted already or not (then a copy is fitted on the same
            X and y); an `nn.Module` or function from images (batch, 1, 1, features), or from
            `image_shape`, to logits of the classes in sorted order. Default: logistic regression.
        student: What learns, as a recipe's `student`; default: a hybrid of 4 qubits. Its fields
            can be set one by one by the arguments of the same names, which come first.
        spec: How it learns, as a recipe's `distill`; likewise.
        qubits: Width of the circuit; None = as `student`. So all that follow.
        layers: Repetitions of the ansatz.
        encoding: One of `qkd_qiskit.circuits.ENCODINGS`, such as amplitude or angle.
        epochs: Passes over the samples.
        lr: Learning rate at the start.
        batch_size: Samples per step.
        temperature: T, softens the teacher's logits.
        ce_weight: Weight of the cross-entropy with the labels; 0 = the teacher alone.
        kd_weight: Weight of the divergence from the teacher; 0 = the labels alone.
        scale: Whether each feature is brought to [0, 1] over the samples that are fitted.
        image_shape: (channels, height, width) of a row of X; None = (1, 1, features).
        random_state: Seed of the initialisation and of the order of the samples.

    Attributes:
        classes_: Labels in sorted order.
        student_: The trained `Student`.
        teacher_: What taught.
        n_features_in_: Number of columns of X.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from qkd_qiskit import DistilledClassifier
        >>> flowers, kinds = load_iris(return_X_y=True)
        >>> classifier = DistilledClassifier(qubits=2, epochs=30, random_state=0)
        >>> classifier.fit(flowers, kinds).score(flowers, kinds) > 0.8
        True
    """

    def __init__(
        self,
        teacher: Any = None,
        *,
        student: StudentSpec | None = None,
        spec: DistillSpec | None = None,
        qubits: int | None = None,
        layers: int | None = None,
        encoding: str | None = None,
        epochs: int | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
        temperature: float | None = None,
        ce_weight: float | None = None,
        kd_weight: float | None = None,
        scale: bool = True,
        image_shape: tuple[int, int, int] | None = None,
        random_state: Any = None,
    ) -> None:
        self.teacher = teacher
        self.student, self.spec = student, spec
        self.qubits, self.layers, self.encoding = qubits, layers, encoding
        self.epochs, self.lr, self.batch_size = epochs, lr, batch_size
        self.temperature, self.ce_weight, self.kd_weight = temperature, ce_weight, kd_weight
        self.scale, self.image_shape, self.random_state = scale, image_shape, random_state

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> DistilledClassifier:
        """Train the teacher where it is not trained yet, then the student; return self.

        Args:
            X: Samples (samples, features).
            y: Labels (samples,).

        Raises:
            ValueError: Values are not finite, or X and y do not belong together.
            InputError: The student or the teacher does not fit the data.
        """
        rows, labels = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(labels)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        self.scaler_ = MinMaxScaler().fit(rows) if self.scale else None
        self.teacher_, self.student_ = None, None
        if len(self.classes_) == 1:  # nothing to tell apart
            return self
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        names = tuple(str(name) for name in self.classes_)
        targets = torch.from_numpy(numbers)
        self.teacher_ = self._fitted_teacher(rows, labels)
        raw = _without_holding_out(Split(self._images(rows, scaled=False), targets), names)
        logits = as_teacher(self.teacher_, raw, cache=False).logits(raw.pool.images, cache=False)
        data = _without_holding_out(Split(self._images(rows), targets), names)
        self.student_ = make_student(
            replace(self.student or StudentSpec(), **self._given(StudentSpec)),
            image_shape=data.image_shape,
            num_classes=len(names),
            seed=seed,
        )
        distill(
            self.student_,
            logits,
            data,
            spec=replace(self.spec or DistillSpec(), **self._given(DistillSpec)),
            seed=seed,
        )
        return self

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return class probabilities (samples, classes), columns in the order of `classes_`."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=np.float64, reset=False)
        if self.student_ is None:
            return np.ones((len(rows), 1))
        # In float64, a sample's figures do not depend on those beside it to seven digits.
        student = copy.deepcopy(self.student_).double()
        with torch.no_grad():
            logits = student(student.features(self._images(rows).double()))
        probabilities: npt.NDArray[np.float64] = softmax(logits, dim=1).numpy()
        return probabilities

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the most probable label of each sample (samples,)."""
        choices = self.predict_proba(X).argmax(axis=1)
        labels: npt.NDArray[Any] = self.classes_[choices]
        return labels

    def _given(self, spec: type[StudentSpec] | type[DistillSpec]) -> dict[str, Any]:
        """Return the arguments that set a field of the specification."""
        names = {field.name for field in fields(spec)} & set(self.get_params(deep=False))
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def _fitted_teacher(self, rows: npt.NDArray[np.float64], labels: npt.NDArray[Any]) -> Any:
        teacher = LogisticRegression(max_iter=1000) if self.teacher is None else self.teacher
        if not hasattr(teacher, "fit"):  # a network or a function
            return teacher
        try:
            check_is_fitted(teacher)
        except NotFittedError:
            return clone(teacher).fit(rows.astype(np.float32), labels)
        return teacher

    def _images(self, rows: npt.NDArray[np.float64], *, scaled: bool = True) -> Tensor:
        """Return rows as images (samples, channels, height, width), float32."""
        shape = self.image_shape or (1, 1, rows.shape[1])
        if math.prod(shape) != rows.shape[1]:
            raise DataError(
                f"image_shape {tuple(shape)} has {math.prod(shape)} pixels, a row of X "
                f"{rows.shape[1]} features; give (channels, height, width) of a row"
            )
        if scaled and self.scaler_ is not None:
            rows = self.scaler_.transform(rows)
        return torch.from_numpy(rows.astype(np.float32)).reshape(len(rows), *shape)


def _without_holding_out(split: Split, class_names: tuple[str, ...]) -> Data:
    """Return data whose samples are all trained on; nothing is chosen, the last weights stay."""
    return Data("arrays", len(class_names), class_names, split, split, split)
