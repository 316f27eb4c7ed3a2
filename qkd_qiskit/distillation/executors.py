"""Where a student's circuit runs while it trains."""

from __future__ import annotations

from typing import Any

from qkd_qiskit.recipe import DistillSpec
from qkd_qiskit.recipe.training import FROM_DIRECTIONS
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.circuit_student import CircuitStudent
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.gradients import (
    BasesExecutor,
    CircuitExecutor,
    Cost,
    GuidedSPSAExecutor,
    NoisyExecutor,
    ParameterShiftExecutor,
    SeveralExecutor,
    SPSAExecutor,
)
from qkd_qiskit.targets.gradients.base import SampledExecutor


def training_executor(
    student: Student, spec: DistillSpec, *, shots: int, seed: int
) -> CircuitExecutor | None:
    """Return what runs a student's circuit while it trains; None = its connector, exactly.

    A student without a circuit of this kind has none to run.

    Args:
        student: Whose circuit.
        spec: Its gradient, train_target and shifted_weights say where and how.
        shots: Shots per circuit on a sampled target.
        seed: Seed of the target's transpiler and shots.

    Raises:
        TargetError: The target is unknown, or cannot run or differentiate the circuit.
        InputError: More shifted weights than there are.
    """
    if spec.gradient == "exact" or not isinstance(student, CircuitStudent):
        return None
    targets = [Target.parse(name, shots=shots, seed=seed) for name in spec.train_targets]
    if spec.gradient == "noisy":
        noisy = [_noisy_executor(student, target) for target in targets]
        return noisy[0] if len(noisy) == 1 else SeveralExecutor(noisy)
    return sampled_executor(student, spec, targets[0])


def _noisy_executor(student: CircuitStudent, target: Target) -> CircuitExecutor:
    bases = [NoisyExecutor(target.compile(circuit)) for circuit in student.circuits]
    return bases[0] if len(bases) == 1 else BasesExecutor(bases)


def sampled_executor(
    student: CircuitStudent, spec: DistillSpec, target: Target, *, seed: int = 0
) -> SampledExecutor | BasesExecutor[SampledExecutor]:
    """Return a student's circuit on a target, differentiated from shots.

    Args:
        student: Whose circuit.
        spec: Its gradient and the settings of it say how.
        target: Where it runs.
        seed: Seed of the directions, or of the weights that are shifted.

    Raises:
        TargetError: The target cannot run or differentiate the circuit.
        InputError: More shifted weights than there are.
    """
    cost, executors = Cost(), list[SampledExecutor]()
    for circuit in student.circuits:
        compiled, common = target.compile(circuit), dict[str, Any](seed=seed, cost=cost)
        if spec.gradient in FROM_DIRECTIONS:
            common["adaptive"] = spec.adaptive_shots
            common["directions"] = spec.directions if spec.gradient == "forward" else 1
            executors.append(SPSAExecutor(target, compiled, **common))
        elif spec.gradient == "guided_spsa":
            executors.append(GuidedSPSAExecutor(target, compiled, **common))
        else:
            shifted = spec.shifted_weights
            executors.append(ParameterShiftExecutor(target, compiled, shifted=shifted, **common))
    return executors[0] if len(executors) == 1 else BasesExecutor(executors)
