"""Distil with a loss of one's own: the teacher is believed only where it knows the label.

python examples/own_loss.py
"""

from torch import Tensor, where
from torch.nn.functional import cross_entropy, kl_div

from qkd_qiskit import distill, evaluate, load_data, load_recipe, make_student, make_teacher


def believed_where_right(logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Return the divergence where the teacher is right, the cross-entropy where it is wrong."""
    right = teacher_logits.argmax(dim=1) == labels
    divergence = kl_div(
        (logits / 4).log_softmax(dim=1), (teacher_logits / 4).softmax(dim=1), reduction="none"
    )
    own = cross_entropy(logits, labels, reduction="none")
    return where(right, 16 * divergence.sum(dim=1), own).mean()


def main() -> None:
    """Train two equal students, one with the recipe's loss and one with ours; print both."""
    recipe = load_recipe("digits", {"distill.epochs": 20})
    data = load_data(recipe.data)
    teacher = make_teacher(recipe.teacher, data)
    for name, loss in (("recipe's loss", None), ("own loss", believed_where_right)):
        student = make_student(recipe.student, image_shape=(1, 8, 8), num_classes=10, seed=0)
        distill(student, teacher, data, spec=recipe.distill, loss=loss)
        print(f"{name}: test accuracy {evaluate(student, data.test).accuracy:.3f}")


if __name__ == "__main__":
    main()
