"""A batch under several noises: who runs what, and what a recipe may ask for."""

import pytest
import torch

from qkd_qiskit.distillation.executors import training_executor
from qkd_qiskit.errors import RecipeError
from qkd_qiskit.recipe import DistillSpec, StudentSpec
from qkd_qiskit.recipe.parsing import dump_recipe, load_recipe
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.targets.gradients import SeveralExecutor

DEVICES = ("fake_lima", "fake_manila")


@pytest.fixture(scope="module")
def student():
    spec = StudentSpec(qubits=2, layers=1, encoding="angle")
    return make_student(spec, image_shape=(1, 4, 4), num_classes=2)


def executor(student, devices):
    spec = DistillSpec(gradient="noisy", train_target=devices)
    return training_executor(student, spec, shots=10, seed=0)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_each_sample_runs_under_its_devices_noise(batch, student):
    several = executor(student, DEVICES)
    assert isinstance(several, SeveralExecutor)
    inputs, weights = torch.rand(batch, 2, dtype=torch.float64), torch.rand(len(student.weights))
    rows = several(inputs, weights)
    alone = [executor(student, device)(inputs, weights) for device in DEVICES]
    for sample in range(batch):
        assert torch.allclose(rows[sample], alone[sample % 2][sample], atol=1e-7)
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)


def test_members_are_stacked(student):
    several = executor(student, DEVICES)
    inputs, weights = torch.rand(3, 4, 2), torch.rand(3, len(student.weights))
    stacked = torch.func.vmap(several)(inputs, weights)
    for member in range(3):
        assert torch.allclose(stacked[member], several(inputs[member], weights[member]), atol=1e-6)


def test_a_list_goes_through_a_recipe_and_a_single_name_stays_a_name(tmp_path):
    changes = {"distill.gradient": "noisy", "distill.train_target": list(DEVICES)}
    recipe = load_recipe("digits", changes)
    assert recipe.distill.train_targets == DEVICES
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe
    flag = load_recipe("digits", changes | {"distill.train_target": "fake_lima,fake_manila"})
    assert flag == recipe
    one = load_recipe("digits", changes | {"distill.train_target": "fake_lima"})
    assert one.distill.train_target == "fake_lima"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gradient": "spsa", "train_target": DEVICES}, "one target where distill.gradient is not"),
        ({"gradient": "noisy", "train_target": ("fake_lima", "exact")}, "a device such as"),
        ({"gradient": "noisy", "train_target": ("fake_lima", "fake_lima")}, "distinct devices"),
        ({"gradient": "noisy", "train_target": ()}, "one target, or a list"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        DistillSpec(**changes)
