"""Exact gradients through a device's noise, against Aer and parameter shifts."""

import numpy as np
import pytest
import torch
from aer_reference import aer_probabilities
from gradient_checks import device, numbers
from torch.func import vmap

from qkd_qiskit.errors import InputError, TargetError
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.gradients import NoisyExecutor


class TestNoisy:
    @pytest.mark.parametrize("name", ["fake_manila", "fake_sherbrooke", "fake_torino"])
    def test_gradients_are_parameter_shifts_on_aer(self, ring, name):
        compiled = device(name).compile(ring(3, 1))
        run = NoisyExecutor(compiled)
        inputs, weights = numbers(1, 3), numbers(6, seed=1)
        mix = numbers(1, 8, seed=2, grad=False)
        found = torch.cat(
            [
                part.flatten()
                for part in torch.autograd.grad(
                    (run(inputs, weights) * mix).sum(), (inputs, weights)
                )
            ]
        ).numpy()
        assert compiled.parameters == run.weights + run.inputs
        base = torch.cat((weights, inputs[0])).detach().numpy()
        shifts = np.concatenate((np.eye(9), -np.eye(9))) * np.pi / 2
        plus, minus = np.split(aer_probabilities(compiled, base + shifts), 2)
        slopes = (plus - minus) / 2 @ mix[0].numpy()
        expected = np.concatenate((slopes[6:], slopes[:6]))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)

    def test_values_are_the_targets(self, ring):
        target = device("fake_torino")
        compiled = target.compile(ring(3, 1))
        inputs, weights = numbers(2, 3), numbers(6, seed=1)
        values = torch.cat((weights.expand(2, -1), inputs), dim=1).detach().numpy()
        np.testing.assert_allclose(
            NoisyExecutor(compiled)(inputs, weights).detach().numpy(),
            target.exact_probabilities(compiled, values),
            rtol=0,
            atol=1e-12,
        )

    def test_a_population_is_its_members(self, ring):
        run = NoisyExecutor(device("fake_manila").compile(ring(2, 1)))
        inputs, weights = numbers(4, 3, 2), numbers(4, 4, seed=1)
        stacked = vmap(run)(inputs, weights)
        for member in range(4):
            torch.testing.assert_close(stacked[member], run(inputs[member], weights[member]))

    def test_it_takes_float32_and_inputs_by_name(self, ring):
        compiled = device("fake_manila").compile(ring(2, 1))
        run = NoisyExecutor(compiled, inputs=["w_001", "x_000"])
        assert run.weights == ("w_000", "w_002", "w_003", "x_001")
        found = run(torch.zeros(3, 2), torch.zeros(4))
        assert found.shape == (3, 4)
        assert found.dtype == torch.float32

    def test_a_target_without_noise_is_refused(self, ring):
        with pytest.raises(TargetError, match="exact has no noise"):
            NoisyExecutor(Target.parse("exact").compile(ring(2)))

    def test_shapes_are_checked(self, ring):
        run = NoisyExecutor(device("fake_manila").compile(ring(2, 1)))
        with pytest.raises(InputError, match=r"inputs have shape \(3,\); give \(batch, 2\)"):
            run(torch.zeros(3), torch.zeros(4))
        with pytest.raises(InputError, match=r"weights have shape \(3,\); give \(4,\)"):
            run(torch.zeros(3, 2), torch.zeros(3))


def test_an_exact_executor_says_that_nothing_is_sampled(ring):
    executor = NoisyExecutor(device("fake_manila").compile(ring(2, 1)))
    assert not executor.sampled
    assert executor.cost is None
