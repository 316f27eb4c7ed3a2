"""The quanvolution layer against Qiskit's own networks; batches, patches, bit order, the cache."""

import math

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit_machine_learning.connectors import TorchConnector
from torch import nn
from torch.func import functional_call, vmap

from qkd_qiskit.circuits import quanvolution
from qkd_qiskit.circuits.filters import filter_circuit
from qkd_qiskit.circuits.quanvolution import Quanvolution
from qkd_qiskit.errors import CircuitError, InputError


def pictures(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def layer(*arguments, **options):
    return Quanvolution(*arguments, seed=3, **options).double()


def twice_used():
    """A filter of two pixels whose first input enters twice, so that nothing is interpolated."""
    circuit = QuantumCircuit(4)
    inputs = [Parameter(f"x_{number:03d}") for number in range(4)]
    for qubit, parameter in enumerate(inputs):
        circuit.ry(parameter, qubit)
    circuit.rz(Parameter("w_000"), 0)
    circuit.rx(inputs[0], 0)
    for qubit in range(3):
        circuit.cx(qubit, qubit + 1)
    circuit.ry(Parameter("w_001"), 0)
    return circuit


def test_a_filter_of_two_by_two_pixels_has_eleven_weights():
    parts = filter_circuit(4)
    assert (len(parts.input_params), len(parts.weight_params)) == (4, 11)
    assert all(filter_circuit(n).circuit.num_parameters == 4 * n - 1 for n in range(2, 10))


def test_every_weight_of_a_filter_matters():
    filters = layer()
    filters(pictures(3, 1, 4, 4)).sum().backward()
    assert bool((filters.weight.grad.abs() > 1e-6).all())


@pytest.mark.parametrize("images", [1, 24])  # below and above 81 patches
@pytest.mark.parametrize("outputs", ["one", "each"])
def test_values_and_gradients_are_those_of_qiskits_connector(images, outputs):
    filters = layer(2, outputs=outputs)
    given = pictures(images, 1, 4, 4).requires_grad_()
    found = filters(given)
    weighting = pictures(filters.channels, seed=1) - 0.5
    (found[-1, :, 1, 0] * weighting).sum().backward()  # one patch: the stock connector is slow

    patch = given.detach()[-1, 0, 2:4, 0:2].reshape(1, 4).requires_grad_()
    stocks = [TorchConnector(filters.qnn, w.detach().numpy()) for w in filters.weight]
    expected = torch.cat([stock(patch * math.pi)[0] for stock in stocks])
    (expected * weighting).sum().backward()
    of_weights = torch.stack([stock.weight.grad for stock in stocks]).double()

    torch.testing.assert_close(found[-1, :, 1, 0], expected.double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(filters.weight.grad, of_weights, rtol=0, atol=1e-6)
    of_patch = given.grad[-1, 0, 2:4, 0:2].reshape(1, 4)
    torch.testing.assert_close(of_patch, patch.grad, rtol=0, atol=1e-6)
    assert given.grad.count_nonzero() == 4


@pytest.mark.parametrize("outputs", ["one", "each"])
def test_interpolated_and_run_patch_by_patch_agree(outputs):
    fast, slow = (layer(3, outputs=outputs, interpolated=flag) for flag in (True, False))
    results = []
    for filters in (fast, slow):
        given = pictures(30, 1, 6, 6).requires_grad_()
        found = filters(given)
        (found * pictures(*found.shape, seed=2)).sum().backward()
        results.append((found, filters.weight.grad, given.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_single_precision_is_within_a_millionth():
    filters, given = Quanvolution(3, seed=3), pictures(40, 1, 28, 28)
    single = filters(given.float()).double()
    torch.testing.assert_close(single, filters.double()(given), rtol=0, atol=1e-6)


@pytest.mark.parametrize("circuit", [None, twice_used()], ids=["tree", "own"])
def test_images_and_patches_do_not_know_each_other(circuit):
    filters, given = layer(2, circuit=circuit), pictures(40, 1, 6, 6)
    whole = filters(given)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(filters(given[order]), whole[order], rtol=0, atol=1e-12)
    torch.testing.assert_close(filters(given[:1]), whole[:1], rtol=0, atol=1e-12)
    torch.testing.assert_close(filters(given[:, :, 2:4, 4:6])[..., 0, 0], whole[..., 1, 2])


def test_pixel_by_pixel_row_by_row_is_qubit_by_qubit():
    circuit = QuantumCircuit(4)
    for qubit in range(4):
        circuit.ry(Parameter(f"x_{qubit:03d}"), qubit)
    filters = layer(1, outputs="each", circuit=circuit)
    given = pictures(50, 1, 4, 4)
    expected = torch.cos(math.pi * given)
    maps = filters(given)
    for qubit in range(4):
        row, column = divmod(qubit, 2)
        torch.testing.assert_close(maps[:, qubit], expected[:, 0, row::2, column::2])
    # Outcome 2 = 0b0010: qubit 1 is in 1, all others in 0.
    outcome = torch.eye(16, dtype=torch.float64)[2:3]
    assert filters.from_probabilities(outcome).tolist() == [[1, -1, 1, 1]]


def test_maps_are_shaped_as_a_convolution_shapes_them():
    for kernel, stride, channels in ((2, 2, 1), (2, 1, 2), (3, 2, 1), (1, 1, 2)):
        given = pictures(2, channels, 7, 8)
        filters = layer(2, in_channels=channels, kernel=kernel, stride=stride)
        plain = nn.Conv2d(channels, 2, kernel, stride=stride).double()
        assert filters(given).shape == plain(given).shape
        assert filters.circuit_runs(given) == 2 * math.prod(plain(given).shape[2:]) * 2


def test_a_population_under_vmap_is_its_members_one_by_one():
    filters, given = layer(2), pictures(3, 30, 1, 4, 4)
    weights = pictures(3, 2, 11, seed=7) * 6

    weighting = pictures(30, 2, 2, 2, seed=2)

    def total(weight, images):
        maps = functional_call(filters, {"weight": weight}, (images,))
        return (maps * weighting).sum()

    found = vmap(torch.func.grad(total))(weights, given)
    for member in range(3):
        alone = torch.func.grad(total)(weights[member], given[member])
        torch.testing.assert_close(found[member], alone, rtol=0, atol=1e-11)


def test_a_filter_is_a_connector_that_the_stock_one_can_load():
    filters = layer(2)
    connector = filters.connector(1)
    stock = TorchConnector(filters.qnn)
    stock.load_state_dict(connector.state_dict())
    assert isinstance(connector, TorchConnector)
    torch.testing.assert_close(stock.weight.detach().double(), filters.weight[1].detach())
    patch = pictures(5, 4)
    torch.testing.assert_close(
        connector(math.pi * patch)[:, 0], filters(patch.reshape(5, 1, 2, 2))[:, 1, 0, 0]
    )


def test_random_filters_are_no_parameters_and_are_computed_once(tmp_path, monkeypatch):
    filters, given = layer(2, trainable=False), pictures(30, 1, 4, 4)
    assert list(filters.parameters()) == []
    assert not filters.trainable
    torch.testing.assert_close(filters.weight, layer(2).weight.detach())
    maps = filters.cached(given, cache=tmp_path)
    torch.testing.assert_close(maps, filters(given))
    with monkeypatch.context() as patch:
        patch.setattr(quanvolution.Quanvolution, "forward", lambda *_: pytest.fail("run again"))
        assert torch.equal(filters.cached(given, cache=tmp_path), maps)
    other = Quanvolution(2, seed=4, trainable=False).double()
    assert not torch.allclose(other.cached(given, cache=tmp_path), maps)


def test_a_seed_decides_and_global_random_numbers_are_left_alone():
    before = torch.random.get_rng_state()
    assert torch.equal(Quanvolution(seed=1).weight, Quanvolution(seed=1).weight)
    assert not torch.equal(Quanvolution(seed=1).weight, Quanvolution(seed=2).weight)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"shape \(2, 3, 8, 8\); give \(batch, 1, height"):
        layer()(pictures(2, 3, 8, 8))
    with pytest.raises(InputError, match="at least 2x2"):
        layer()(pictures(2, 1, 1, 8))
    with pytest.raises(CircuitError, match="each is at least 1"):
        Quanvolution(0)
    with pytest.raises(CircuitError, match="25 pixels was asked for; a patch has 2 to 12"):
        Quanvolution(kernel=5)
    with pytest.raises(CircuitError, match="takes 4 inputs and a patch has 9 pixels"):
        Quanvolution(kernel=3, circuit=filter_circuit(4).circuit)
    with pytest.raises(CircuitError, match="'all' is not accepted"):
        Quanvolution(outputs="all")
