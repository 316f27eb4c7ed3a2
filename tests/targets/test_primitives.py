"""V2 primitives on targets: shapes and order of bits as Qiskit's, values as Aer's."""

import logging
from functools import cache

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import ClassicalRegister, Parameter, QuantumRegister
from qiskit.circuit.library import n_local
from qiskit.primitives import (
    BaseEstimatorV2,
    BaseSamplerV2,
    StatevectorEstimator,
    StatevectorSampler,
)
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_aer import AerSimulator
from qiskit_aer.library import SaveProbabilities
from qiskit_aer.noise.device import basic_device_readout_errors
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets import DeviceTarget, Target
from qkd_qiskit.targets.measured_program import ExactProgram, draw_outcomes
from qkd_qiskit.targets.measured_targets import in_basis, is_isa
from qkd_qiskit.targets.noise import calibrated_part, with_noise
from qkd_qiskit.targets.observables import group_observables
from qkd_qiskit.targets.snapshots import fake_backend

OBSERVABLES = ["ZII", "XIZ", "YYX", {"ZZI": 0.5, "IXX": -1.5, "III": 0.25}, {"0+I": 1.0}]


@cache
def device(name, shots=4096, **options):
    return DeviceTarget(fake_backend(name), shots=shots, num_transpilations=1, **options)


@cache
def registers():
    """Three qubits, two registers, one bit of them never written, parameters out of order."""
    alpha, beta = ClassicalRegister(2, "alpha"), ClassicalRegister(10, "beta")
    circuit = QuantumCircuit(QuantumRegister(3), alpha, beta)
    circuit.h(0)
    circuit.ry(Parameter("b"), 1)
    circuit.cx(0, 2)
    circuit.rx(Parameter("a"), 2)
    circuit.cx(2, 1)
    circuit.measure([2, 0], [alpha[0], alpha[1]])
    circuit.measure(1, beta[9])
    return circuit


def gates():
    return registers().remove_final_measurements(inplace=False)


def values(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-np.pi, np.pi, (*shape, 2))


