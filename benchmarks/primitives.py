"""Time our sampler against Aer's on a noisy device, and hold both primitives to Aer.

    python benchmarks/primitives.py

- **Time**: 200 images of the digits through an amplitude-encoding student of 4 qubits, 4,096 shots
  each, on fake_torino: one PUB of the same transpiled circuit for each sampler. Aer is timed twice:
  as its users call it (`SamplerV2.from_backend(FakeTorino())`, the noise model of 133 qubits), and
  at its best (circuit and noise model cut down to the qubits in use, one thread, density matrix).
  Contenders run in turns in one process; times are CPU time of the process, medians over turns; a
  ratio is the ratio of medians.
- **Shots**: chi-square per degree of freedom of our shots against the exact probabilities, and
  against Aer's shots; its distance from 1 in its own standard deviation, sqrt(2 / degrees).
- **Expectation values**: largest difference at precision 0 from Aer's density matrix, readout
  errors included, over four Pauli strings and two observables of several terms, on six devices.
  fake_fez is left out: Aer drops error terms below 1e-10 without giving their share to the others,
  which there comes to 2e-9.

Writes primitives.csv and primitives_expectations.csv under benchmarks/results/.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from peers import RESULTS, show, write
from qiskit import QuantumCircuit
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_aer import AerSimulator
from qiskit_aer.library import SaveProbabilities
from qiskit_aer.primitives import SamplerV2

from qkd_qiskit import StudentSpec, Target, load_data, make_student
from qkd_qiskit.experiments.simulator_check import parameter_values
from qkd_qiskit.recipe import DataSpec
from qkd_qiskit.students.quantum import QuantumStudent
from qkd_qiskit.targets import DeviceTarget
from qkd_qiskit.targets.measured_targets import in_basis
from qkd_qiskit.targets.noise import calibrated_part, with_noise
from qkd_qiskit.targets.observables import group_observables

ROWS, SHOTS, TURNS = 200, 4096, 5
DEVICES = ("manila", "lima", "melbourne", "sherbrooke", "torino", "lagos")
OBSERVABLES = (
    "ZIII",
    "XXII",
    "IYZX",
    "YYYY",
    {"ZZII": 0.5, "IXXI": -1.5, "IIYZ": 0.25},
    {"XYZI": 1.0, "IIII": 0.3, "ZZZZ": -0.7},
)


def student_task() -> tuple[QuantumStudent, np.ndarray]:
    """Return an amplitude-encoding student of 4 qubits and the images of its test set."""
    data = load_data(DataSpec(name="digits"))
    spec = StudentSpec(kind="hybrid", encoding="amplitude", qubits=4, layers=2)
    student = make_student(spec, image_shape=data.image_shape, num_classes=data.num_classes)
    assert isinstance(student, QuantumStudent)
    return student, data.test.images[:ROWS]


def as_pub(circuit: QuantumCircuit, names: tuple[str, ...], values: np.ndarray) -> tuple[Any, ...]:
    """Return the PUB of a transpiled circuit, which may have lost parameters."""
    live = [parameter.name for parameter in circuit.parameters]
    return circuit, {tuple(live): values[:, [names.index(name) for name in live]]}


def chi_square(first: np.ndarray, second: np.ndarray) -> tuple[float, float, int]:
    """Return the statistic of counts (rows, outcomes) of equally many shots per degree, sigmas.

    Outcomes that came fewer than 10 times in both together are one outcome of their row.
    """
    total, degrees = 0.0, 0
    for a, b in zip(first, second, strict=True):
        rare = a + b < 10
        a = np.append(a[~rare], a[rare].sum())
        b = np.append(b[~rare], b[rare].sum())
        seen = a + b > 0
        total += float((((a - b) ** 2)[seen] / (a + b)[seen]).sum())
        degrees += int(seen.sum()) - 1
    return total / degrees, (total / degrees - 1) / np.sqrt(2 / degrees), degrees


def fit_to(counts: np.ndarray, probabilities: np.ndarray) -> tuple[float, float, int]:
    """Return the statistic of counts (rows, outcomes) against probabilities; as `chi_square`."""
    total, degrees = 0.0, 0
    for row, expected in zip(
        counts, probabilities * counts.sum(axis=1, keepdims=True), strict=True
    ):
        rare = expected < 5
        row = np.append(row[~rare], row[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
        seen = expected > 0
        total += float(((row - expected) ** 2)[seen] @ (1 / expected[seen]))
        degrees += int(seen.sum()) - 1
    return total / degrees, (total / degrees - 1) / np.sqrt(2 / degrees), degrees


def counts_of(result: Any, bits: int = 4) -> np.ndarray:
    """Return counts (rows, 2**bits) of a result's register `meas`."""
    outcomes = result[0].data.meas.array[..., 0].astype(int)
    return np.stack([np.bincount(row, minlength=2**bits) for row in outcomes])


