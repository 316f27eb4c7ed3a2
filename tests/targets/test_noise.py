import math
from functools import cache

import numpy as np
import pytest
from qiskit.circuit import QuantumCircuit
from qiskit.providers import BackendV2, Options
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.transpiler import InstructionProperties, generate_preset_pass_manager
from qiskit_aer import AerSimulator
from qiskit_aer.library import SaveProbabilities
from qiskit_aer.noise import NoiseModel
from qiskit_aer.noise.device import basic_device_readout_errors

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets import DeviceTarget, noise
from qkd_qiskit.targets.snapshots import fake_backend


@cache
def backend(name):
    return fake_backend(name)


@cache
def whole_noise_model(name):
    return NoiseModel.from_backend(backend(name))


def exact_probabilities(circuit, noise_model):
    """Probabilities of the measured bits of a bound circuit, without sampling."""
    bare = QuantumCircuit(circuit.num_qubits, global_phase=circuit.global_phase)
    where = {}
    for instruction in circuit.data:
        qubits = [circuit.find_bit(qubit).index for qubit in instruction.qubits]
        if instruction.operation.name == "measure":
            where[circuit.find_bit(instruction.clbits[0]).index] = qubits[0]
        elif instruction.operation.name != "barrier":
            bare.append(instruction.operation, qubits)
    order = [where[bit] for bit in sorted(where)]
    bare.append(SaveProbabilities(len(order)), order)
    simulator = AerSimulator(
        method="density_matrix", noise_model=noise_model, max_parallel_threads=1
    )
    return simulator.run(bare).result().data(0)["probabilities"]


def delays(circuit, qubits):
    found = {qubit: [] for qubit in qubits}
    for instruction in circuit.data:
        if instruction.operation.name == "delay":
            qubit = circuit.find_bit(instruction.qubits[0]).index
            if qubit in found:
                found[qubit].append(instruction.operation.duration)
    return [found[qubit] for qubit in qubits]


def schedule_whole(isa, device):
    passes = generate_preset_pass_manager(
        optimization_level=0, target=device, scheduling_method="alap"
    )
    return passes.scheduling.run(isa)


@pytest.mark.parametrize(
    "name",
    [
        "fake_manila",
        pytest.param("fake_torino", marks=pytest.mark.slow),
        pytest.param("fake_sherbrooke", marks=pytest.mark.slow),
    ],
)
def test_restricted_noise_is_the_whole_devices_noise(ring, name):
    device = backend(name).target
    compiled = DeviceTarget(backend(name)).compile(ring(3, 1))
    rng = np.random.default_rng(1)
    isa = compiled.circuit.assign_parameters(
        {p: rng.uniform(-np.pi, np.pi) for p in compiled.circuit.parameters}
    )
    noisy = noise.with_noise(isa, device)
    whole = schedule_whole(isa, device)
    # Aer simulates every qubit that a delay names, 133 of them: only those in use can be kept.
    kept = whole.copy_empty_like()
    for instruction in whole.data:
        qubits = {whole.find_bit(qubit).index for qubit in instruction.qubits}
        if instruction.operation.name == "barrier" or qubits <= set(noisy.qubits):
            kept.append(instruction)
    expected = exact_probabilities(kept, whole_noise_model(name))
    restricted = exact_probabilities(noisy.circuit, noisy.noise_model)
    np.testing.assert_allclose(restricted, expected, rtol=0, atol=1e-9)
    ideal = exact_probabilities(noisy.circuit, None)
    assert np.abs(restricted - ideal).sum() > 0.005


@pytest.mark.parametrize("name", ["fake_torino", "fake_sherbrooke", "fake_manila"])
def test_used_qubits_idle_as_long_as_on_the_whole_device(ring, name):
    device = backend(name).target
    isa = DeviceTarget(backend(name)).compile(ring(3, 2)).circuit
    noisy = noise.with_noise(isa, device)
    whole = schedule_whole(isa, device)
    assert delays(noisy.circuit, range(len(noisy.qubits))) == delays(whole, noisy.qubits)
    assert sum(map(len, delays(noisy.circuit, range(len(noisy.qubits))))) > 0
    assert noise.used_qubits(whole) == noisy.qubits


@pytest.mark.parametrize("name", ["fake_torino", "fake_sherbrooke", "fake_manila"])
def test_restricted_readout_errors_are_the_devices(ring, name):
    compiled = DeviceTarget(backend(name)).compile(ring(3, 1))
    noisy = compiled.program.noisy
    whole = {
        where[0]: error for where, error in basic_device_readout_errors(target=backend(name).target)
    }
    for position, qubit in enumerate(noisy.qubits):
        mine = noisy.noise_model._local_readout_errors[(position,)]
        theirs = whole[qubit]
        np.testing.assert_array_equal(mine.probabilities, theirs.probabilities)


