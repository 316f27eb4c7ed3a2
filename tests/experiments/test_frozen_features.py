"""A run on features of a frozen network: its linear probe, its report, changed weights."""

import math
import sys

import pytest
import torch
from safetensors.torch import save_file

from qkd_qiskit import Run, load_recipe, make_student, run_experiment
from qkd_qiskit.errors import DataError
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.recipe.parsing import dump_recipe

OWN = """
from torch import nn


def make():
    return nn.Sequential(nn.Conv2d(1, 20, 4, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    (tmp_path / "frozen_net.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("QKD_CACHE", str(tmp_path / "cache"))
    sys.modules.pop("frozen_net", None)
    weights = torch.randn(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    save_file({"0.weight": weights}, tmp_path / "frozen.safetensors")
    return load_recipe(
        "digits",
        {
            "data.backbone": "module:frozen_net:make",
            "data.backbone_weights": str(tmp_path / "frozen.safetensors"),
            "data.scale": "standard",
            "teacher.epochs": 2,
            "distill.epochs": 2,
            "arms": ["label_only", "distilled"],
            "seeds": 2,
            "targets": ["exact"],
        },
    )


def test_the_linear_probe_is_beside_and_the_report_says_where_features_are_from(recipe, tmp_path):
    run = run_experiment(recipe, out=tmp_path / "run")
    assert run.recipe.arms == ("label_only", "distilled", "feature_probe")
    assert run.data.image_shape == (1, 1, 20)
    probe = run.student("feature_probe", seed=1)
    assert probe.num_parameters == 10 * (20 + 1)
    pool = run.data.pool.images.flatten(1).double()
    centred = pool - pool.mean(dim=0)
    scaled = centred / centred.square().mean().sqrt()
    logits = probe(run.data.pool.images)
    expected = probe.network(scaled.float())
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    accuracy = run.result.arms["feature_probe"]["exact"].accuracy
    assert len(accuracy) == 2
    assert all(math.isfinite(it) for it in accuracy)
    page = run.report().read_text()
    assert "features of a frozen network (module:frozen_net:make, its output, weights of " in page
    assert "linear probe" in page
    save_file({"0.weight": torch.zeros(20, 1, 4, 4)}, tmp_path / "frozen.safetensors")
    with pytest.raises(DataError, match=r"frozen\.safetensors has changed since the run began"):
        _ = Run.open(tmp_path / "run").data


def test_recipes_without_features_are_written_as_ever(recipe):
    plain = dump_recipe(load_recipe("digits"))
    assert "backbone" not in plain
    assert "size" not in plain.replace("batch_size", "")
    assert "backbone: module:frozen_net:make" in dump_recipe(recipe).replace("'", "")


def test_a_probe_takes_all_pixels_whatever_the_student_has():
    spec = StudentSpec(kind="softmax", qubits=2, encoding="angle")
    student = make_student(spec, image_shape=(3, 5, 5), num_classes=4)
    assert student.num_parameters == 4 * (75 + 1)
