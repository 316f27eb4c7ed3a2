import dataclasses
import math
from functools import cache

import numpy as np
import pytest
from qiskit import qasm3, transpile
from qiskit.circuit import (
    Parameter,
    ParameterVector,
    QuantumCircuit,
    QuantumRegister,
    Qubit,
)
from qiskit.quantum_info import Statevector

from qkd_qiskit.errors import CircuitError, QKDError, TargetError
from qkd_qiskit.targets import DeviceTarget, Target
from qkd_qiskit.targets.snapshots import fake_backend
from qkd_qiskit.targets.transpilation import transpile_with_seeds

NAMES = ["exact", "aer", "fake_manila", "fake_torino", "fake_manila:aer"]


@cache
def parsed(name, shots):
    return Target.parse(name, shots=shots)


def angles(compiled, batch, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-np.pi, np.pi, (batch, len(compiled.parameters)))


def by_statevector(circuit, compiled, values):
    """Reference: each row bound by name, one Qiskit state vector after the other."""
    rows = [dict(zip(compiled.parameters, row, strict=True)) for row in values]
    return np.stack([Statevector(circuit.assign_parameters(row)).probabilities() for row in rows])


def basis_state(bits):
    """Prepare the basis state with qubit i = bits[i], through entangling gates that cancel."""
    circuit = QuantumCircuit(len(bits))
    for qubit in range(len(bits)):
        circuit.cx(qubit, (qubit + 2) % len(bits))
    for qubit, bit in enumerate(bits):
        if bit:
            circuit.x(qubit)
    return circuit


class TestParse:
    @pytest.mark.parametrize(
        "name",
        ["fake_manila:aer", "fake_manila:scale=2:mitigated=measured:aer", "synthetic:qubits=2:aer"],
    )
    def test_aer_is_chosen_in_the_name(self, name):
        target = Target.parse(name)
        assert (target.name, target.simulator) == (name, "aer")
        usual = Target.parse(name.removesuffix(":aer"))
        assert (usual.simulator, usual.stream_name) == ("density", target.stream_name)
        assert usual.by_aer().name == name
        assert target.scaled(3).name.endswith(":aer")

    @pytest.mark.parametrize(
        ("name", "shots", "told"),
        [
            ("fake_manila:exact:aer", 100, "exact has no shots for Aer to draw"),
            ("fake_manila:aer", None, "Aer draws shots; give their number"),
            ("fake_manila:aer=1", 100, "option 'aer' is not known"),
            ("exact:aer", 100, "is ideal and takes no options"),
        ],
    )
    def test_aer_without_shots_is_refused(self, name, shots, told):
        with pytest.raises(TargetError, match=told):
            Target.parse(name, shots=shots)

    def test_an_unknown_simulator_is_refused(self):
        with pytest.raises(TargetError, match="simulator is 'qasm'; accepted are"):
            DeviceTarget(fake_backend("fake_manila"), simulator="qasm")

    @pytest.mark.parametrize("name", NAMES)
    def test_a_target_says_what_it_is(self, name):
        target = Target.parse(name, shots=100, seed=3)
        assert target.name == name
        assert target.seed == 3
        assert target.sampled == (name != "exact")
        assert target.shots == (100 if target.sampled else None)
        assert (target.calibration_date is None) == (name in ("exact", "aer"))

    def test_a_real_device_is_refused(self):
        with pytest.raises(TargetError, match="reached by submission") as caught:
            Target.parse("ibm_torino")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "near"),
        [("fake_torin", "fake_torino"), ("Torino", "fake_torino"), ("exakt", "exact")],
    )
    def test_an_unknown_name_lists_near_ones(self, name, near):
        with pytest.raises(TargetError, match=near) as caught:
            Target.parse(name)
        assert "qkd targets list" in str(caught.value)

    @pytest.mark.parametrize("setting", ["shots", "seed"])
    @pytest.mark.parametrize("value", [-1, math.nan, math.inf, 10.0, True, "100"])
    def test_shots_and_seed_are_checked(self, setting, value):
        with pytest.raises(TargetError, match=f"{setting} is .*; accepted are whole numbers"):
            Target.parse("aer", **{setting: value})
        with pytest.raises(TargetError, match="shots is 0; accepted are whole numbers from 1"):
            Target.parse("fake_manila", shots=0)

    @pytest.mark.parametrize("name", [None, 3, b"exact"])
    def test_a_name_is_a_text(self, name):
        with pytest.raises(TargetError, match="accepted is a name such as 'exact'"):
            Target.parse(name)

    @pytest.mark.parametrize("qubits", ["0", "1000000000", "9" * 5000, "²", "-1", "2.5", ""])
    def test_synthetic_qubits_are_checked_before_a_device_is_built(self, qubits):
        with pytest.raises(TargetError, match=r"number of qubits|a whole number from 1 to 256"):
            Target.parse(f"synthetic:qubits={qubits}:p2=0.01")


