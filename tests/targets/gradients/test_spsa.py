"""SPSA, against the gradients that its mean must be."""

import numpy as np
import pytest
import torch
from gradient_checks import DOUBLE, ideal, numbers
from qiskit.circuit import Parameter, QuantumCircuit
from torch.func import vmap

from qkd_qiskit.errors import InputError
from qkd_qiskit.targets import DeviceTarget, Target
from qkd_qiskit.targets.gradients import Cost, ParameterShiftExecutor, SPSAExecutor, spsa_gradient
from qkd_qiskit.targets.gradients.spsa import perturbation_size, rademacher
from qkd_qiskit.targets.snapshots import fake_backend


class TestSPSA:
    def test_the_mean_over_directions_is_the_gradient_of_a_quadratic(self):
        hessian = numbers(6, 6, grad=False)
        hessian = hessian @ hessian.T
        point = numbers(6, seed=1, grad=False)

        def loss(points):
            return ((points @ hessian) * points).sum(dim=1) / 2

        exact = hessian @ point
        found, mean = spsa_gradient(loss, point, directions=20_000)
        spread = exact.norm() / np.sqrt(20_000)
        assert (found - exact).abs().max() < 5 * spread
        assert mean > loss(point[None])[0]

    def test_in_one_dimension_a_quadratics_gradient_is_exact(self):
        found, mean = spsa_gradient(lambda p: 3 * p[:, 0] ** 2, torch.tensor([0.5], dtype=DOUBLE))
        torch.testing.assert_close(found, torch.tensor([3.0], dtype=DOUBLE))
        assert float(mean) == pytest.approx(3 * (0.25 + 0.04))

    def test_both_evaluations_are_one_call(self):
        calls = []

        def loss(points):
            calls.append(points)
            return points.sum(dim=1)

        spsa_gradient(loss, torch.zeros(3), perturbation=0.1)
        (points,) = calls
        assert points.shape == (2, 3)
        torch.testing.assert_close(points.abs(), torch.full((2, 3), 0.1))
        torch.testing.assert_close(points[0], -points[1])

    @pytest.mark.parametrize("name", ["exact", "fake_manila"])
    def test_the_mean_over_directions_is_a_circuits_gradient(self, ring, name):
        if name == "exact":
            target = Target.parse("exact")
        else:
            target = DeviceTarget(fake_backend(name), shots=None, num_transpilations=1)
        compiled = target.compile(ring(2, 1))
        many = 4000
        run = SPSAExecutor(target, compiled, perturbation=1e-3, decay=0.0)
        inputs, weights = numbers(1, 2), numbers(4, seed=1)
        mix = numbers(1, 4, seed=2, grad=False)
        repeated = inputs.expand(many, -1)
        loss = (run(repeated, weights) * mix).sum() / many
        found = torch.autograd.grad(loss, (inputs, weights))
        expected = torch.autograd.grad(
            (ParameterShiftExecutor(target, compiled)(inputs, weights) * mix).sum(),
            (inputs, weights),
        )
        scale = torch.cat([part.flatten() for part in expected]).norm() / np.sqrt(many)
        for mine, theirs in zip(found, expected, strict=True):
            assert (mine - theirs).abs().max() < 5 * scale
        assert run.cost == Cost(1, 1, 2 * many, 0)

    def test_forward_is_the_mean_of_the_two_points(self, ring):
        target = Target.parse("exact")
        run = SPSAExecutor(target, target.compile(ring(2, 1)))
        inputs, weights = numbers(3, 2), numbers(4, seed=1)
        found = run(inputs, weights)
        with torch.no_grad():
            plain = run(inputs, weights)
        torch.testing.assert_close(plain, ideal(ring(2, 1), inputs, weights).detach())
        assert 0 < (found - plain).abs().max() < 0.1
        assert (run.cost.calls, run.cost.steps, run.cost.circuits) == (2, 1, 9)

    def test_inputs_without_a_gradient_are_not_perturbed(self, ring):
        target = Target.parse("exact")
        seen = []
        run = SPSAExecutor(target, target.compile(ring(2, 1)))
        send = run.run
        run.run = lambda values: seen.append(values) or send(values)
        run(numbers(3, 2, grad=False), numbers(4)).sum().backward()
        plus, minus = np.split(seen[0], 2)
        assert (plus[:, 4:] == minus[:, 4:]).all()
        np.testing.assert_allclose(np.abs(plus - minus)[:, :4], 0.4)

    def test_a_population_is_one_call(self, ring):
        target = Target.parse("aer", shots=100)
        run = SPSAExecutor(target, target.compile(ring(2, 1)), seed=3)
        inputs, weights = numbers(3, 5, 2, grad=False), numbers(3, 4, seed=1)
        vmap(run)(inputs, weights).square().sum().backward()
        assert run.cost == Cost(1, 1, 30, 3000)
        with torch.no_grad():
            assert vmap(run)(inputs, weights).shape == (3, 5, 4)
        assert run.cost == Cost(2, 1, 45, 4500)
        assert weights.grad.shape == (3, 4)
        assert (weights.grad != 0).all()

    def test_a_training_goes_on_where_it_was_stopped(self, ring):
        target = Target.parse("aer", shots=100)
        compiled = target.compile(ring(2, 1))
        inputs = numbers(3, 2, grad=False)

        def train(steps, weights, cost):
            run = SPSAExecutor(target, compiled, cost=cost, seed=5)
            for _ in range(steps):
                weights = weights.detach().requires_grad_()
                run(inputs, weights)[:, 0].sum().backward()
                weights = weights - 0.1 * weights.grad
            return weights

        start = numbers(4, seed=1)
        whole = train(4, start, Cost())
        cost = Cost()
        half = train(2, start, cost)
        rest = train(2, half, Cost(calls=cost.calls, steps=cost.steps))
        torch.testing.assert_close(rest, whole, rtol=0, atol=0)

    def test_sizes_follow_spall(self):
        assert perturbation_size(0) == 0.2
        assert perturbation_size(9) == pytest.approx(0.2 / 10**0.101)

    def test_directions_are_seeded_signs(self):
        signs = rademacher(1000, seed=1, step=2)
        assert set(signs.tolist()) == {-1.0, 1.0}
        assert abs(signs.mean()) < 0.16
        assert torch.equal(signs, rademacher(1000, seed=1, step=2))
        assert not torch.equal(signs, rademacher(1000, seed=1, step=3))
        assert not torch.equal(signs, rademacher(1000, seed=2, step=2))

    def test_bad_settings_are_refused(self, ring):
        target = Target.parse("exact")
        compiled = target.compile(ring(2, 1))
        with pytest.raises(InputError, match=r"perturbation is 0\.0"):
            SPSAExecutor(target, compiled, perturbation=0.0)
        for value in (np.nan, np.inf):
            with pytest.raises(InputError, match="accepted are a number above 0"):
                SPSAExecutor(target, compiled, perturbation=value)
        with pytest.raises(InputError, match="directions 0"):
            spsa_gradient(lambda p: p.sum(1), torch.zeros(2), directions=0)
        with pytest.raises(InputError, match="give a vector"):
            spsa_gradient(lambda p: p.sum(1), torch.zeros(2, 2))
        with pytest.raises(InputError, match=r"loss returned shape \(\) for 2 points"):
            spsa_gradient(lambda p: p.sum(), torch.zeros(2))


@pytest.mark.parametrize("kind", [SPSAExecutor, ParameterShiftExecutor])
def test_an_executor_from_shots_says_so_and_counts(kind):
    target = Target.parse("aer", shots=10)
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("w"), 0)
    executor = kind(target, target.compile(circuit))
    with torch.no_grad():
        executor(None, torch.zeros(1))
    assert executor.sampled
    assert (executor.cost.calls, executor.cost.executions) == (1, 10)
