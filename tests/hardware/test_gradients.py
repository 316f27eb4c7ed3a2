"""Gradients through noise and from shots, against Aer, autograd and each other."""

from functools import cache

import numpy as np
import pytest
import torch
from aer_reference import aer_probabilities
from qiskit.circuit import Parameter, QuantumCircuit
from torch.func import vmap

from qkd_qiskit.engine import Program, probabilities
from qkd_qiskit.errors import InputError, TargetError
from qkd_qiskit.hardware import DeviceTarget, Target
from qkd_qiskit.hardware.gradients import (
    Cost,
    noisy_outcomes,
    parameter_shift,
    spsa,
    spsa_gradient,
)
from qkd_qiskit.hardware.gradients.shifts import ShiftRule, shift_rules
from qkd_qiskit.hardware.gradients.spsa import perturbation_size, rademacher, step_size
from qkd_qiskit.hardware.snapshots import fake_backend

DOUBLE = torch.float64


@cache
def device(name, shots=4096):
    return DeviceTarget(fake_backend(name), shots=shots, num_transpilations=1)


def reuploading():
    """Inputs that enter twice, weights with coefficients, and a merged angle."""
    circuit = QuantumCircuit(2)
    x = [Parameter(f"x_{i:03d}") for i in range(2)]
    w = [Parameter(f"w_{i:03d}") for i in range(5)]
    for layer in range(2):
        for qubit in range(2):
            circuit.ry(x[qubit], qubit)
            circuit.rz(2 * w[layer] + x[qubit], qubit)
        circuit.crx(w[2 + layer], 0, 1)
    circuit.rx(-0.5 * w[4], 0)
    return circuit


def numbers(*shape, seed=0, grad=True):
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
    return made.requires_grad_(grad)


def ideal(circuit, inputs, weights):
    return probabilities(Program.from_circuit(circuit), inputs, weights)


def gradients(run, inputs, weights, *, seed=9):
    found = run(inputs, weights)
    mix = numbers(*found.shape, seed=seed, grad=False)
    return torch.autograd.grad((found * mix).sum(), (inputs, weights))


class TestNoisy:
    @pytest.mark.parametrize("name", ["fake_manila", "fake_sherbrooke", "fake_torino"])
    def test_gradients_are_parameter_shifts_on_aer(self, ring, name):
        compiled = device(name).compile(ring(3, 1))
        run = noisy_outcomes(compiled)
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
            noisy_outcomes(compiled)(inputs, weights).detach().numpy(),
            target.exact_probabilities(compiled, values),
            rtol=0,
            atol=1e-12,
        )

    def test_a_population_is_its_members(self, ring):
        run = noisy_outcomes(device("fake_manila").compile(ring(2, 1)))
        inputs, weights = numbers(4, 3, 2), numbers(4, 4, seed=1)
        stacked = vmap(run)(inputs, weights)
        for member in range(4):
            torch.testing.assert_close(stacked[member], run(inputs[member], weights[member]))

    def test_it_takes_float32_and_inputs_by_name(self, ring):
        compiled = device("fake_manila").compile(ring(2, 1))
        run = noisy_outcomes(compiled, inputs=["w_001", "x_000"])
        assert run.weights == ("w_000", "w_002", "w_003", "x_001")
        found = run(torch.zeros(3, 2), torch.zeros(4))
        assert found.shape == (3, 4)
        assert found.dtype == torch.float32

    def test_a_target_without_noise_is_refused(self, ring):
        with pytest.raises(TargetError, match="exact has no noise"):
            noisy_outcomes(Target.parse("exact").compile(ring(2)))

    def test_shapes_are_checked(self, ring):
        run = noisy_outcomes(device("fake_manila").compile(ring(2, 1)))
        with pytest.raises(InputError, match=r"inputs have shape \(3,\); give \(batch, 2\)"):
            run(torch.zeros(3), torch.zeros(4))
        with pytest.raises(InputError, match=r"weights have shape \(3,\); give \(4,\)"):
            run(torch.zeros(3, 2), torch.zeros(3))


