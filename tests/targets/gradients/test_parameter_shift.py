"""Parameter-shift rules and gradients from shots, against autograd and each other."""

import numpy as np
import pytest
import torch
from gradient_checks import (
    device,
    gradients,
    ideal,
    numbers,
    reuploading,
    trained_reuploading,
)
from qiskit.circuit import Parameter, QuantumCircuit
from torch.func import vmap

from qkd_qiskit.errors import InputError, TargetError
from qkd_qiskit.targets import DeviceTarget, Target
from qkd_qiskit.targets.gradients import Cost, NoisyExecutor, ParameterShiftExecutor
from qkd_qiskit.targets.gradients.parameter_shift import ShiftRule, shift_rules
from qkd_qiskit.targets.snapshots import fake_backend


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


class TestProducts:
    """Weights that multiply an input."""

    def test_what_a_weight_shares_with_its_bias_is_run_once(self):
        rules = shift_rules(trained_reuploading(), skipped=["x_000", "x_001", "x_002"])
        assert {name: rule.same_as for name, rule in rules.items() if rule.same_as} == {
            "w_000": "w_001",
            "w_002": "w_003",
            "w_005": "w_006",
            "x_001": "w_003",
        }
        assert rules["w_002"].ratio == -1
        assert rules["w_004"].multiplied == "x_002"
        assert len(rules["w_007"].shifts) == 4  # in two angles, both times x_000
        assert "x_000" not in rules  # times three weights
        assert rules["x_001"].multiplied == "w_002"

    @pytest.mark.parametrize("name", ["exact", "fake_manila"])
    def test_it_is_autograd(self, name):
        circuit = trained_reuploading()
        target = Target.parse("exact") if name == "exact" else None
        if target is None:
            target = DeviceTarget(fake_backend(name), shots=None, num_transpilations=1)
        compiled = target.compile(circuit)
        run = ParameterShiftExecutor(target, compiled)
        inputs = numbers(4, 3, grad=False)
        inputs[1, 0], inputs[2] = 0.0, 0.0  # by which no shift may be divided
        weights = numbers(9, seed=1)
        exact = NoisyExecutor(compiled) if name != "exact" else lambda x, w: ideal(circuit, x, w)
        mix = numbers(4, 4, seed=9, grad=False)
        (found,) = torch.autograd.grad((run(inputs, weights) * mix).sum(), weights)
        (expected,) = torch.autograd.grad((exact(inputs, weights) * mix).sum(), weights)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
        assert found.abs().min() > 1e-3
        # w_001, w_003, w_006 and w_008 are each in one angle, so is w_004; w_007 is in two.
        assert run.rows(4, step=0, inputs=False) == (4, 4 * (5 * 2 + 4))
        assert run.cost.circuits == 4 + 4 * (5 * 2 + 4)

    def test_an_input_in_several_products_is_refused(self):
        target = Target.parse("exact")
        run = ParameterShiftExecutor(target, target.compile(trained_reuploading()))
        with pytest.raises(TargetError, match="input 'x_000' is multiplied by a weight in more"):
            run.rows(4, step=0, inputs=True)
        inputs, weights = numbers(2, 3), numbers(9, seed=1)
        with pytest.raises(TargetError, match="or a gradient of kind spsa"):
            run(inputs, weights).square().sum().backward()


class TestParameterShift:
    @pytest.mark.parametrize("build", ["ring", "reuploading"])
    def test_it_is_autograd_on_the_exact_target(self, ring, build):
        circuit = ring(3, 2) if build == "ring" else reuploading()
        target = Target.parse("exact")
        run = ParameterShiftExecutor(target, target.compile(circuit))
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
        run, noisy = ParameterShiftExecutor(target, compiled), NoisyExecutor(compiled)
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
        run = ParameterShiftExecutor(target, compiled)
        exact = NoisyExecutor(compiled) if name != "aer" else None
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
        outcomes = ParameterShiftExecutor(target, compiled, cost=cost)
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
        run = ParameterShiftExecutor(target, target.compile(ring(2, 1)), shifted=shifted, seed=3)
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

        whole = slope(ParameterShiftExecutor(target, compiled))
        run = ParameterShiftExecutor(target, compiled, shifted=1, seed=2)
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
            ParameterShiftExecutor(target, target.compile(ring(2, 1)), shifted=shifted)

    def test_a_parameter_that_the_transpiler_drops_has_gradient_zero(self):
        circuit = QuantumCircuit(1)
        circuit.ry(Parameter("x_000"), 0)
        circuit.rz(Parameter("w_000"), 0)
        target = device("fake_manila", 50)
        run = ParameterShiftExecutor(target, target.compile(circuit))
        inputs, weights = numbers(2, 1), numbers(1)
        of_inputs, of_weights = gradients(run, inputs, weights)
        assert of_weights.tolist() == [0.0]
        assert (of_inputs != 0).all()
        assert run.cost.circuits == 2 + 2 * 2

    def test_a_population_is_one_call_and_equals_its_members(self, ring):
        target = Target.parse("exact")
        run = ParameterShiftExecutor(target, target.compile(ring(2, 1)))
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
        run = ParameterShiftExecutor(target, target.compile(ring(2, 1)))
        weights = numbers(2, 4, grad=False)
        weights[0, 1] = torch.nan
        found = vmap(run)(numbers(2, 3, 2, grad=False), weights)
        assert found[0].isnan().all()
        assert found[1].isfinite().all()

    def test_float32_and_no_gradient(self, ring):
        target = Target.parse("aer", shots=20)
        run = ParameterShiftExecutor(target, target.compile(ring(2, 1)))
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
            ParameterShiftExecutor(target, target.compile(circuit))
