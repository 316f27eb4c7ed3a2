"""Students against Statevector, finite differences, the stock connector, and their own files."""

import json
import math

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import Statevector
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN
from torch.func import functional_call, stack_module_state, vmap

from qkd_qiskit.errors import CheckpointError, CircuitError, InputError, QKDError
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.students.base import CARD_FILE, WEIGHTS_FILE
from qkd_qiskit.students.factory import load_student, make_student

HYBRID = StudentSpec(qubits=2, layers=1)
QUANTUM = StudentSpec(
    kind="quantum", qubits=2, layers=1, reduction="avg_pool", readout="bins", head="none"
)


def spec(kind="hybrid", **changes):
    base = {"qubits": 2, "layers": 2}
    if kind == "quantum":
        base |= {"reduction": "avg_pool", "readout": "bins", "head": "none"}
    return StudentSpec(kind=kind, **(base | changes))


SPECS = {
    "angle": spec(),
    "amplitude": spec(encoding="amplitude"),
    "reuploading": spec(encoding="reuploading", ansatz="real_amplitudes"),
    "qubit": spec(encoding="qubit", layers=1),
    "expectation": spec(readout="expectation", qubits=3),
    "bins_with_head": spec(readout="bins", head="linear"),
    "no_head": spec(readout="modulo", head="none", sharpness="learned"),
    "pca": spec(reduction="pca"),
    "cnn": spec(reduction="cnn"),
    "quantum_amplitude": spec("quantum", encoding="amplitude", reduction="none", qubits=4),
    "quantum_padded": spec("quantum", encoding="amplitude", reduction="none", qubits=5),
    "quantum_crop": spec("quantum", encoding="amplitude", reduction="crop"),
    "quantum_angle": spec("quantum", sharpness=1.0),
    "quantum_modulo": spec("quantum", readout="modulo", reduction="max_pool"),
    "quantum_reuploading": spec("quantum", encoding="reuploading", sharpness="learned"),
    "trained_reuploading": spec(encoding="trained_reuploading", ansatz="cz_line"),
    "quantum_trained_reuploading": spec(
        "quantum", encoding="trained_reuploading", features=6, ansatz="ry_cz_line"
    ),
    "quantum_matrix_product": spec(
        "quantum", encoding="matrix_product", qubits=3, reduction="crop"
    ),
    "quantum_entangled_qubit": spec("quantum", encoding="entangled_qubit", reduction="avg_pool"),
    "quantum_qubit": spec("quantum", encoding="qubit", reduction="avg_pool"),
}


def images(count=5, *, seed=0, shape=(1, 4, 4)):
    return 0.05 + 0.9 * torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def build(which, *, num_classes=3, seed=0, **changes):
    student = make_student(
        which, image_shape=(1, 4, 4), num_classes=num_classes, seed=seed, **changes
    )
    student.fit(images(40, seed=1))
    return student


def statevector_logits(student, batch):
    """The student's logits along another way: bound parameters, Statevector, decode."""
    values = student.encode(student.features(batch)).detach().double().numpy()
    weights = dict(zip(student.weight_names, student.weights.detach().tolist(), strict=True))
    rows = []
    for row in values:
        named = weights | dict(zip(student.input_names, row.tolist(), strict=True))
        bound = student.circuit.assign_parameters(named)
        rows.append(Statevector(bound).probabilities())
    return student.decode(torch.tensor(np.array(rows)))


def measured(student, logits):
    """Undo the logarithm of a student without a head, which stretches errors of small numbers."""
    return logits if student.head is not None else (logits / student.log_sharpness.exp()).exp()


@pytest.mark.parametrize("name", SPECS)
def test_logits_are_those_of_statevector(name):
    student = build(SPECS[name])
    for batch, tolerance in ((images(), 1e-6), (images().double(), 1e-12)):
        with torch.no_grad():
            student.to(batch.dtype)
            found, expected = student(batch), statevector_logits(student, batch)
            assert found.dtype == expected.dtype == batch.dtype
            error = measured(student, found) - measured(student, expected)
            assert error.abs().max() < tolerance
            assert torch.equal(found.argmax(dim=1), expected.argmax(dim=1))


