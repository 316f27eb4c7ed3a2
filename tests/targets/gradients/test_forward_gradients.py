"""Forward gradients and guided SPSA, against the gradients that their means must be."""

import numpy as np
import pytest
import torch
from gradient_checks import gradients, numbers
from torch.func import vmap

from qkd_qiskit.errors import InputError
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.gradients import (
    Cost,
    GuidedSPSAExecutor,
    ParameterShiftExecutor,
    SPSAExecutor,
)
from qkd_qiskit.targets.gradients.guided_spsa import damped


@pytest.fixture
def compiled(ring):
    target = Target.parse("exact")
    return target, target.compile(ring(2, 1))


def of_one_sample(run, inputs, weights, mix, *, many):
    """The mean of a loss's gradients over so many samples that are the same."""
    loss = (run(inputs.expand(many, -1), weights) * mix).sum() / many
    return torch.autograd.grad(loss, (inputs, weights))


class TestForward:
    def test_one_direction_is_spsa_to_the_bit(self, compiled):
        inputs, weights = numbers(3, 2), numbers(4, seed=1)
        first, second = (
            gradients(SPSAExecutor(*compiled, seed=4, **more), inputs, weights)
            for more in ({}, {"directions": 1})
        )
        for mine, theirs in zip(first, second, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0)

    def test_the_scatter_falls_with_the_directions(self, compiled):
        inputs, weights, mix = numbers(1, 2), numbers(4, seed=1), numbers(1, 4, seed=2, grad=False)
        exact = torch.autograd.grad(
            (ParameterShiftExecutor(*compiled)(inputs, weights) * mix).sum(), weights
        )[0]
        scatter = {}
        for directions in (1, 4, 16):
            errors = []
            run = SPSAExecutor(*compiled, directions=directions, perturbation=1e-3, decay=0.0)
            for _ in range(300):
                (found,) = torch.autograd.grad((run(inputs, weights) * mix).sum(), weights)
                errors.append(float((found - exact).square().sum()))
            scatter[directions] = np.mean(errors)
            assert run.cost == Cost(300, 300, 600 * directions, 0)
            assert run.rows(1, step=0, inputs=True) == (2 * directions,)
        assert scatter[1] / scatter[4] == pytest.approx(4, rel=0.25)
        assert scatter[4] / scatter[16] == pytest.approx(4, rel=0.25)

    def test_its_mean_is_the_gradient(self, compiled):
        inputs, weights, mix = numbers(1, 2), numbers(4, seed=1), numbers(1, 4, seed=2, grad=False)
        expected = of_one_sample(ParameterShiftExecutor(*compiled), inputs, weights, mix, many=1)
        run = SPSAExecutor(*compiled, directions=3, perturbation=1e-3, decay=0.0)
        found = of_one_sample(run, inputs, weights, mix, many=3000)
        scale = torch.cat([part.flatten() for part in expected]).norm() / np.sqrt(9000)
        for mine, theirs in zip(found, expected, strict=True):
            assert (mine - theirs).abs().max() < 6 * scale

    def test_a_population_is_one_call(self, ring):
        target = Target.parse("aer", shots=100)
        run = SPSAExecutor(target, target.compile(ring(2, 1)), directions=3)
        inputs, weights = numbers(3, 5, 2, grad=False), numbers(3, 4, seed=1)
        vmap(run)(inputs, weights).square().sum().backward()
        assert run.cost == Cost(1, 1, 90, 9000)
        assert (weights.grad != 0).all()

    def test_no_direction_is_refused(self, compiled):
        with pytest.raises(InputError, match="directions is 0"):
            SPSAExecutor(*compiled, directions=0)