class TestRules:
    @pytest.mark.parametrize(("count", "spacing"), [(1, 1.0), (2, 0.5), (3, 1.0), (5, 2.0)])
    def test_a_rule_differentiates_its_fourier_series(self, count, spacing):
        rng = np.random.default_rng(count)
        a, b = rng.normal(size=(2, count))
        k = spacing * np.arange(1, count + 1)
        rule = ShiftRule.of(count, spacing=spacing)

        def series(x):
            return 0.3 + np.cos(np.outer(x, k)) @ a + np.sin(np.outer(x, k)) @ b

        x = 0.7
        expected = (-a * k * np.sin(k * x) + b * k * np.cos(k * x)).sum()
        assert rule.coefficients @ series(x + rule.shifts) == pytest.approx(expected, abs=1e-11)

    def test_one_rotation_takes_two_circuits_at_a_quarter_turn(self):
        rule = ShiftRule.of(1)
        np.testing.assert_allclose(rule.shifts, [np.pi / 2, -np.pi / 2])
        np.testing.assert_allclose(rule.coefficients, [0.5, -0.5])

    def test_frequencies_follow_occurrences_and_coefficients(self):
        rules = shift_rules(reuploading())
        counts = {name: len(rule.shifts) for name, rule in rules.items()}
        # x_000 enters four angles; w_002 a controlled rotation (frequencies 1/2 and 1); w_000 the
        # double angle on two qubits; w_004 once, at half the angle.
        assert counts["x_000"] == 8
        assert counts["w_002"] == counts["w_000"] == 4
        assert counts["w_004"] == 2
        assert np.abs(rules["w_004"].shifts).max() == pytest.approx(np.pi)

    def test_what_has_no_rule_is_refused(self):
        w = Parameter("w_000")
        for angle, told in ((w * w, "nonlinearly"), (w.sin(), "nonlinearly")):
            circuit = QuantumCircuit(1)
            circuit.rx(angle, 0)
            with pytest.raises(TargetError, match=told):
                shift_rules(circuit)
        circuit = QuantumCircuit(2)
        circuit.cu(w, 0.1, 0.2, 0.3, 0, 1)
        with pytest.raises(TargetError, match="enters gate 'cu', which has no shift rule"):
            shift_rules(circuit)
        circuit = QuantumCircuit(1)
        circuit.rx(w, 0)
        circuit.ry(np.sqrt(2) * w, 0)
        with pytest.raises(TargetError, match="no common measure"):
            shift_rules(circuit)


