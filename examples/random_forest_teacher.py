"""A random forest teaches a 4-qubit hybrid student the handwritten digits of scikit-learn."""

from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from qkd_qiskit import DistilledClassifier

images, labels = load_digits(return_X_y=True)
train, test, train_labels, test_labels = train_test_split(
    images, labels, test_size=500, random_state=0
)
few = train_test_split(train, train_labels, train_size=100, stratify=train_labels, random_state=0)

# The forest has seen all training images; both students see a hundred of them.
forest = RandomForestClassifier(random_state=0).fit(train.astype("float32"), train_labels)
print(f"forest: {forest.score(test.astype('float32'), test_labels):.3f}")
for name, weights in {
    "labels alone": {"ce_weight": 1.0, "kd_weight": 0.0},
    "distilled": {"ce_weight": 0.5, "kd_weight": 0.5},
}.items():
    student = DistilledClassifier(
        forest, image_shape=(1, 8, 8), temperature=2.0, random_state=0, **weights
    )
    print(f"{name}: {student.fit(few[0], few[2]).score(test, test_labels):.3f}")