def chi_square(counts, probabilities):
    """The statistic of counts per degree of freedom, in its own standard deviations from 1."""
    total, degrees = 0.0, 0
    for row, chances in zip(counts, probabilities, strict=True):
        expected = chances * row.sum()
        rare = expected < 5
        row = np.append(row[~rare], row[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
        seen = expected > 0
        total += ((row - expected) ** 2)[seen] @ (1 / expected[seen])
        degrees += seen.sum() - 1
    return (total / degrees - 1) / np.sqrt(2 / degrees)


def counts_of(bits, size):
    outcomes = bits.array[..., 0].reshape(-1, bits.num_shots)
    return np.stack([np.bincount(row, minlength=size) for row in outcomes])


def test_results_have_the_form_of_qiskits():
    pub = (registers(), values(2, 3), 50)
    ours = Target.parse("exact").as_sampler().run([pub, registers().assign_parameters([1, 2])])
    theirs = StatevectorSampler().run([pub, registers().assign_parameters([1, 2])], shots=1024)
    for mine, other in zip(ours.result(), theirs.result(), strict=True):
        assert list(mine.data) == list(other.data)
        assert mine.data.shape == other.data.shape
        for name in mine.data:
            assert mine.data[name].shape == other.data[name].shape
            assert mine.data[name].num_bits == other.data[name].num_bits
            assert mine.data[name].num_shots == other.data[name].num_shots
            assert mine.data[name].array.shape == other.data[name].array.shape
        assert mine.metadata == other.metadata
    assert ours.result().metadata == theirs.result().metadata


@pytest.mark.parametrize("name", ["exact", "aer"])
def test_bits_are_where_qiskit_puts_them(name):
    circuit = QuantumCircuit(
        QuantumRegister(3), ClassicalRegister(2, "a"), ClassicalRegister(9, "b")
    )
    circuit.x([0, 2])
    circuit.measure([0, 1], [1, 0])
    circuit.measure(2, 10)
    ours = Target.parse(name).as_sampler().run([circuit], shots=3).result()[0]
    theirs = StatevectorSampler().run([circuit], shots=3).result()[0]
    assert ours.data.a.get_counts() == theirs.data.a.get_counts() == {"10": 3}
    assert ours.data.b.get_counts() == theirs.data.b.get_counts() == {"100000000": 3}
    assert ours.join_data().get_counts() == theirs.join_data().get_counts()


def test_registers_are_drawn_together():
    """Bits of two registers that are always equal are equal in each shot, and in no fixed order."""
    circuit = QuantumCircuit(
        QuantumRegister(2), ClassicalRegister(1, "a"), ClassicalRegister(1, "b")
    )
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure([0, 1], [0, 1])
    data = Target.parse("exact").as_sampler().run([circuit], shots=1000).result()[0].data
    np.testing.assert_array_equal(data.a.array, data.b.array)
    turns = np.diff(data.a.array[:, 0].astype(int)) != 0
    assert 400 < turns.sum() < 600


def test_the_last_measurement_into_a_bit_counts():
    circuit = QuantumCircuit(2, 1)
    circuit.x(1)
    circuit.measure(0, 0)
    circuit.measure(1, 0)
    result = Target.parse("exact").as_sampler().run([circuit], shots=5).result()[0]
    assert result.data.c.get_counts() == {"1": 5}


@pytest.mark.parametrize("name", ["exact", "fake_manila", "fake_torino", "synthetic"])
def test_shots_follow_the_exact_probabilities(name):
    target = Target.parse("exact") if name == "exact" else None
    if name == "synthetic":
        target = Target.parse("synthetic:qubits=3:p1=0.01:p2=0.05:readout=0.1:scale=1.5")
    target = target or device(name)
    circuit = gates()
    compiled = target.compile(circuit)
    measured = circuit.copy()
    measured.measure_all()
    angles = values(20)
    result = target.as_sampler(seed=3).run([(measured, angles)], shots=20_000).result()[0]
    exact = target.exact_probabilities(compiled, angles)
    assert abs(chi_square(counts_of(result.data.meas, 8), exact)) < 3
    other = target.exact_probabilities(compiled, angles + 0.1)
    assert chi_square(counts_of(result.data.meas, 8), other) > 30


@pytest.mark.parametrize("name", ["exact", "fake_manila"])
def test_no_values_no_results(name):
    target = Target.parse("exact") if name == "exact" else device(name)
    data = target.as_sampler().run([(registers(), values(0), 5)]).result()[0].data
    assert (data.alpha.shape, data.beta.shape, data.alpha.num_shots) == ((0,), (0,), 5)
    evs = target.as_estimator().run([(gates(), [["ZZI"], ["IXX"]], values(0))]).result()[0].data.evs
    assert evs.shape == (2, 0)


def test_a_reset_of_a_fresh_qubit_is_nothing_and_a_later_one_goes_to_aer():
    circuit = QuantumCircuit(2, 2)
    circuit.initialize([0, 1], 0)
    circuit.cx(0, 1)
    circuit.measure([0, 1], [0, 1])
    assert Target.parse("exact").measured_program(circuit).exact
    assert device("fake_manila").measured_program(circuit).exact
    again = QuantumCircuit(1, 1)
    again.x(0)
    again.reset(0)
    again.measure(0, 0)
    result = Target.parse("exact").as_sampler().run([circuit, again], shots=5).result()
    assert result[0].data.c.get_counts() == {"11": 5}
    assert result[1].data.c.get_counts() == {"0": 5}
    with pytest.raises(TargetError, match=r"reset on qubit .* has error None"):
        device("fake_manila").as_sampler().run([again])


def test_same_seed_same_shots_and_no_call_twice():
    def shots(seed, calls=1):
        sampler = Target.parse("exact", seed=7).as_sampler(seed=seed)
        jobs = [sampler.run([(registers(), values(2))], shots=100) for _ in range(calls)]
        return [job.result()[0].data.alpha.array for job in jobs]

    first, second = shots(5, calls=2)
    np.testing.assert_array_equal(first, shots(5)[0])
    assert (first != second).any()
    assert (first != shots(6)[0]).any()
    np.testing.assert_array_equal(shots(None)[0], shots(7)[0])
    np.testing.assert_array_equal(
        shots(np.random.default_rng(1))[0], shots(np.random.default_rng(1))[0]
    )


def test_shots_of_a_pub_come_before_those_of_the_call():
    sampler = Target.parse("aer", shots=11).as_sampler()
    pubs = [(registers(), values(1)), (registers(), values(1), 7)]
    assert [r.data.alpha.num_shots for r in sampler.run(pubs).result()] == [11, 7]
    assert [r.data.alpha.num_shots for r in sampler.run(pubs, shots=5).result()] == [5, 7]
    assert Target.parse("exact").as_sampler().default_shots == 1024
    assert Target.parse("exact").as_sampler(default_shots=9).default_shots == 9


def transpiled(name, circuit, *, layout):
    return generate_preset_pass_manager(
        optimization_level=1, backend=fake_backend(name), initial_layout=layout, seed_transpiler=0
    ).run(circuit)


def test_a_transpiled_circuit_runs_as_it_is_with_the_noise_of_its_qubits():
    target = device("fake_sherbrooke")
    counts = {}
    for layout in ([0, 1, 2], [63, 64, 65]):
        isa = transpiled("fake_sherbrooke", registers(), layout=layout)
        assert is_isa(isa, target.backend.target)
        assert not is_isa(registers(), target.backend.target)
        noisy = with_noise(isa, calibrated_part(target.backend.target))
        result = target.as_sampler(seed=1).run([(isa, values(4))], shots=40_000).result()[0]
        alpha = counts_of(result.data.alpha, 4)
        bound = [noisy.circuit.assign_parameters(row, strict=False) for row in values(4)]
        simulator = AerSimulator(method="density_matrix", noise_model=noisy.noise_model)
        theirs = simulator.run(bound, shots=40_000, seed_simulator=2).result()
        expected = np.zeros((4, 4))
        for row in range(4):
            for key, count in theirs.get_counts(row).items():
                expected[row, int(key.split()[-1], 2)] += count / 40_000
        spread = np.sqrt(2 * expected * (1 - expected) / 40_000)
        assert (np.abs(alpha / 40_000 - expected) < 4.5 * spread + 1e-4).all()
        counts[tuple(layout)] = alpha
    first, second = counts.values()
    assert np.abs(first - second).max() > 1000  # another place, another noise


def test_idle_measured_qubits_only_misread():
    """A circuit on 127 qubits, all measured: one part is simulated, the others are misread."""
    target = device("fake_sherbrooke")
    isa = transpiled("fake_sherbrooke", gates(), layout=[60, 61, 62])
    isa.measure_all()
    result = target.as_sampler(seed=1).run([(isa, values(1))], shots=20_000).result()[0]
    bits = result.data.meas
    assert bits.num_bits == 127
    ones = np.unpackbits(bits.array[0], axis=1)[:, ::-1][:, :127].mean(axis=0)
    errors = {
        qubits[0]: error.probabilities
        for qubits, error in basic_device_readout_errors(target=target.backend.target)
    }
    for qubit in (0, 1, 64, 126):
        flip = errors[qubit][0, 1]
        assert abs(ones[qubit] - flip) < 5 * np.sqrt(flip / 20_000) + 1e-9, qubit
    assert ones[[60, 61, 62]].max() > 0.1


@pytest.mark.parametrize("name", ["manila", "lima", "melbourne", "sherbrooke", "torino", "lagos"])
def test_exact_expectations_are_aers(name):
    target = device(f"fake_{name}", shots=None)
    description = target.backend.target
    isa = generate_preset_pass_manager(
        optimization_level=1, target=calibrated_part(description), seed_transpiler=0
    ).run(gates())
    observables = ObservablesArray(["XIZ", "YYX", "IZI"]).apply_layout(isa.layout)
    angles = values(2)
    # A PUB each: qubits that are measured together wait for each other.
    pubs = [(isa, observables[number], angles) for number in range(3)]
    results = target.as_estimator().run(pubs).result()
    expected = [
        aer_expectation(isa, next(iter(observables[number])), description, angles)
        for number in range(3)
    ]
    evs = [result.data.evs for result in results]
    np.testing.assert_allclose(evs, expected, rtol=0, atol=1e-9)
    assert not any(result.data.stds.any() for result in results)


def aer_expectation(isa, label, description, angles):
    """Aer's density matrix of the circuit with the change of basis, and its readout errors."""
    basis = {q: letter for q, letter in enumerate(reversed(label)) if letter != "I"}
    noisy = with_noise(in_basis(isa, basis, device=description), calibrated_part(description))
    where, bare = [], QuantumCircuit(noisy.circuit.num_qubits)
    for item in noisy.circuit.data:
        places = [noisy.circuit.find_bit(qubit).index for qubit in item.qubits]
        if item.operation.name == "measure":
            where += places
        elif item.operation.name != "barrier":
            bare.append(item.operation, places)
    bare.append(SaveProbabilities(len(where)), where)
    simulator = AerSimulator(
        method="density_matrix",
        noise_model=noisy.noise_model,
        fusion_enable=False,
    )
    weights = np.ones(1)
    for qubit in where:
        weights = np.kron(noisy.readout[qubit] @ [1.0, -1.0], weights)
    bound = [bare.assign_parameters(row, strict=False) for row in angles]
    return [simulator.run(circuit).result().data(0)["probabilities"] @ weights for circuit in bound]


def test_values_without_noise_are_the_statevectors():
    pub = (gates(), [[label] for label in OBSERVABLES[:4]], values(5))
    ours = Target.parse("exact").as_estimator().run([pub]).result()[0]
    theirs = StatevectorEstimator().run([pub]).result()[0]
    assert ours.data.evs.shape == ours.data.stds.shape == ours.data.shape == (4, 5)
    np.testing.assert_allclose(ours.data.evs, theirs.data.evs, rtol=0, atol=1e-12)
    assert ours.metadata == theirs.metadata


@pytest.mark.parametrize(
    ("observables", "shape"),
    [
        ("ZZI", (3, 4)),
        (["XII", "IYI", "IIZ", "III"], (3, 4)),
        ([["XII"], ["IYZ"], ["ZZZ"]], (3, 4)),
    ],
)
def test_observables_broadcast_against_values(observables, shape):
    pub = (gates(), observables, values(3, 4))
    ours = Target.parse("exact").as_estimator().run([pub]).result()[0].data
    theirs = StatevectorEstimator().run([pub]).result()[0].data
    assert ours.evs.shape == shape
    np.testing.assert_allclose(ours.evs, theirs.evs, rtol=0, atol=1e-12)


def test_bases_follow_the_order_of_the_terms():
    """Not that of a set, which changes from one process to the next."""
    labels = ["IIZ", "IXI", "IIX", "ZII", "XXI", "IYY"]
    observables = [dict.fromkeys(labels[:4], 0.5), dict.fromkeys(labels[2:], 0.25)]
    _, groups = group_observables(observables, num_qubits=3)
    assert [group.basis for group in groups] == [
        {0: "Z", 1: "X", 2: "Z"},
        {0: "X", 1: "X", 2: "X"},
        {0: "Y", 1: "Y"},
    ]
    assert groups[0].masks.tolist() == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]
    assert groups[0].coefficients.tolist() == [[0.5, 0.0], [0.5, 0.0], [0.5, 0.25]]
    asked = []
    target = Target.parse("exact")
    measured_program = target.measured_program

    def noted(circuit, *, basis):
        asked.append(basis)
        return measured_program(circuit, basis=basis)

    target.measured_program = noted
    target.as_estimator().run([(gates(), observables, values(1)[0])]).result()
    assert asked == [dict(group.basis) for group in groups]


def test_projectors_are_their_paulis():
    labels = [{"0+I": 1.0}, {"1-r": 2.0}, {"lII": 1.0}]
    sums = [
        SparsePauliOp(["III", "ZII", "IXI", "ZXI"], np.full(4, 0.25)),
        SparsePauliOp(
            ["III", "ZII", "IXI", "IIY", "ZXI", "ZIY", "IXY", "ZXY"],
            np.array([1, -1, -1, 1, 1, -1, -1, 1]) / 4,
        ),
        SparsePauliOp(["III", "YII"], [0.5, -0.5]),
    ]
    estimator = Target.parse("exact").as_estimator()
    point = values(1)[0]
    ours = estimator.run([(gates(), labels, point)]).result()[0].data.evs
    theirs = StatevectorEstimator().run([(gates(), sums, point)]).result()[0].data.evs
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_precision_is_the_standard_error_of_the_shots():
    target = device("fake_lagos")
    angles = np.repeat(values(1), 400, axis=0)
    pub = (gates(), [[label] for label in OBSERVABLES], angles)
    exact = target.as_estimator(default_precision=0).run([pub]).result()[0].data.evs
    estimator = target.as_estimator(default_precision=0.05, seed=2)
    result = estimator.run([pub]).result()[0]
    assert result.metadata["shots"] == 400
    assert result.metadata["target_precision"] == 0.05
    away = (result.data.evs - exact) / result.data.stds
    assert (np.abs(away.mean(axis=1)) < 3 / np.sqrt(400)).all()
    assert (np.abs(away.std(axis=1) - 1) < 0.15).all()
    assert (result.data.stds[:3] < 0.0501).all()
    finer = estimator.run([(*pub, 0.01)]).result()[0]
    assert finer.metadata["shots"] == 10_000
    assert device("fake_lagos").as_estimator().default_precision == pytest.approx(1 / 64)
    assert device("fake_lagos", shots=None).as_estimator().default_precision == 0


def student(readout):
    circuit = n_local(3, ["ry", "rz"], "cx", entanglement="linear", reps=1)
    names = list(circuit.parameters)
    common = {"circuit": circuit, "input_params": names[:3], "weight_params": names[3:]}
    common["input_gradients"] = True
    return common if readout else circuit


def test_sampler_network_of_qiskit_machine_learning():
    target = device("fake_torino")
    sampler = target.as_sampler(default_shots=100_000, seed=1)
    assert isinstance(sampler, BaseSamplerV2)
    network = SamplerQNN(**student(True), sampler=sampler)
    rng = np.random.default_rng(0)
    inputs, weights = rng.uniform(-1, 1, (6, 3)), rng.uniform(-1, 1, network.num_weights)
    forward = network.forward(inputs, weights)
    compiled = target.compile(student(False))
    columns = {p.name: number for number, p in enumerate(student(False).parameters)}
    rows = np.concatenate([inputs, np.tile(weights, (6, 1))], axis=1)
    rows = rows[:, [columns[name] for name in compiled.parameters]]
    exact = target.exact_probabilities(compiled, rows)
    assert (np.abs(forward - exact) < 5 * np.sqrt(exact / 100_000)).all()
    _, slope = network.backward(inputs[:1], weights)
    step = np.zeros_like(rows[:1])
    step[0, [columns[name] for name in compiled.parameters].index(3)] = np.pi / 2
    shift = target.exact_probabilities(compiled, rows[:1] + step)
    shift = (shift - target.exact_probabilities(compiled, rows[:1] - step)) / 2
    np.testing.assert_allclose(slope[0, :, 0], shift[0], rtol=0, atol=0.01)


def test_sampler_network_with_a_pass_manager():
    """The network measures every qubit of the device; only the circuit's are simulated."""
    target = device("fake_torino")
    manager = generate_preset_pass_manager(
        optimization_level=1, backend=target.backend, seed_transpiler=0
    )
    common = student(True)
    network = SamplerQNN(**common, sampler=target.as_sampler(seed=1), pass_manager=manager)
    forward = network.forward(np.zeros((2, 3)), np.zeros(network.num_weights))
    assert forward.shape == (2, 8)
    assert (forward[:, 0] > 0.6).all()


def test_estimator_network_of_qiskit_machine_learning():
    target = device("fake_torino")
    estimator = target.as_estimator()
    assert isinstance(estimator, BaseEstimatorV2)
    observables = [SparsePauliOp("IIZ"), SparsePauliOp("ZZI"), SparsePauliOp(["ZII"], [0.5])]
    network = EstimatorQNN(
        **student(True), estimator=estimator, observables=observables, default_precision=0
    )
    rng = np.random.default_rng(0)
    inputs, weights = rng.uniform(-1, 1, (6, 3)), rng.uniform(-1, 1, network.num_weights)
    compiled = target.compile(student(False))
    columns = {p.name: number for number, p in enumerate(student(False).parameters)}
    rows = np.concatenate([inputs, np.tile(weights, (6, 1))], axis=1)
    exact = target.exact_probabilities(
        compiled, rows[:, [columns[name] for name in compiled.parameters]]
    )
    outcomes = np.arange(8)
    first, second, third = (1 - 2 * (outcomes >> bit & 1) for bit in range(3))
    expected = exact @ np.stack([first, second * third, third / 2], axis=1)
    np.testing.assert_allclose(network.forward(inputs, weights), expected, rtol=0, atol=1e-9)


def test_wide_circuits_go_to_aer_and_the_log_says_so_once(caplog):
    circuit = QuantumCircuit(9)
    circuit.ry(Parameter("a"), 0)
    for qubit in range(8):
        circuit.cx(qubit, qubit + 1)
    circuit.measure_all()
    target = Target.parse("synthetic:qubits=9:p2=0.001")
    with caplog.at_level(logging.WARNING):
        sampler = target.as_sampler(seed=0)
        data = [
            sampler.run([(circuit, [[np.pi], [0.0]])], shots=200).result()[0].data.meas
            for _ in range(2)
        ]
    assert len([record for record in caplog.records if "Aer" in record.message]) == 1
    assert data[0].get_counts(0).get("1" * 9, 0) > 190
    assert data[0].get_counts(1).get("0" * 9, 0) > 190
    circuit.remove_final_measurements()
    with pytest.raises(TargetError, match="give a precision above 0"):
        target.as_estimator().run([(circuit, "Z" * 9, [[0.5]])], precision=0)
    run = target.as_estimator(seed=0).run([(circuit, "IIIIIIIIZ", [[0.5]])], precision=0.03)
    assert abs(run.result()[0].data.evs[0] - np.cos(0.5)) < 0.15


@pytest.mark.parametrize("name", ["exact", "fake_manila"])
def test_measurements_before_the_end_go_to_aer(name):
    circuit = QuantumCircuit(2, 2)
    circuit.x(0)
    circuit.measure(0, 0)
    circuit.cx(0, 1)
    circuit.measure(1, 1)
    target = Target.parse("exact") if name == "exact" else device(name)
    counts = target.as_sampler(seed=0).run([circuit], shots=500).result()[0].data.c.get_counts()
    assert counts["11"] > 400


def test_control_flow_runs_without_noise_only():
    circuit = QuantumCircuit(2, 2)
    circuit.x(0)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(1)
    circuit.measure(1, 1)
    result = Target.parse("exact").as_sampler().run([circuit], shots=5).result()[0]
    assert result.data.c.get_counts() == {"11": 5}
    with pytest.raises(TargetError, match=r"steered by what it measures \(if_else\)"):
        device("fake_manila").as_sampler().run([circuit])


def test_what_cannot_be_run_is_refused_in_one_line():
    target = device("fake_manila")
    measured = registers().assign_parameters([1, 2])
    wide = QuantumCircuit(6)
    wide.measure_all()
    cases = [
        (lambda: target.as_sampler().run([gates().assign_parameters([1, 2])]), "is not measured"),
        (lambda: target.as_sampler().run([wide]), "6 qubits"),
        (lambda: target.as_sampler().run([(registers(), [[np.nan, 0]])]), "not finite"),
        (lambda: target.as_sampler(default_shots=0), "default_shots is 0"),
        (lambda: target.as_sampler(seed=-1), "seed is -1"),
        (lambda: target.as_estimator(default_precision=-1), "default_precision is -1"),
        (lambda: target.as_estimator().run([(measured, "ZZZ")]), "is measured; an estimator"),
    ]
    mitigated = device("fake_manila", readout_mitigation=True)
    cases.append((lambda: mitigated.as_sampler().run([measured]), "without mitigation"))
    for refused, words in cases:
        with pytest.raises(TargetError, match=words) as caught:
            refused()
        assert "\n" not in str(caught.value)


def test_independent_parts_are_split_and_stay_exact():
    circuit = QuantumCircuit(24)
    for qubit in range(0, 24, 2):
        circuit.ry(0.3 + qubit, qubit)
        circuit.cx(qubit, qubit + 1)
    circuit.measure_all()
    program = Target.parse("exact").measured_program(circuit)
    assert isinstance(program, ExactProgram)
    assert [len(part.qubits) for part in program.parts] == [2] * 12
    masks = np.eye(24, dtype=bool)
    means = program.expectations(np.zeros((1, 0)), masks)[0]
    np.testing.assert_allclose(means, np.repeat(np.cos(0.3 + np.arange(0, 24, 2)), 2), atol=1e-12)


def test_outcomes_are_counts_of_a_multinomial_in_random_order():
    rng = np.random.default_rng(0)
    rows = np.array([[0.5, 0.25, 0.25, 0.0], [0.0, 0.0, 1.0, 0.0]])
    outcomes = draw_outcomes(rows, 10_000, rng=rng)
    assert (outcomes[1] == 2).all()
    assert not (outcomes[0] == 3).any()
    halves = [np.bincount(half, minlength=3)[:3] for half in np.split(outcomes[0], 2)]
    assert abs(chi_square(halves, rows[[0, 0], :3])) < 3