class TestCompile:
    def test_the_circuit_fits_the_device(self, ring):
        target = Target.parse("fake_torino")
        compiled = target.compile(ring(3, 1))
        device = target.backend.target
        assert all(
            device.instruction_supported(
                instruction.operation.name,
                tuple(compiled.circuit.find_bit(qubit).index for qubit in instruction.qubits),
            )
            for instruction in compiled.circuit.data
            if instruction.operation.name != "barrier"
        )
        assert compiled.num_qubits == 3
        assert len(set(compiled.layout)) == len(set(compiled.measured)) == 3
        assert compiled.two_qubit_gates == compiled.circuit.count_ops()["cz"] >= 3
        assert compiled.depth == compiled.circuit.depth()
        assert "delay" not in compiled.circuit.count_ops()
        assert 1e-6 < compiled.duration_s < 1e-4
        assert 0 < compiled.fidelity < 1

    @pytest.mark.parametrize("name", ["exact", "aer"])
    def test_a_simulator_changes_nothing(self, ring, name):
        compiled = Target.parse(name).compile(ring(3, 2))
        assert compiled.layout == compiled.measured == (0, 1, 2)
        assert compiled.two_qubit_gates == 6
        assert compiled.duration_s is None
        assert compiled.fidelity == 1.0

    def test_several_transpiler_seeds_are_tried_and_the_best_is_kept(self, ring):
        backend = fake_backend("fake_torino")
        circuit = ring(4, 2)
        many = DeviceTarget(backend, num_transpilations=10)
        tried = transpile_with_seeds(
            circuit, many._device, seeds=many._transpiler_seeds(10), name=many.name
        )
        all_counts = [isa.count_ops()["cz"] for isa in tried]
        assert many.compile(circuit).two_qubit_gates == min(all_counts)
        assert min(all_counts) < max(all_counts)

    @pytest.mark.parametrize("name", NAMES)
    def test_equal_circuits_are_compiled_once(self, ring, name):
        target = Target.parse(name)
        assert target.compile(ring(2, 1)) is target.compile(ring(2, 1))
        assert target.compile(ring(2, 1)) is not target.compile(ring(2, 2))

    def test_compiling_is_deterministic(self, ring):
        first, second = (Target.parse("fake_torino", seed=5).compile(ring(3)) for _ in range(2))
        assert qasm3.dumps(first.circuit) == qasm3.dumps(second.circuit)
        assert first.layout == second.layout

    @pytest.mark.parametrize("name", NAMES)
    def test_a_measured_circuit_is_refused(self, ring, name):
        circuit = ring(2)
        circuit.measure_all()
        with pytest.raises(TargetError, match="without measurements"):
            parsed(name, 500).compile(circuit)

    def test_a_circuit_wider_than_the_device_is_refused(self, ring):
        with pytest.raises(TargetError, match=r"has 6 qubits, fake_manila has 5"):
            Target.parse("fake_manila").compile(ring(6))

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("qubits", [0, 37, 2000])
    def test_a_circuit_of_more_outcomes_than_can_be_given_is_refused(self, name, qubits):
        with pytest.raises(TargetError, match=f"has {qubits} qubits; accepted are 1 to 36"):
            parsed(name, 500).compile(QuantumCircuit(qubits))

    @pytest.mark.parametrize("name", NAMES)
    def test_a_circuit_that_is_not_unitary_is_refused(self, name):
        circuit = QuantumCircuit(2)
        circuit.initialize([0.6, 0.8], 0)
        with pytest.raises(
            CircuitError, match="initialize in the middle of the circuit is not accepted"
        ):
            parsed(name, 500).compile(circuit)

    def test_gates_that_a_measurement_does_not_see_are_dropped(self):
        circuit = QuantumCircuit(2)
        circuit.h([0, 1])
        circuit.cz(0, 1)
        assert Target.parse("fake_torino").compile(circuit).two_qubit_gates == 0