@pytest.mark.parametrize("name", SPECS)
def test_prepared_features_give_the_logits_of_images(name):
    student = build(SPECS[name])
    torch.testing.assert_close(student(student.features(images())), student(images()))


@pytest.mark.parametrize("name", SPECS)
def test_gradients_are_those_of_finite_differences(name):
    student = build(SPECS[name]).double()
    names, values = zip(*student.named_parameters(), strict=True)

    def logits(batch, *parameters):
        return functional_call(student, dict(zip(names, parameters, strict=True)), (batch,))

    batch = images(2).double().requires_grad_(SPECS[name].encoding != "matrix_product")
    leaves = [value.detach().clone().requires_grad_() for value in values]
    assert torch.autograd.gradcheck(logits, (batch, *leaves), fast_mode=True)


@pytest.mark.parametrize("name", ["angle", "amplitude", "expectation", "quantum_angle"])
def test_the_stock_connector_gives_the_same_outputs_and_gradients(name):
    """Qiskit Machine Learning's own connector and parameter shift, around the student's network."""
    student = build(SPECS[name])
    stock = TorchConnector(student.qnn)
    stock.load_state_dict(student.connector.state_dict())
    given = student.encode(student.features(images(2))).detach()
    results = []
    for connector in (stock, student.connector):
        inputs = given.clone().requires_grad_()
        output = connector(inputs)
        mix = torch.linspace(-1, 2, output.numel()).reshape(output.shape)
        gradients = torch.autograd.grad((output * mix).sum(), (inputs, connector.weight))
        results.append((output, *gradients))
    for theirs, mine in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs.to(mine), atol=2e-6, rtol=1e-5)


def test_weights_go_to_the_stock_connector_and_back():
    student, other = build(HYBRID, seed=1), build(HYBRID, seed=2)
    stock = TorchConnector(student.qnn)
    stock.load_state_dict(student.connector.state_dict())
    other.connector.load_state_dict(stock.state_dict())
    assert torch.equal(other.weights, student.weights)
    given = student.encode(images())
    assert torch.equal(other.connector(given), student.connector(given))


@pytest.mark.parametrize(
    ("which", "network"),
    [(HYBRID, SamplerQNN), (QUANTUM, SamplerQNN), (spec(readout="expectation"), EstimatorQNN)],
)
def test_a_student_is_made_of_qiskit_machine_learnings_parts(which, network):
    student = build(which)
    assert isinstance(student.qnn, network)
    assert isinstance(student.connector, TorchConnector)
    assert student.circuit.num_clbits == 0
    assert [p.name for p in student.qnn.input_params] == student.input_names
    assert [p.name for p in student.qnn.weight_params] == student.weight_names


def test_bins_are_little_endian_and_contiguous():
    student = build(spec("quantum", qubits=3, reduction="avg_pool", sharpness=1.0), num_classes=3)
    with torch.no_grad():
        binned = student.decode(torch.eye(8)).softmax(dim=1)
    # Outcome k goes to class 3 k // 8; qubit 0 is the lowest bit, so only 6 = 011 shares 7's class.
    assert binned.argmax(dim=1).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    lowest = QuantumCircuit(2)
    lowest.x(0)
    lowest.ry(Parameter("x_000"), 1)
    lowest.ry(Parameter("w_000"), 0)
    own = make_student(
        spec("quantum", reduction="crop", readout="modulo"),
        image_shape=(1, 4, 4),
        num_classes=2,
        circuit=lowest,
    )
    with torch.no_grad():
        own.weights.zero_()
        assert own(images()).argmax(dim=1).tolist() == [1] * 5  # qubit 0 is 1: the outcome is odd


@pytest.mark.parametrize("readout", ["bins", "modulo"])
def test_at_sharpness_one_softmax_gives_back_the_binned_distribution(readout):
    student = build(spec("quantum", readout=readout, sharpness=1.0)).double()
    given = images().double()
    values = student.encode(student.features(given))
    torch.testing.assert_close(
        student(given).softmax(dim=1), student.connector(values), atol=1e-12, rtol=1e-9
    )


