"""Results for tests: what a run would hold, from the few things that a test is about."""

from dataclasses import replace

from qkd_qiskit.experiments.comparisons import compare_arms
from qkd_qiskit.experiments.results import (
    COMPARISONS,
    Metrics,
    Result,
    StudentSummary,
    TeacherSummary,
)
from qkd_qiskit.experiments.statistics import paired_gain
from qkd_qiskit.experiments.target_summary import CircuitCost, TargetSummary

CIRCUIT = CircuitCost(
    two_qubit_gates=17, depth=63, duration_s=None, fidelity=1.0, layout=(62, 61, 54, 60)
)


def make_result(accuracies, *, classes=("0", "1", "2"), compared=True, **changes):
    """A result with these accuracies: arm -> target -> one for each seed.

    Gains and, if asked for, comparisons follow from them; `changes` replaces any other field.
    """
    columns = [values for targets in accuracies.values() for values in targets.values()]
    seeds = tuple(range(len(columns[0])))
    targets = dict.fromkeys(name for by_target in accuracies.values() for name in by_target)
    result = Result(
        classes=tuple(classes),
        teacher=TeacherSummary(kind="mlp", accuracy=0.9, confusion=confusion(classes)),
        student=StudentSummary(qubits=4, weights=16, parameters=446, two_qubit_gates=8, depth=13),
        seeds=seeds,
        arms={
            arm: {name: metrics(values, classes=classes) for name, values in by_target.items()}
            for arm, by_target in accuracies.items()
        },
        failed={arm: {} for arm in accuracies},
        targets={name: target_of(name, accuracies) for name in targets},
        timing={"data_s": 0.2},
        versions={"qiskit": "2.1"},
        command="qkd distill --out somewhere",
    )
    result = with_gains(replace(result, **changes))
    return replace(result, comparisons=compare_arms(result)) if compared else result


def with_gains(result):
    """The result with the gains of its accuracies."""
    gains = {name: {} for name in COMPARISONS}
    for name, arms in COMPARISONS.items():
        for target in result.targets if set(arms) <= set(result.arms) else ():
            rows = result.kept_rows(*arms, target=target)
            pair = [result.accuracies(arm, target, rows) for arm in arms]
            gains[name][target] = paired_gain(*pair)
    return replace(result, **gains)


def metrics(accuracy, *, exact=None, shots=None, images=500, classes=("0", "1", "2")):
    """Metrics of an arm on a target, from its accuracies."""
    count = len(accuracy)
    return Metrics(
        accuracy=tuple(accuracy),
        exact_accuracy=tuple(accuracy if exact is None else exact),
        agreement=(0.6,) * count,
        divergence=(0.25,) * count,
        calibration_error=(0.1,) * count,
        images=(images,) * count,
        shots=(shots,) * count,
        confusion=(confusion(classes),) * count,
    )


def target_of(name, accuracies):
    """A target as a run describes it, from its name; only seeds with an accuracy are evaluated."""
    columns = [by_target[name] for by_target in accuracies.values()]
    evaluated = tuple(seed for seed, values in enumerate(zip(*columns, strict=True)) if any(values))
    seeds = None if len(evaluated) == len(columns[0]) else evaluated
    if name == "exact":
        return TargetSummary(shots=None, seeds=seeds)
    shots = int(name.partition("@")[2] or 4096)
    if not name.startswith("fake"):
        return TargetSummary(shots=shots, seeds=seeds, circuit=CIRCUIT)
    return TargetSummary(
        shots=shots,
        seeds=seeds,
        calibration_date="2025-02-26",
        options={"scale": 1.0, "readout_mitigation": False},
        circuit=replace(CIRCUIT, duration_s=3.756e-06, fidelity=0.89),
    )


def confusion(classes):
    """Counts, row = label."""
    size = len(classes)
    return [[8 if row == column else 1 for column in range(size)] for row in range(size)]