def test_idle_time_costs_fidelity(ring):
    isa = DeviceTarget(backend("fake_torino")).compile(ring(4, 2)).circuit
    noisy = noise.with_noise(
        isa.assign_parameters(dict.fromkeys(isa.parameters, 0.7)), backend("fake_torino").target
    )
    hurried = noisy.circuit.copy_empty_like()
    for instruction in noisy.circuit.data:
        if instruction.operation.name != "delay":
            hurried.append(instruction)
    ideal = exact_probabilities(noisy.circuit, None)
    idle = exact_probabilities(noisy.circuit, noisy.noise_model)
    without = exact_probabilities(hurried, noisy.noise_model)

    def overlap(probabilities):
        return np.sqrt(ideal * probabilities).sum()

    assert overlap(idle) < overlap(without) < 1


class Calibrated(BackendV2):
    """A snapshot whose calibration a test has changed."""

    def __init__(self, target):
        super().__init__(name="changed")
        self._target = target

    @property
    def target(self):
        return self._target

    @property
    def max_circuits(self):
        return None

    @classmethod
    def _default_options(cls):
        return Options()

    def run(self, run_input, **options):
        raise NotImplementedError


class MeasureProperties(InstructionProperties):
    """Readout errors by direction, as Aer reads them."""

    def __new__(cls, duration=None, error=None, prob_meas1_prep0=None, prob_meas0_prep1=None):
        return super().__new__(cls, duration, error)

    def __init__(self, duration=None, error=None, prob_meas1_prep0=None, prob_meas0_prep1=None):
        super().__init__(duration, error)
        self.prob_meas1_prep0 = prob_meas1_prep0
        self.prob_meas0_prep1 = prob_meas0_prep1


def changed_manila(**changes):
    """Manila's description with the properties of whole operations replaced."""
    device = noise.restrict_device(backend("fake_manila").target, range(5))
    for name, properties in changes.items():
        for where in device[name]:
            device.update_instruction_properties(name, where, properties)
    return device


def test_readout_error_direction_is_true_then_measured():
    """P(measured 0 | true 1) is large, P(measured 1 | true 0) small; not the other way round."""
    device = changed_manila(measure=MeasureProperties(4e-6, 0.2, 0.02, 0.3))
    target = DeviceTarget(Calibrated(device), shots=100_000)
    circuit = QuantumCircuit(2)
    circuit.x(1)
    compiled = target.compile(circuit)
    matrix = compiled.program.noisy.noise_model._local_readout_errors[(0,)].probabilities
    np.testing.assert_allclose(matrix, [[0.98, 0.02], [0.3, 0.7]])
    row = target.probabilities(compiled, np.empty((1, 0)))[0]
    # Qubit 0 is prepared in 0, qubit 1 in 1: outcome 0b10 with probability 0.98 * 0.7.
    np.testing.assert_allclose(row, [0.98 * 0.3, 0.02 * 0.3, 0.98 * 0.7, 0.02 * 0.7], atol=0.01)


@pytest.mark.parametrize(
    ("properties", "told"),
    [
        (InstructionProperties(duration=3e-8, error=None), "error None"),
        (InstructionProperties(duration=3e-8, error=math.nan), "error nan"),
        (InstructionProperties(duration=3e-8, error=1.0), "error 1.0"),
        (InstructionProperties(duration=None, error=1e-3), "duration None"),
        (InstructionProperties(duration=math.nan, error=1e-3), "duration nan"),
    ],
)
def test_an_uncalibrated_gate_is_one_clear_error(properties, told):
    circuit = QuantumCircuit(5, 1)
    circuit.sx(3)
    circuit.measure(3, 0)
    with pytest.raises(TargetError, match=rf"sx on qubit 3 has {told}") as caught:
        noise.with_noise(circuit, changed_manila(sx=properties))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("unknown", [None, math.nan, 0.0])
@pytest.mark.parametrize("name", ["t1", "t2"])
def test_a_qubit_without_relaxation_times_is_one_clear_error(name, unknown):
    device = changed_manila()
    described = device.qubit_properties
    setattr(described[2], name, unknown)
    device.qubit_properties = described
    used = QuantumCircuit(5, 1)
    used.sx(2)
    used.measure(2, 0)
    with pytest.raises(TargetError, match=rf"qubit 2 has no {name.upper()}"):
        noise.with_noise(used, device)
    spared = QuantumCircuit(5, 1)
    spared.sx(1)
    spared.measure(1, 0)
    assert noise.with_noise(spared, device).qubits == (1,)