def test_sharpness_scales_log_probabilities_and_is_trained_where_learned():
    fixed, learned = build(spec("quantum", sharpness=3.0)), build(spec("quantum", sharpness=1.0))
    torch.testing.assert_close(fixed(images()), 3 * learned(images()), atol=1e-5, rtol=1e-5)
    assert "log_sharpness" not in dict(fixed.named_parameters())
    student = build(spec("quantum", sharpness="learned"))
    assert "log_sharpness" in dict(student.named_parameters())
    before = student.log_sharpness.item()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    torch.nn.functional.cross_entropy(student(images()), torch.arange(5) % 3).backward()
    optimizer.step()
    assert student.log_sharpness.item() != before


def test_stacked_parameters_give_what_each_student_gives_alone():
    students = [build(HYBRID, seed=seed) for seed in range(3)]
    parameters, buffers = stack_module_state(students)

    def logits(own, theirs, batch):
        return functional_call(students[0], (own, theirs), (batch,))

    together = vmap(logits, in_dims=(0, 0, None))(parameters, buffers, images())
    alone = torch.stack([student(images()) for student in students])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_seeds_choose_the_start_and_leave_global_randomness_alone():
    state = torch.random.get_rng_state()
    first, again, other = build(HYBRID, seed=3), build(HYBRID, seed=3), build(HYBRID, seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in first.named_parameters():
        assert torch.equal(value, dict(again.named_parameters())[name])
    assert not torch.equal(first.weights, other.weights)


@pytest.mark.parametrize("name", ["angle", "amplitude", "pca", "cnn", "quantum_crop", "qubit"])
def test_the_twin_has_about_as_many_parameters(name):
    student = build(SPECS[name])
    twin = build(StudentSpec(**(vars(SPECS[name]) | {"kind": "classical"})))
    hidden = twin.network[-1].in_features
    # One hidden unit more or less is the finest step there is.
    step = (twin.num_parameters - 3) / hidden if name != "cnn" else 16 + 1 + 3
    assert abs(twin.num_parameters - student.num_parameters) <= step / 2 + 3 or hidden == 1
    assert twin(images()).shape == (5, 3)


def own_circuit():
    circuit = QuantumCircuit(2)
    for qubit in range(2):
        circuit.ry(Parameter(f"x_{qubit:03d}"), qubit)
    circuit.rzz(Parameter("w_001"), 0, 1)
    circuit.rx(Parameter("w_000"), 0)
    return circuit


def test_your_own_circuit_is_run_as_it_is():
    student = build(HYBRID, circuit=own_circuit()).double()
    assert student.weight_names == ["w_000", "w_001"]
    given = images().double()
    torch.testing.assert_close(student.encode(given), student.reduction(given))
    torch.testing.assert_close(
        student(given), statevector_logits(student, given), atol=1e-12, rtol=1e-12
    )


def test_a_circuit_file_replaces_the_encoding(tmp_path):
    from qkd_qiskit.circuits.openqasm import dump_circuit

    path = tmp_path / "own.qasm"
    path.write_text(dump_circuit(own_circuit()))
    from_file = build(StudentSpec(qubits=2, circuit=str(path)))
    given = build(StudentSpec(qubits=2), circuit=own_circuit())
    torch.testing.assert_close(from_file(images()), given(images()))


@pytest.mark.parametrize("name", [*SPECS, "own circuit", "classical", "classical_pca"])
def test_a_saved_student_comes_back_bit_for_bit(name, tmp_path):
    if name == "own circuit":
        student = build(HYBRID, seed=5, circuit=own_circuit())
    elif name.startswith("classical"):
        reduction = "pca" if name.endswith("pca") else "linear"
        student = build(spec("classical", reduction=reduction), seed=5)
    else:
        student = build(SPECS[name], seed=5)
    student.save(tmp_path)
    loaded = load_student(tmp_path)
    assert type(loaded) is type(student)
    assert torch.equal(loaded(images()), student(images()))
    assert loaded.spec == student.spec
    for key, value in student.saved_tensors().items():
        assert torch.equal(loaded.saved_tensors()[key], value)
    loaded.save(tmp_path / "again")
    for path in (tmp_path / CARD_FILE, tmp_path / WEIGHTS_FILE):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


DAMAGE = {
    "no folder": lambda folder: [path.unlink() for path in folder.iterdir()],
    "no weights": lambda folder: (folder / WEIGHTS_FILE).unlink(),
    "pickle": lambda folder: torch.save({"a": torch.ones(1)}, folder / WEIGHTS_FILE),
    "cut weights": lambda folder: (folder / WEIGHTS_FILE).write_bytes(
        (folder / WEIGHTS_FILE).read_bytes()[:-3]
    ),
    "flipped bit": lambda folder: (folder / WEIGHTS_FILE).write_bytes(
        (folder / WEIGHTS_FILE).read_bytes()[:-1] + b"\x7f"
    ),
    "card is no JSON": lambda folder: (folder / CARD_FILE).write_text("{"),
    "card is a list": lambda folder: (folder / CARD_FILE).write_text("[]"),
    "card of bytes": lambda folder: (folder / CARD_FILE).write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_files_are_refused(what, tmp_path):
    build(HYBRID).save(tmp_path)
    DAMAGE[what](tmp_path)
    with pytest.raises(CheckpointError, match=str(tmp_path)) as caught:
        load_student(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_classes", 4),
        ("num_classes", "many"),
        ("num_classes", 0),
        ("num_classes", -3),
        ("image_shape", [1, 8]),
        ("image_shape", None),
        ("image_shape", [1, 0, 0]),
        ("foreign_circuit", True),
        ("student", {"qubits": 3}),
        ("student", {"nonsense": 3}),
        ("student", None),
    ],
)
def test_a_card_that_does_not_fit_the_weights_is_refused(key, value, tmp_path):
    build(HYBRID).save(tmp_path)
    card = json.loads((tmp_path / CARD_FILE).read_text())
    (tmp_path / CARD_FILE).write_text(json.dumps(card | {key: value}))
    with pytest.raises(InputError):
        load_student(tmp_path)


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (spec("quantum", encoding="amplitude", reduction="none"), "16 features"),
        (spec("quantum", qubits=1), "3 classes do not fit into the 2 outcomes"),
        (spec(encoding="amplitude", reduction="pca", qubits=5), "32 features"),
        (spec(encoding="amplitude", qubits=13), "at most 12 qubits"),
        (spec(reduction="crop", qubits=11, encoding="angle"), "not a rectangle"),
    ],
)
def test_what_does_not_fit_together_is_refused(which, message):
    with pytest.raises(CircuitError, match=message):
        build(which)


