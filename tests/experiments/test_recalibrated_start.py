import pytest
import torch

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.evaluation import exact_logits, target_logits
from qkd_qiskit.experiments.recalibrated_start import with_map
from qkd_qiskit.experiments.recalibration import fit_recalibration
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.students import make_student
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.targets import Target


@pytest.fixture
def fitted(finished):
    data = load_data(finished.recipe.data, seed=0)
    student = load_student(finished.member("distilled", 0))
    target = Target.parse("fake_manila:scale=4:exact")
    images = data.pool.images[:30]
    logits = target_logits(student, images, target=target)

    def fit(kind="affine"):
        return fit_recalibration(student, images, logits=logits, target="fake_manila", kind=kind)

    return student, data.test.images[:20], target, fit


@pytest.mark.parametrize("kind", ["affine", "diagonal"])
def test_its_own_logits_are_the_corrected_ones(fitted, kind):
    student, images, target, fit = fitted
    known = fit(kind)
    expected = known.corrected(student, target_logits(student, images, target=target))
    before = exact_logits(student, images)
    student.load_parameters(with_map(student, known))
    found = target_logits(student, images, target=target)
    torch.testing.assert_close(found, expected.to(found.dtype), atol=1e-4, rtol=1e-4)
    assert (exact_logits(student, images) - before).abs().max() > 0.01


def test_a_student_without_a_last_layer(fitted):
    fit = fitted[3]
    spec = StudentSpec(kind="quantum", qubits=2, readout="modulo", head="none", reduction="crop")
    student = make_student(spec, image_shape=(1, 2, 2), num_classes=2)
    with pytest.raises(InputError, match="without a linear last layer"):
        with_map(student, fit())