def compare_samplers() -> list[dict[str, Any]]:
    """Return CPU seconds, ratios and agreement of the samplers."""
    student, images = student_task()
    target = Target.parse("fake_torino", shots=SHOTS)
    assert isinstance(target, DeviceTarget)
    compiled = target.compile(student.circuit)
    values = parameter_values(student, images, names=compiled.parameters)
    noisy = compiled.program.noisy
    small = AerSimulator(
        method="density_matrix", noise_model=noisy.noise_model, max_parallel_threads=1
    )
    whole = as_pub(compiled.circuit, compiled.parameters, values)
    cut = as_pub(noisy.circuit, compiled.parameters, values)
    ours = target.as_sampler(seed=1)
    aer = SamplerV2.from_backend(AerSimulator.from_backend(target.backend), seed=1)
    best = SamplerV2.from_backend(small, seed=1)
    runs: dict[str, Callable[[], Any]] = {
        "TargetSampler": lambda: ours.run([whole], shots=SHOTS).result(),
        "Aer, cut to the used qubits": lambda: best.run([cut], shots=SHOTS).result(),
        "Aer, as its users call it": lambda: aer.run([whole], shots=SHOTS).result(),
    }
    results = {name: run() for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TURNS):
        for name, run in runs.items():
            begin = time.process_time()
            run()
            seconds[name].append(time.process_time() - begin)
    middle = {name: statistics.median(found) for name, found in seconds.items()}
    mine = counts_of(results["TargetSampler"])
    agreement = {
        "TargetSampler": fit_to(mine, target.exact_probabilities(compiled, values)),
        "Aer, cut to the used qubits": chi_square(
            mine, counts_of(results["Aer, cut to the used qubits"])
        ),
    }
    rows = []
    for name, found in middle.items():
        ratio, sigmas, degrees = agreement.get(name, (None, None, None))
        rows.append(
            {
                "sampler": name,
                "cpu_ms": round(1e3 * found, 2),
                "times_ours": round(found / middle["TargetSampler"], 1),
                "chi2_per_degree": ratio,
                "sigmas_from_1": None if sigmas is None else float(sigmas),
                "degrees": degrees,
            }
        )
    return rows


def aer_expectations(
    isa: QuantumCircuit, observables: list[Any], device: Any, values: np.ndarray
) -> np.ndarray:
    """Return expectation values (observables, rows) by Aer's density matrix.

    Args:
        isa: transpiled circuit without measurements.
        observables: coefficients by label, laid out to the device.
        device: description of the device.
        values: rows of parameter values in the circuit's order.
    """
    constants, groups = group_observables(observables, num_qubits=isa.num_qubits)
    total = np.tile(constants[:, None], len(values))
    for group in groups:
        noisy = with_noise(in_basis(isa, group.basis, device=device), calibrated_part(device))
        sources, bare = {}, QuantumCircuit(noisy.circuit.num_qubits)
        for item in noisy.circuit.data:
            places = [noisy.circuit.find_bit(qubit).index for qubit in item.qubits]
            if item.operation.name == "measure":
                sources[noisy.circuit.find_bit(item.clbits[0]).index] = places[0]
            elif item.operation.name != "barrier":
                bare.append(item.operation, places)
        bare.append(SaveProbabilities(len(sources)), list(sources.values()))
        simulator = AerSimulator(
            method="density_matrix", noise_model=noisy.noise_model, fusion_enable=False
        )
        errors = noisy.readout
        strings = np.ones((len(group.masks), 1))
        for bit, qubit in sources.items():
            signs = np.where(group.masks[:, [bit]], [1.0, -1.0], 1.0)
            signs = signs @ errors.get(qubit, np.eye(2)).T
            strings = (signs[:, :, None] * strings[:, None, :]).reshape(len(strings), -1)
        for row, point in enumerate(values):
            known = dict(zip((p.name for p in isa.parameters), point, strict=True))
            bound = bare.assign_parameters({p: known[p.name] for p in bare.parameters})
            probabilities = simulator.run(bound).result().data(0)["probabilities"]
            total[:, row] += (strings @ probabilities) @ group.coefficients
    return total


def compare_expectations() -> list[dict[str, Any]]:
    """Return the largest difference of exact expectation values on each device."""
    student, images = student_task()
    rows = []
    for name in DEVICES:
        target = Target.parse(f"fake_{name}:exact")
        assert isinstance(target, DeviceTarget)
        device = target.backend.target
        isa = generate_preset_pass_manager(
            optimization_level=3, target=calibrated_part(device), seed_transpiler=0
        ).run(student.circuit)
        names = tuple(parameter.name for parameter in isa.parameters)
        values = parameter_values(student, images[:3], names=names)
        observables = ObservablesArray(list(OBSERVABLES)).apply_layout(isa.layout)
        pub = (isa, observables.reshape(-1, 1), values)
        ours = target.as_estimator().run([pub]).result()[0].data.evs
        listed = [observables[index] for index in range(len(OBSERVABLES))]
        theirs = aer_expectations(isa, listed, device, values)
        difference = float(np.abs(ours - theirs).max())
        rows.append(
            {"device": name, "values": ours.size, "largest_difference": f"{difference:.1e}"}
        )
    return rows


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name, rows in (
        ("primitives.csv", compare_samplers()),
        ("primitives_expectations.csv", compare_expectations()),
    ):
        for row in rows:
            show(row)
        write(RESULTS / name, rows)


if __name__ == "__main__":
    main()