class TestParameterShift:
    @pytest.mark.parametrize("build", ["ring", "reuploading"])
    def test_it_is_autograd_on_the_exact_target(self, ring, build):
        circuit = ring(3, 2) if build == "ring" else reuploading()
        target = Target.parse("exact")
        run = parameter_shift(target, target.compile(circuit))
        inputs = numbers(3, len(run.inputs))
        weights = numbers(len(run.weights), seed=1)
        found = gradients(run, inputs, weights)
        expected = gradients(lambda x, w: ideal(circuit, x, w), inputs, weights)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
        assert run.cost.executions == 0

    @pytest.mark.parametrize("name", ["fake_manila", "fake_torino"])
    @pytest.mark.parametrize("build", ["ring", "reuploading"])
    def test_it_is_autograd_through_a_devices_noise(self, ring, build, name):
        target = DeviceTarget(fake_backend(name), shots=None, num_transpilations=1)
        compiled = target.compile(ring(3, 1) if build == "ring" else reuploading())
        run, noisy = parameter_shift(target, compiled), noisy_outcomes(compiled)
        inputs = numbers(2, len(run.inputs))
        weights = numbers(len(run.weights), seed=1)
        found = gradients(run, inputs, weights)
        expected = gradients(noisy, inputs, weights)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)

    @pytest.mark.parametrize("name", ["aer", "fake_manila"])
    def test_from_shots_it_scatters_about_the_truth(self, ring, name):
        shots = 2000
        target = Target.parse(name, shots=shots)
        compiled = target.compile(ring(2, 1))
        run = parameter_shift(target, compiled)
        exact = noisy_outcomes(compiled) if name != "aer" else None
        inputs, weights = numbers(20, 2), numbers(4, seed=1)
        found = gradients(run, inputs, weights)
        if exact is None:
            expected = gradients(lambda x, w: ideal(ring(2, 1), x, w), inputs, weights)
        else:
            expected = gradients(exact, inputs, weights)
        mix = numbers(20, 4, seed=9, grad=False)
        # A slope is half the difference of two means of `mix`, each of variance <= max(mix**2).
        bound = (mix.abs().max(dim=1).values ** 2 / (2 * shots)).sqrt()
        assert ((found[0] - expected[0]).abs() < 5 * bound[:, None]).all()
        assert ((found[1] - expected[1]).abs() < 5 * (bound**2).sum().sqrt()).all()
        assert not torch.equal(found[1], expected[1])

    def test_backward_is_one_call_and_is_counted(self, ring, monkeypatch):
        target, cost = Target.parse("aer", shots=10), Cost()
        compiled = target.compile(ring(2, 1))
        seeds = []
        run = target.probabilities

        def count(*given, **options):
            seeds.append(options["seed"])
            return run(*given, **options)

        monkeypatch.setattr(target, "probabilities", count)
        outcomes = parameter_shift(target, compiled, cost=cost)
        inputs, weights = numbers(5, 2, grad=False), numbers(4)
        outcomes(inputs, weights).square().sum().backward()
        live = len(outcomes.rules) - 2  # inputs take no gradient, dropped weights need no circuit
        assert seeds == [0, 1]
        assert cost == Cost(2, 1, 5 + 5 * 2 * live, 10 * (5 + 5 * 2 * live))
        assert inputs.grad is None

    @pytest.mark.parametrize("shifted", [None, 2])
    @pytest.mark.parametrize("trained", [False, True])
    def test_the_rows_of_a_step_are_known_before_it(self, ring, monkeypatch, shifted, trained):
        target = Target.parse("aer", shots=10)
        run = parameter_shift(target, target.compile(ring(2, 1)), shifted=shifted, seed=3)
        rows, inner = [], target.probabilities

        def count(compiled, values, **options):
            rows.append(len(values))
            return inner(compiled, values, **options)

        monkeypatch.setattr(target, "probabilities", count)
        for step in range(4):
            run(numbers(5, 2, grad=trained), numbers(4)).square().sum().backward()
            assert tuple(rows) == run.rows(5, step=step, inputs=trained)
            rows.clear()

    def test_the_mean_over_random_subsets_is_the_gradient(self, ring):
        target = Target.parse("exact")
        compiled = target.compile(ring(2, 1))
        inputs, weights = numbers(2, 2, grad=False), numbers(4, seed=1)
        mix = numbers(2, 4, seed=9, grad=False)

        def slope(run):
            return torch.autograd.grad((run(inputs, weights) * mix).sum(), weights)[0]

        whole = slope(parameter_shift(target, compiled))
        run = parameter_shift(target, compiled, shifted=1, seed=2)
        draws = torch.stack([slope(run) for _ in range(200)])
        assert ((draws != 0).sum(dim=1) <= 1).all()
        chosen = [run.drawn(step)[0] for step in range(200)]
        for column, name in enumerate(run.weights):
            part = draws[[row for row, drawn in enumerate(chosen) if drawn == name], column]
            torch.testing.assert_close(part, (4 * whole[column]).expand(len(part)))
            assert 25 < len(part) < 75

    @pytest.mark.parametrize("shifted", [0, 5])
    def test_as_many_weights_are_shifted_as_there_are(self, ring, shifted):
        target = Target.parse("exact")
        with pytest.raises(InputError, match="the circuit has 4 weights"):
            parameter_shift(target, target.compile(ring(2, 1)), shifted=shifted)

    def test_a_parameter_that_the_transpiler_drops_has_gradient_zero(self):
        circuit = QuantumCircuit(1)
        circuit.ry(Parameter("x_000"), 0)
        circuit.rz(Parameter("w_000"), 0)
        target = device("fake_manila", 50)
        run = parameter_shift(target, target.compile(circuit))
        inputs, weights = numbers(2, 1), numbers(1)
        of_inputs, of_weights = gradients(run, inputs, weights)
        assert of_weights.tolist() == [0.0]
        assert (of_inputs != 0).all()
        assert run.cost.circuits == 2 + 2 * 2

    def test_a_population_is_one_call_and_equals_its_members(self, ring):
        target = Target.parse("exact")
        run = parameter_shift(target, target.compile(ring(2, 1)))
        inputs, weights = numbers(3, 5, 2), numbers(3, 4, seed=1)
        mix = numbers(3, 5, 4, seed=2, grad=False)
        stacked = torch.autograd.grad((vmap(run)(inputs, weights) * mix).sum(), (inputs, weights))
        assert run.cost.calls == 2
        for member in range(3):
            found = run(inputs[member], weights[member])
            alone = torch.autograd.grad((found * mix[member]).sum(), (inputs, weights))
            torch.testing.assert_close(stacked[0][member], alone[0][member])
            torch.testing.assert_close(stacked[1][member], alone[1][member])

    def test_a_member_that_is_not_finite_leaves_the_others_alone(self, ring):
        target = Target.parse("exact")
        run = parameter_shift(target, target.compile(ring(2, 1)))
        weights = numbers(2, 4, grad=False)
        weights[0, 1] = torch.nan
        found = vmap(run)(numbers(2, 3, 2, grad=False), weights)
        assert found[0].isnan().all()
        assert found[1].isfinite().all()

    def test_float32_and_no_gradient(self, ring):
        target = Target.parse("aer", shots=20)
        run = parameter_shift(target, target.compile(ring(2, 1)))
        weights = torch.zeros(4, requires_grad=True)
        with torch.no_grad():
            assert run(torch.zeros(2, 2), weights).dtype == torch.float32
        run(torch.zeros(2, 2), weights).square().sum().backward()
        assert weights.grad.dtype == torch.float32

    def test_a_parameter_without_a_rule_is_refused(self):
        circuit = QuantumCircuit(1)
        w = Parameter("w_000")
        circuit.rx(w * w, 0)
        target = Target.parse("exact")
        with pytest.raises(TargetError, match="nonlinearly"):
            parameter_shift(target, target.compile(circuit))


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
        run = spsa(target, compiled, perturbation=1e-3, decay=0.0)
        inputs, weights = numbers(1, 2), numbers(4, seed=1)
        mix = numbers(1, 4, seed=2, grad=False)
        repeated = inputs.expand(many, -1)
        loss = (run(repeated, weights) * mix).sum() / many
        found = torch.autograd.grad(loss, (inputs, weights))
        expected = torch.autograd.grad(
            (parameter_shift(target, compiled)(inputs, weights) * mix).sum(), (inputs, weights)
        )
        scale = torch.cat([part.flatten() for part in expected]).norm() / np.sqrt(many)
        for mine, theirs in zip(found, expected, strict=True):
            assert (mine - theirs).abs().max() < 5 * scale
        assert run.cost == Cost(1, 1, 2 * many, 0)

    def test_forward_is_the_mean_of_the_two_points(self, ring):
        target = Target.parse("exact")
        run = spsa(target, target.compile(ring(2, 1)))
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
        run = spsa(target, target.compile(ring(2, 1)))
        send = run.run
        run.run = lambda values: seen.append(values) or send(values)
        run(numbers(3, 2, grad=False), numbers(4)).sum().backward()
        plus, minus = np.split(seen[0], 2)
        assert (plus[:, 4:] == minus[:, 4:]).all()
        np.testing.assert_allclose(np.abs(plus - minus)[:, :4], 0.4)

    def test_a_population_is_one_call(self, ring):
        target = Target.parse("aer", shots=100)
        run = spsa(target, target.compile(ring(2, 1)), seed=3)
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
            run = spsa(target, compiled, cost=cost, seed=5)
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
        assert step_size(0, first=0.3, steps=100) == pytest.approx(0.3)
        ratio = step_size(50, first=1, steps=100) / step_size(0, first=1, steps=100)
        assert ratio == pytest.approx((11 / 61) ** 0.602)

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
            spsa(target, compiled, perturbation=0.0)
        with pytest.raises(InputError, match="directions 0"):
            spsa_gradient(lambda p: p.sum(1), torch.zeros(2), directions=0)
        with pytest.raises(InputError, match="give a vector"):
            spsa_gradient(lambda p: p.sum(1), torch.zeros(2, 2))
        with pytest.raises(InputError, match=r"loss returned shape \(\) for 2 points"):
            spsa_gradient(lambda p: p.sum(), torch.zeros(2))
