"""A run of a network of the user's own: trained, found again, evaluated, submitted, reported."""

import shutil

import numpy as np
import pytest
import torch

from qkd_qiskit.errors import CircuitError, RecipeError
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.repair import put_damage_aside
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.submission import Request, plan_dry_run, submit_run
from qkd_qiskit.recipe import Recipe, StudentSpec
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.report.report import write_report
from qkd_qiskit.students import ModuleStudent, load_student

NETWORK = """
import torch
from qiskit.circuit.library import n_local, z_feature_map
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN
from torch import nn


def make(image_shape, num_classes):
    features, ansatz = z_feature_map(2, reps=1), n_local(2, "ry", "cz", reps=1)
    network = EstimatorQNN(
        circuit=features.compose(ansatz),
        input_params=list(features.parameters),
        weight_params=list(ansatz.parameters),
        observables=[SparsePauliOp("ZI"), SparsePauliOp("XX")],
    )
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 2), TorchConnector(network), nn.Linear(2, num_classes)
    )


def drawn(image_shape, num_classes):
    module = make(image_shape, num_classes)
    module[1].requires_grad_(False)
    return module
"""
CHANGES = {"student.kind": "module", "student.module": "module_of_a_run:make"}


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("module")
    (folder / "module_of_a_run.py").write_text(NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        made = RunFolder.create(folder / "run", load_recipe(tiny, CHANGES))
        run(made, command="")
        yield made


def test_every_arm_is_found_again(finished_run):
    for arm, seed in finished_run.members:
        student = load_student(finished_run.member(arm, seed))
        assert isinstance(student, ModuleStudent) == (arm != "classical_twin")
        accuracy = finished_run.evaluations(arm, seed)["exact"].accuracy
        assert accuracy == finished_run.result.arms[arm]["exact"].accuracy[seed]
    weights = [
        load_student(finished_run.member(arm, 0)).num_parameters
        for arm in ("distilled", "classical_twin")
    ]
    assert weights[0] == 130 + 4 + 6
    assert abs(weights[1] - weights[0]) <= 34  # half a hidden unit


def test_the_pair_begins_alike_and_ends_apart(finished_run):
    first, second = (
        load_student(finished_run.member(arm, 0)).state_dict()
        for arm in ("label_only", "distilled")
    )
    assert first.keys() == second.keys()
    assert not torch.equal(first["module.1.weight"], second["module.1.weight"])
    metrics = [finished_run.metrics(arm, 0)[0] for arm in ("label_only", "distilled")]
    assert metrics[0].ce == pytest.approx(metrics[1].ce, rel=0.2)


def test_both_bases_are_submitted(finished_run):
    """Two bases of four students of ten images with 2,000 shots, on a simulated device."""
    request = Request(backend="fake_manila", mode="job", shots=2000)
    plan = plan_dry_run(finished_run, request)
    assert (plan.qubits, plan.members) == (2, 4)
    assert plan.chosen.pubs == 2 * plan.chosen.jobs
    assert (plan.chosen.circuits, plan.chosen.executions) == (80, 160_000)
    result = submit_run(finished_run, request).result
    (key,) = (name for name, target in result.targets.items() if target.device is not None)
    assert result.targets[key].device.circuits == 80
    for arm in ("label_only", "distilled"):
        metrics = result.arms[arm][key]
        difference = np.subtract(metrics.accuracy, metrics.exact_accuracy)
        assert np.abs(difference).max() <= 0.3


def test_the_report_names_the_network(finished_run):
    page = write_report(finished_run).read_text()
    assert "your own, module_of_a_run:make" in page
    assert "a network of your own: a circuit of 2 qubits" in page
    assert page.count("real_amplitudes") == 1  # in the recipe, where it does nothing


def test_what_is_not_trained_may_not_differ_between_seeds(finished_run, tmp_path, tiny):
    changes = CHANGES | {"student.module": "module_of_a_run:drawn", "arms": ["distilled"]}
    folder = RunFolder.create(tmp_path / "run", load_recipe(tiny, changes))
    with pytest.raises(CircuitError, match=r"'1\.weight' is not trained and differs between the"):
        run(folder, command="")


def test_code_that_is_gone_is_no_damage(finished_run, tmp_path):
    """A run that goes on where its network cannot be made says so, and keeps the students."""
    copy = tmp_path / "run"
    shutil.copytree(finished_run.path, copy)
    text = (copy / "recipe.yaml").read_text().replace("module_of_a_run", "module_of_nobody")
    (copy / "recipe.yaml").write_text(text)
    for card in copy.glob("*/seed_*/student.json"):
        card.write_text(card.read_text().replace("module_of_a_run", "module_of_nobody"))
    folder = RunFolder.open(copy)
    with pytest.raises(CircuitError, match="'module_of_nobody:make' cannot be imported"):
        put_damage_aside(folder)
    assert not list(copy.rglob("*.damaged"))
    damaged = finished_run.member("distilled", 0).relative_to(finished_run.path) / "circuit.qasm"
    other = tmp_path / "other"
    shutil.copytree(finished_run.path, other)
    (other / damaged).write_text("OPENQASM 3.0;\nqubit[2] q;\nry(x_0")
    put_damage_aside(RunFolder.open(other))
    assert [path.parent.parent.name for path in other.rglob("*.damaged")] == ["distilled"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("module_of_a_run", "is not an import path; give `package.file:factory`"),
        ("module_of_nobody:make", "cannot be imported"),
        ("module_of_a_run:nothing", "cannot be imported"),
        ("module_of_a_run:nn", "is a module; give a function"),
        ("torch:zeros", "fails for image_shape"),
        ("torch.nn:Identity", "has no circuit layer"),
    ],
)
def test_a_module_that_cannot_be_made_is_refused(path, message, finished_run, tmp_path, tiny):
    folder = RunFolder.create(
        tmp_path / "run", load_recipe(tiny, CHANGES | {"student.module": path})
    )
    with pytest.raises(CircuitError, match=f"student.module: .*{message}") as caught:
        run(folder, command="")
    assert "\n" not in str(caught.value)


def test_kind_and_path_go_together():
    with pytest.raises(RecipeError, match=r"student\.module: None is not accepted; give an import"):
        Recipe(student=StudentSpec(kind="module"))
    with pytest.raises(RecipeError, match=r"student\.module: 'a:b' is not accepted"):
        StudentSpec(module="a:b")