class TestAdaptiveShots:
    def test_shots_follow_what_they_are_worth(self, ring):
        target = Target.parse("aer", shots=4096)
        run = SPSAExecutor(target, target.compile(ring(2, 1)), adaptive=True)
        inputs, weights = numbers(3, 20, 2, grad=False), numbers(3, 4, seed=1)
        shots = []
        for _ in range(6):
            shots.append(run.step_shots)
            vmap(run)(inputs, weights).square().sum().backward()
        assert shots[0] == 256
        assert all(16 <= it <= 4096 for it in shots)
        assert shots[-1] < 256  # many rows: what a shot costs counts, the job's overhead does not
        assert run.cost.executions == sum(120 * it for it in shots)

    def test_a_training_goes_on_with_the_same(self, ring):
        target = Target.parse("aer", shots=1000)
        compiled = target.compile(ring(2, 1))
        inputs = numbers(6, 2, grad=False)

        def train(steps, weights, cost):
            run = SPSAExecutor(target, compiled, cost=cost, adaptive=True)
            for _ in range(steps):
                weights = weights.detach().requires_grad_()
                run(inputs, weights)[:, 0].sum().backward()
                weights = weights - 0.1 * weights.grad
            return weights

        start, cost = numbers(4, seed=1), Cost()
        whole = train(4, start, Cost())
        half = train(2, start, cost)
        assert cost.counts["shots"] == cost.shots
        torch.testing.assert_close(train(2, half, Cost(**cost.counts)), whole, rtol=0, atol=0)

    def test_without_them_no_count_of_shots_is_kept(self, compiled):
        run = SPSAExecutor(*compiled, adaptive=True)  # probabilities are exact there
        assert not run.adaptive
        assert "shots" not in run.cost.counts


class TestGuided:
    def test_all_samples_shifted_is_the_parameter_shift_rule(self, compiled):
        inputs, weights = numbers(3, 2), numbers(4, seed=1)
        found = gradients(GuidedSPSAExecutor(*compiled, share=1.0), inputs, weights)
        expected = gradients(ParameterShiftExecutor(*compiled), inputs, weights)
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs)

    def test_rows_are_those_that_run_and_one_call(self, ring):
        target = Target.parse("aer", shots=100)
        run = GuidedSPSAExecutor(target, target.compile(ring(2, 1)))
        inputs, weights = numbers(4, 8, 2, grad=False), numbers(4, 4, seed=1)
        vmap(run)(inputs, weights).square().sum().backward()
        (rows,) = run.rows(32, step=0, inputs=False)
        assert rows == 4 * (1 + 2 * 4) + 2 * 28
        assert run.cost == Cost(1, 1, rows, 100 * rows)
        with torch.no_grad():
            assert vmap(run)(inputs, weights).shape == (4, 8, 4)
        assert (weights.grad != 0).all()

    def test_samples_are_chosen_anew_in_each_step(self, compiled):
        run = GuidedSPSAExecutor(*compiled, seed=3)
        first, again, other = (run.chosen(40, step=step)[0].tolist() for step in (0, 0, 1))
        assert first == again != other
        assert len(first) == 5
        assert len(run.chosen(1, step=0)[0]) == 1

    def test_its_direction_is_that_of_the_gradient(self, compiled):
        inputs, weights, mix = numbers(1, 2), numbers(4, seed=1), numbers(1, 4, seed=2, grad=False)
        exact = torch.cat(
            [
                part.flatten()
                for part in of_one_sample(
                    ParameterShiftExecutor(*compiled), inputs, weights, mix, many=1
                )
            ]
        )
        run = GuidedSPSAExecutor(*compiled, perturbation=1e-3, decay=0.0)
        found = of_one_sample(run, inputs, weights, mix, many=4000)
        mine = torch.cat([part.flatten() for part in found])
        assert torch.cosine_similarity(mine, exact, dim=0) > 0.99
        # SPSA's slopes are sqrt(parameters) as long as the gradient, and damped by that.
        share = run.share + (1 - run.share) / np.sqrt(len(exact))
        assert float(mine.norm() / exact.norm()) == pytest.approx(share, rel=0.05)

    def test_inputs_without_a_gradient_are_not_moved(self, compiled):
        run, seen = GuidedSPSAExecutor(*compiled, share=0.5), []
        send = run.run
        run.run = lambda values: seen.append(values) or send(values)
        given = numbers(4, 2, grad=False)
        run(given, numbers(4)).sum().backward()
        assert {tuple(row) for row in seen[0][:, 4:]} == {tuple(row) for row in given.numpy()}

    def test_what_guides_is_not_damped_and_short_ones_are_not_stretched(self):
        slopes = np.array([[3.0, 0.0], [0.0, 6.0], [8.0, 0.0]])
        guides = np.array([True, False, False])
        found = damped(slopes, guides)
        np.testing.assert_array_equal(found[0], slopes[0])
        assert np.sqrt((found[1:] ** 2).sum(axis=1).mean()) == pytest.approx(3.0)
        np.testing.assert_array_equal(damped(slopes, ~guides), slopes)

    def test_a_share_out_of_range(self, compiled):
        for share in (0.0, 1.5):
            with pytest.raises(InputError, match="give a number above 0, at most 1"):
                GuidedSPSAExecutor(*compiled, share=share)
