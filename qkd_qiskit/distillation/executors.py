"""Where a student's circuit runs while it trains."""

from __future__ import annotations

from qkd_qiskit.recipe import DistillSpec
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.quantum import QuantumStudent
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.gradients import (
    CircuitExecutor,
    NoisyExecutor,
    ParameterShiftExecutor,
    SeveralExecutor,
    SPSAExecutor,
)


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
    if spec.gradient == "exact" or not isinstance(student, QuantumStudent):
        return None
    targets = [Target.parse(name, shots=shots, seed=seed) for name in spec.train_targets]
    if len(targets) > 1:
        return SeveralExecutor([NoisyExecutor(it.compile(student.circuit)) for it in targets])
    target = targets[0]
    compiled = target.compile(student.circuit)
    if spec.gradient == "noisy":
        return NoisyExecutor(compiled)
    if spec.gradient == "parameter_shift":
        return ParameterShiftExecutor(target, compiled, shifted=spec.shifted_weights)
    return SPSAExecutor(target, compiled)