@pytest.mark.parametrize("shape", [(1, 2, 8), (3, 4, 4)])
def test_other_image_shapes(shape):
    for which in (HYBRID, QUANTUM, spec(reduction="pca")):
        student = make_student(which, image_shape=shape, num_classes=2)
        student.fit(images(30, shape=shape))
        assert student(images(shape=shape)).shape == (5, 2)


def test_a_circuit_without_weights_still_has_its_layers_trained():
    circuit = QuantumCircuit(2)
    circuit.ry(Parameter("x_000"), 0)
    circuit.ry(Parameter("x_001"), 1)
    circuit.cx(0, 1)
    student = build(HYBRID, circuit=circuit)
    assert student.weights.shape == (0,)
    student(images()).sum().backward()
    assert student.head.weight.grad.abs().sum() > 0


def test_a_dark_image_is_refused_where_it_has_no_state():
    student = build(spec("quantum", encoding="amplitude", reduction="avg_pool"))
    dark = images()
    dark[2] = 0
    with pytest.raises(QKDError, match="no quantum state"):
        student.features(dark)


def test_logits_are_finite_where_an_outcome_never_occurs():
    student = build(spec("quantum", sharpness=8.0))
    with torch.no_grad():
        logits = student.decode(torch.tensor([[1.0, 0, 0, 0]]))
    assert torch.isfinite(logits).all()
    assert logits.argmax() == 0
    assert math.isclose(logits[0, 0].item(), 0, abs_tol=1e-5)
