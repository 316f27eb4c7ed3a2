"""Outputs that are no logits: told from logits, and turned back into them."""

import numpy as np
import pytest
import torch
from torch import nn

from qkd_qiskit.data.splits import Data
from qkd_qiskit.errors import RecipeError, TeacherError
from qkd_qiskit.recipe import TeacherSpec
from qkd_qiskit.teachers import outputs as outputs_module
from qkd_qiskit.teachers.base import Teacher
from qkd_qiskit.teachers.outputs import find_outputs, output_tensor, to_logits
from qkd_qiskit.teachers.teacher import make_teacher, make_untrained_teacher

LAST = {
    "probabilities": nn.Softmax(dim=1),
    "log_probabilities": nn.LogSoftmax(dim=1),
    "sigmoid": nn.Sigmoid(),
}
LOGITS = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 6


@pytest.fixture
def warnings_logged(caplog):
    outputs_module._warn_once.cache_clear()
    return caplog


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    return Data.from_arrays(rng.normal(size=(300, 4)) / 10 + np.eye(3, 4)[labels], labels)


def soft(logits, temperature=4.0):
    return torch.softmax(logits / temperature, dim=1)


@pytest.mark.parametrize("kind", LAST)
def test_softened_outputs_are_those_of_the_logits(kind):
    logits = LOGITS / 2  # within what a float32 sigmoid can hold
    values = LAST[kind](logits)
    torch.testing.assert_close(soft(to_logits(values, kind)), soft(logits), atol=1e-4, rtol=1e-3)


def test_a_sigmoid_is_inverted_also_where_it_saturates():
    logits = torch.tensor([[-20.0, 0.0, 3.0]])
    torch.testing.assert_close(to_logits(logits.sigmoid(), "sigmoid"), logits)
    assert to_logits(torch.tensor([[0.0, 1.0]]), "sigmoid").isfinite().all()


def test_probabilities_of_zero_stay_finite():
    logits = to_logits(torch.tensor([[1.0, 0.0]]), "probabilities")
    torch.testing.assert_close(logits, torch.tensor([[0.0, -27.6310]]))


@pytest.mark.parametrize("kind", LAST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_a_network_gives_is_found_and_logged_in_one_line(kind, dtype, warnings_logged):
    values = LAST[kind](LOGITS).to(dtype).float()
    if kind == "sigmoid":
        values = values.clamp_min(1e-7)  # half precision rounds to zero, as a ReLU does
    for _ in range(2):
        assert find_outputs(values, stated=None, source="it") == kind
    (record,) = warnings_logged.records
    assert f"outputs='{kind}'" in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(
    "values",
    [
        LOGITS,
        LOGITS.relu(),
        LOGITS.relu().clamp_max(1),
        LOGITS.abs() / 100 - 0.01,
        torch.rand(50, 4) * 2,
        -LOGITS.abs(),
        torch.full((50, 4), torch.nan),
        LOGITS[:, :1].sigmoid(),
    ],
)
def test_logits_are_taken_as_they_are(values, warnings_logged):
    assert find_outputs(values, stated=None, source="it") == "logits"
    assert find_outputs(values, stated="logits", source="it") == "logits"
    assert warnings_logged.records == []


@pytest.mark.parametrize(
    ("values", "stated", "message"),
    [
        (LOGITS, "probabilities", "does not give probabilities .* look like logits; give outputs="),
        (LOGITS, "log_probabilities", r"\(outputs='log_probabilities'\), but numbers from -"),
        (LOGITS, "sigmoid", "does not give a sigmoid of each class"),
        (LOGITS.softmax(1), "logits", "look like probabilities; give outputs='probabilities'"),
        (LOGITS.sigmoid(), "probabilities", "look like a sigmoid of each class"),
        (LOGITS, "soft", "outputs is 'soft'; give one of logits, probabilities, log_prob"),
    ],
)
def test_a_wrong_statement_is_refused_in_one_line(values, stated, message):
    with pytest.raises(TeacherError, match=message) as caught:
        find_outputs(values, stated=stated, source="it")
    assert "\n" not in str(caught.value)


def test_outputs_are_taken_out_of_what_a_network_returns():
    class Output:
        logits = LOGITS

    for output in (LOGITS, {"logits": LOGITS}, (LOGITS, None), [LOGITS], Output()):
        assert output_tensor(output) is LOGITS
    assert output_tensor(()) == ()
    assert output_tensor({"scores": LOGITS}) == {"scores": LOGITS}


@pytest.mark.parametrize("kind", LAST)
@pytest.mark.parametrize("stated", [True, False])
def test_a_teacher_with_another_last_layer_teaches_the_same(kind, stated, blobs, tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    plain = Teacher.from_module(network, blobs, cache=tmp_path)
    other = Teacher.from_module(
        nn.Sequential(network, LAST[kind]), blobs, outputs=kind if stated else None, cache=tmp_path
    )
    assert (other.outputs, other.accuracy) == (kind, plain.accuracy)
    expected = soft(plain.logits(blobs.pool.images, cache=tmp_path))
    found = soft(other.logits(blobs.pool.images, cache=tmp_path))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


NETWORKS = """
from torch import nn

def softmax(image_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(4, num_classes), nn.Softmax(dim=1))

def plain(image_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(4, num_classes))
"""


@pytest.fixture
def networks(tmp_path, monkeypatch):
    (tmp_path / "networks_with_a_softmax.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("stated", ["probabilities", None])
def test_a_recipe_trains_a_network_with_a_softmax_on_its_logits(stated, blobs, networks, tmp_path):
    specs = [
        TeacherSpec(
            kind="module", module=f"networks_with_a_softmax:{name}", outputs=outputs, epochs=3
        )
        for name, outputs in (("plain", None), ("softmax", stated))
    ]
    plain, ended = (make_teacher(spec, blobs, cache=tmp_path) for spec in specs)
    assert ended.outputs == "probabilities"
    for name, value in plain.module.state_dict().items():
        torch.testing.assert_close(ended.module.state_dict()[name], value)
    untrained = [make_untrained_teacher(spec, blobs) for spec in specs]
    found, expected = (soft(one.logits(blobs.pool.images, cache=False)) for one in untrained)
    torch.testing.assert_close(found, expected)


def test_the_built_in_kinds_take_no_outputs():
    with pytest.raises(RecipeError, match=r"teacher\.outputs: 'probabilities' is not accepted"):
        TeacherSpec(kind="mlp", outputs="probabilities")


@pytest.mark.parametrize("total", [100.0, 7.0])
def test_percentages_and_votes_are_probabilities(total):
    values = LOGITS.softmax(dim=1) * total
    assert find_outputs(values, stated=None, source="it") == "probabilities"
    torch.testing.assert_close(soft(to_logits(values, "probabilities")), soft(LOGITS))


def test_a_sigmoid_with_exact_zeros_is_still_one():
    values = (LOGITS * 20).sigmoid()
    assert (values == 0).any()
    assert find_outputs(values, stated=None, source="it") == "sigmoid"