class TestProbabilities:
    @pytest.mark.parametrize("layers", [1, 2])
    def test_exact_is_the_state_vector(self, ring, layers):
        target = Target.parse("exact")
        circuit = ring(3, layers)
        compiled = target.compile(circuit)
        values = angles(compiled, 5)
        np.testing.assert_allclose(
            target.probabilities(compiled, values),
            by_statevector(circuit, compiled, values),
            rtol=0,
            atol=1e-12,
        )

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("bits", [(1, 1, 0, 0), (1, 0, 0, 0), (0, 1, 0, 1), (0, 0, 0, 1)])
    def test_bit_i_of_an_outcome_is_logical_qubit_i(self, name, bits):
        target = parsed(name, 500)
        compiled = target.compile(basis_state(bits))
        row = target.probabilities(compiled, np.empty((1, 0)))[0]
        assert row.argmax() == sum(bit << qubit for qubit, bit in enumerate(bits))
        assert row.max() > 0.6

    def test_a_layout_that_routing_permutes_is_undone(self):
        target = parsed("fake_torino", 500)
        circuit = QuantumCircuit(4)
        for first in range(4):
            for second in range(first):
                circuit.cx(first, second)
        circuit.x(3)
        compiled = target.compile(circuit)
        assert compiled.layout != compiled.measured
        assert target.probabilities(compiled, np.empty((1, 0)))[0].argmax() == 0b1000

    @pytest.mark.parametrize("name", ["aer", "fake_torino"])
    def test_many_parameters_are_bound_by_name(self, name):
        # From 11 on, sorting names and sorting a vector's elements disagree.
        vector = ParameterVector("w", 13)
        circuit = QuantumCircuit(2)
        for index, parameter in enumerate(vector):
            circuit.ry(parameter, index % 2)
            circuit.cz(0, 1)
        target, exact = Target.parse(name, shots=20_000), Target.parse("exact")
        compiled = target.compile(circuit)
        assert compiled.parameters[:4] == ("w[0]", "w[10]", "w[11]", "w[12]")
        values = angles(compiled, 3)
        measured = target.probabilities(compiled, values)
        expected = by_statevector(circuit, compiled, values)
        np.testing.assert_allclose(
            exact.probabilities(exact.compile(circuit), values), expected, atol=1e-12
        )
        assert np.abs(measured - expected).max() < (0.02 if name == "aer" else 0.1)

    def test_a_parameter_that_the_transpiler_drops_keeps_its_column(self):
        circuit = QuantumCircuit(1)
        circuit.rz(Parameter("a"), 0)
        circuit.ry(Parameter("b"), 0)
        circuit.rz(Parameter("c"), 0)
        target = Target.parse("fake_manila", shots=5000)
        compiled = target.compile(circuit)
        assert compiled.parameters == ("a", "b", "c")
        assert "c" not in {parameter.name for parameter in compiled.circuit.parameters}
        rows = target.probabilities(compiled, [[0.1, np.pi, 5.0], [0.1, 0.0, 5.0]])
        assert rows[0, 1] > 0.9
        assert rows[1, 0] > 0.9

    def test_ideal_shots_scatter_as_a_multinomial(self, ring):
        shots, batch = 4096, 40
        target, exact = Target.parse("aer", shots=shots), Target.parse("exact")
        compiled = target.compile(ring(3, 2))
        values = angles(compiled, batch)
        expected = exact.probabilities(exact.compile(ring(3, 2)), values)
        measured = target.probabilities(compiled, values)
        np.testing.assert_allclose(measured.sum(axis=1), 1, atol=1e-12)
        chi_square = (shots * (measured - expected) ** 2 / expected).sum()
        freedom = batch * 7
        assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)

    def test_noisy_shots_scatter_about_the_noisy_probabilities(self, ring):
        target = Target.parse("fake_torino", shots=4096)
        compiled = target.compile(ring(3, 1))
        value = angles(compiled, 1)
        rows = target.probabilities(compiled, np.repeat(value, 60, axis=0))
        mean = rows.mean(axis=0)
        spread = np.sqrt(mean * (1 - mean) / 4096)
        assert (np.abs(rows - mean) < 5 * spread + 1e-9).all()
        ideal = by_statevector(ring(3, 1), compiled, value)[0]
        assert np.abs(mean - ideal).sum() > 0.01

    @pytest.mark.parametrize("name", ["aer", "fake_manila"])
    def test_the_seed_decides_the_counts(self, ring, name):
        def measure(target_seed, call):
            target = Target.parse(name, shots=1000, seed=target_seed)
            compiled = target.compile(ring(2))
            return target.probabilities(compiled, angles(compiled, 4), seed=call)

        first = measure(0, 1)
        np.testing.assert_array_equal(first, measure(0, 1))
        assert not np.array_equal(first, measure(0, 2))
        assert not np.array_equal(first, measure(1, 1))

    @pytest.mark.parametrize("name", ["aer", "fake_manila"])
    @pytest.mark.parametrize("parametrised", [True, False])
    def test_rows_of_a_batch_have_streams_of_their_own(self, ring, name, parametrised):
        target = Target.parse(name, shots=2000)
        circuit = ring(2)
        if not parametrised:
            circuit = circuit.assign_parameters(dict.fromkeys(circuit.parameters, 0.9))
        compiled = target.compile(circuit)
        values = np.full((5, len(compiled.parameters)), 0.9)
        rows = target.probabilities(compiled, values)
        assert rows.shape == (5, 4)
        assert len(np.unique(rows, axis=0)) == 5

    @pytest.mark.parametrize("name", ["aer", "fake_manila"])
    def test_counts_do_not_depend_on_the_number_of_cores(self, ring, name, monkeypatch):
        from qkd_qiskit.targets import sampling

        def measure(cores):
            monkeypatch.setattr(sampling, "_available_cores", lambda: cores)
            target = Target.parse(name, shots=500)
            compiled = target.compile(ring(2))
            return target.probabilities(compiled, angles(compiled, 6))

        np.testing.assert_array_equal(measure(1), measure(2))

    @pytest.mark.parametrize("name", ["aer", "fake_manila:aer"])
    def test_a_batch_is_one_pub(self, ring, name, monkeypatch):
        from qiskit_aer.primitives import SamplerV2

        pubs = []
        run = SamplerV2.run

        def count(self, given, **options):
            pubs.extend(given := list(given))
            return run(self, given, **options)

        monkeypatch.setattr(SamplerV2, "run", count)
        target = Target.parse(name, shots=50)
        compiled = target.compile(ring(2))
        target.probabilities(compiled, angles(compiled, 30))
        assert len(pubs) == 1

    def test_shots_of_a_call_replace_the_targets(self, ring):
        target = Target.parse("aer", shots=4096)
        compiled = target.compile(ring(2))
        rows = target.probabilities(compiled, angles(compiled, 3), shots=10)
        np.testing.assert_allclose(rows * 10, np.round(rows * 10), atol=1e-12)

    @pytest.mark.parametrize("name", ["exact", "aer", "fake_manila"])
    def test_an_empty_batch_gives_no_rows(self, ring, name):
        target = Target.parse(name)
        compiled = target.compile(ring(2))
        values = np.empty((0, len(compiled.parameters)))
        assert target.probabilities(compiled, values).shape == (0, 4)

    def test_more_than_eight_qubits_are_read_in_order(self):
        circuit = QuantumCircuit(10)
        circuit.x([0, 9])
        for name in ("exact", "aer"):
            target = Target.parse(name, shots=20)
            row = target.probabilities(target.compile(circuit), np.empty((1, 0)))[0]
            assert row[0b1000000001] == pytest.approx(1.0)

    @pytest.mark.parametrize(
        ("values", "told"),
        [
            (np.zeros(3), r"shape \(3,\)"),
            (np.zeros((2, 3)), r"accepted is \(batch, 6\)"),
            ([[np.nan] * 6], "row 0 are not finite"),
            ([["a"] * 6], "values are no numbers"),
            ([[1.0], [1.0, 2.0]], "values are no numbers"),
            ([[1j] * 6], "values are no numbers"),
        ],
    )
    def test_values_are_checked(self, ring, values, told):
        target = Target.parse("aer")
        with pytest.raises(TargetError, match=told):
            target.probabilities(target.compile(ring(2)), values)

    @pytest.mark.parametrize("name", ["aer", "fake_manila:aer"])
    def test_shots_that_do_not_fit_into_memory_are_refused(self, ring, name):
        target = Target.parse(name, shots=10**15)
        compiled = target.compile(ring(2))
        with pytest.raises(TargetError, match=r"shots on 2 bits need about .* GiB") as caught:
            target.probabilities(compiled, np.zeros((2, 6)))
        assert "\n" not in str(caught.value)
        with pytest.raises(TargetError, match="GiB are free"):
            target.probabilities(compiled, np.zeros((2, 6)), shots=10**400)

    def test_shots_of_one_stream_do_not_depend_on_the_batches(self, ring):
        target = Target.parse("fake_manila:mitigated", shots=300)
        compiled = target.compile(ring(2))
        values = angles(compiled, 12)
        whole = target.frequencies(compiled, values, rng=np.random.default_rng(1))
        for sizes in ([1] * 12, [5, 7], [4, 0, 8]):
            rng, rows = np.random.default_rng(1), np.split(values, np.cumsum(sizes)[:-1])
            parts = [target.frequencies(compiled, part, rng=rng) for part in rows]
            np.testing.assert_array_equal(np.concatenate(parts), whole)
        other = target.frequencies(compiled, values, rng=np.random.default_rng(2))
        assert (other != whole).any()
        assert target.frequencies(
            compiled, values, shots=7, rng=np.random.default_rng(1)
        ).shape == (
            12,
            4,
        )

    @pytest.mark.parametrize("name", ["exact", "aer", "fake_manila:aer", "fake_manila:exact"])
    def test_only_shots_of_known_probabilities_take_a_stream(self, ring, name):
        target = Target.parse(name)
        compiled = target.compile(ring(2))
        assert target.simulator_of(compiled) == ("aer" if ":aer" in name else None)
        with pytest.raises(TargetError, match="draws its own shots"):
            target.frequencies(compiled, angles(compiled, 2), rng=np.random.default_rng(0))

    def test_aer_draws_the_shots_of_a_wide_circuit_and_it_is_said(self, caplog):
        circuit = QuantumCircuit(9)
        circuit.x([0, 8])
        target = Target.parse("synthetic:qubits=9:readout=0.001", shots=100)
        with caplog.at_level("WARNING"):
            compiled = target.compile(circuit)
        assert "is on more than 8 qubits: Aer samples it for synthetic" in caplog.text
        assert target.simulator_of(compiled) == "aer"
        assert target.probabilities(compiled, np.empty((1, 0)))[0, 0b100000001] > 0.9
        caplog.clear()
        Target.parse("synthetic:qubits=9:aer", shots=100).compile(circuit)
        assert "Aer" not in caplog.text

    def test_shots_that_cannot_be_counted_are_refused(self, ring):
        target = Target.parse("fake_manila", shots=2**53)
        compiled = target.compile(ring(2))
        assert target.probabilities(compiled, np.zeros((1, 6))).sum() == 1
        for shots in (2**53 + 1, 10**400):
            with pytest.raises(TargetError, match=r"accepted are whole numbers up to 2\*\*53"):
                target.probabilities(compiled, np.zeros((2, 6)), shots=shots)

    def test_outcomes_that_do_not_fit_into_memory_are_refused(self):
        target = Target.parse("aer", shots=10)
        compiled = target.compile(QuantumCircuit(36))
        with pytest.raises(TargetError, match=r"36 bits need about 1,536.0 GiB"):
            target.probabilities(compiled, np.empty((1, 0)))

    @pytest.mark.parametrize("shots", [0, math.nan, 2.5])
    def test_shots_of_a_call_are_checked(self, ring, shots):
        target = Target.parse("aer")
        with pytest.raises(TargetError, match="accepted are whole numbers from 1"):
            target.probabilities(target.compile(ring(2)), np.zeros((1, 6)), shots=shots)

    def test_a_circuit_of_another_target_is_refused(self, ring):
        compiled = Target.parse("exact").compile(ring(2))
        with pytest.raises(TargetError, match="compiled for exact, not for aer"):
            Target.parse("aer").probabilities(compiled, np.zeros((1, 6)))

    def test_a_compiled_circuit_is_frozen(self, ring):
        compiled = Target.parse("exact").compile(ring(2))
        with pytest.raises(dataclasses.FrozenInstanceError):
            compiled.depth = 1