def test_uncalibrated_gates_are_avoided_where_they_can_be(ring):
    device = changed_manila()
    for where, known in list(device["cx"].items()):
        if set(where) != {1, 2}:
            broken = InstructionProperties(known.duration, error=1.0)
            device.update_instruction_properties("cx", where, broken)
    target = DeviceTarget(Calibrated(device))
    assert set(target.compile(ring(2)).measured) == {1, 2}
    with pytest.raises(TargetError, match="cannot be transpiled to the calibrated part"):
        target.compile(ring(3))


def test_qubits_without_relaxation_times_are_avoided_where_they_can_be(ring):
    device = changed_manila()
    described = device.qubit_properties
    for qubit in (0, 1, 4):
        described[qubit].t1 = math.nan
    device.qubit_properties = described
    target = DeviceTarget(Calibrated(device))
    assert set(target.compile(ring(2)).measured) == {2, 3}
    with pytest.raises(TargetError, match="has 3 qubits, changed has 2 calibrated"):
        target.compile(ring(3))


def test_a_device_without_errors_is_one_clear_error(ring):
    device = changed_manila(measure=InstructionProperties(duration=1e-6, error=None))
    with pytest.raises(TargetError, match=r"measure on qubit \d has error None"):
        DeviceTarget(Calibrated(device)).compile(ring(2))


@pytest.mark.parametrize(
    "backend",
    [AerSimulator(), GenericBackendV2(3, noise_info=False), None, "fake_torino"],
    ids=["simulator", "no errors", "nothing", "a name"],
)
def test_a_device_without_noise_cannot_be_built(backend):
    with pytest.raises(TargetError, match="is no calibrated device") as caught:
        DeviceTarget(backend)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["fake_manila", "fake_sherbrooke", "fake_torino"])
def test_noise_comes_with_the_pass_manager_of_its_device(ring, name):
    """Every gate that runs is the device's own, and all but the virtual ones are noisy."""
    compiled = DeviceTarget(backend(name)).compile(ring(3, 1))
    noisy = compiled.program.noisy
    errors = noisy.noise_model._local_quantum_errors
    gates = 0
    for instruction in noisy.circuit.data:
        gate = instruction.operation.name
        where = tuple(noisy.circuit.find_bit(qubit).index for qubit in instruction.qubits)
        if gate in ("barrier", "delay"):
            continue
        assert backend(name).target.instruction_supported(
            gate, tuple(noisy.qubits[qubit] for qubit in where)
        )
        if gate not in ("rz", "measure"):
            assert where in errors[gate]
            gates += 1
    assert gates > 6
    assert set(noisy.readout) == set(range(len(noisy.qubits)))
    with pytest.raises(TypeError):
        noise.NoisyCircuit(circuit=noisy.circuit, noise_model=noisy.noise_model)


def test_an_engine_program_without_readout_or_gate_noise_is_not_made(ring):
    """The channels of a circuit name every gate that its noise model has an error for."""
    compiled = DeviceTarget(backend("fake_torino")).compile(ring(3, 1))
    channels = compiled.program.noisy.channels
    ran = {
        (
            instruction.operation.name,
            tuple(compiled.program.noisy.circuit.find_bit(q).index for q in instruction.qubits),
        )
        for instruction in compiled.program.noisy.circuit.data
        if instruction.operation.name not in ("rz", "delay", "barrier", "measure")
    }
    assert set(channels.gates) == ran
    assert set(channels.readout) == set(channels.relaxation) == {0, 1, 2}


def test_fidelity_is_the_product_over_gates_and_readout():
    device = backend("fake_manila").target
    circuit = QuantumCircuit(5, 2)
    circuit.sx(0)
    circuit.cx(0, 1)
    circuit.delay(1000, 0, unit="dt")
    circuit.measure([0, 1], [0, 1])
    errors = [
        device["sx"][(0,)].error,
        device["cx"][(0, 1)].error,
        device["measure"][(0,)].error,
        device["measure"][(1,)].error,
    ]
    expected = np.prod([1 - error for error in errors])
    assert noise.estimate_fidelity(circuit, device) == pytest.approx(expected, abs=1e-12)


def test_restricting_a_circuit_keeps_order_bits_and_barriers():
    circuit = QuantumCircuit(6, 2)
    circuit.x(4)
    circuit.delay(100, 0)
    circuit.barrier()
    circuit.cx(4, 2)
    circuit.measure([4, 2], [0, 1])
    reduced = noise.restrict_circuit(circuit, (2, 4))
    expected = QuantumCircuit(2, 2)
    expected.x(1)
    expected.barrier()
    expected.cx(1, 0)
    expected.measure([1, 0], [0, 1])
    assert noise.used_qubits(circuit) == (2, 4)
    assert reduced == expected