def test_a_transpiled_circuit_is_as_wide_as_its_device():
    circuit = QuantumCircuit(2)
    circuit.ry(Parameter("x"), 0)
    circuit.cx(0, 1)
    placed = transpile(circuit, coupling_map=[[0, 1], [1, 2]], initial_layout=[2, 1])
    target = parsed("exact", 1)
    compiled = target.compile(placed)
    found = target.probabilities(compiled, [[0.7]])
    np.testing.assert_allclose(found, by_statevector(placed, compiled, [[0.7]]), atol=1e-12)


def test_registers_may_share_qubits():
    qubits = [Qubit() for _ in range(3)]
    circuit = QuantumCircuit(
        QuantumRegister(bits=qubits[:2], name="a"), QuantumRegister(bits=qubits[1:], name="b")
    )
    circuit.ry(Parameter("x"), 0)
    circuit.cx(0, 2)
    target = parsed("exact", 1)
    compiled = target.compile(circuit)
    found = target.probabilities(compiled, [[0.7]])
    np.testing.assert_allclose(found, by_statevector(circuit, compiled, [[0.7]]), atol=1e-12)


@pytest.mark.parametrize(
    ("angle", "value"), [(1 / Parameter("x"), 0.0), (Parameter("x").log(), -1)]
)
@pytest.mark.parametrize("name", ["exact", "aer"])
def test_values_without_a_finite_angle_are_refused_in_one_line(name, angle, value):
    circuit = QuantumCircuit(1)
    circuit.ry(angle, 0)
    target = parsed(name, 16)
    with pytest.raises(QKDError) as caught:
        target.probabilities(target.compile(circuit), [[value]])
    assert "\n" not in str(caught.value)


def test_a_delay_that_the_device_cannot_time_is_refused_with_what_it_can():
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("x"), 0)
    circuit.delay(100, 0, "ns")
    circuit.ry(0.3, 0)
    with pytest.raises(TargetError, match="multiples of 16 dt, or leave them out"):
        parsed("fake_manila", 16).compile(circuit)
