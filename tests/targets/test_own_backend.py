"""A user's backend or sampler as a target: described noise is simulated, the rest runs itself."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Measure, Parameter
from qiskit.circuit.library import CXGate, RZGate, SXGate, XGate
from qiskit.primitives import StatevectorSampler
from qiskit.providers import BackendV2, Options
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.transpiler import InstructionProperties, QubitProperties, generate_preset_pass_manager
from qiskit.transpiler import Target as Description
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, ReadoutError, depolarizing_error

from qkd_qiskit import DataSpec, StudentSpec, evaluate, load_data, make_student, subset
from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets import DeviceTarget, SamplerTarget, Target
from qkd_qiskit.targets.snapshots import fake_backend


class Mine(BackendV2):
    """Two qubits, one of which misreads; it can run nothing."""

    def __init__(self, *, errors=True):
        super().__init__(name="mine")
        known = [QubitProperties(t1=1e-3, t2=1e-3)] * 2 if errors else None
        self._target = Description(num_qubits=2, dt=1e-9, qubit_properties=known)
        error = 0.0 if errors else None
        one = {(q,): InstructionProperties(1e-9, error) for q in range(2)}
        flips = {(q,): InstructionProperties(1e-9, (0.0, 0.2)[q]) for q in range(2)}
        self._target.add_instruction(RZGate(Parameter("a")), one)
        self._target.add_instruction(SXGate(), one)
        self._target.add_instruction(XGate(), one)
        self._target.add_instruction(CXGate(), {(0, 1): InstructionProperties(1e-9, error)})
        self._target.add_instruction(Measure(), flips if errors else dict.fromkeys(one))

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
        raise NotImplementedError("it runs nothing")


def pair():
    circuit = QuantumCircuit(2)
    circuit.ry(Parameter("x_000"), 0)
    circuit.cry(Parameter("w_000"), 0, 1)
    return circuit


VALUES = np.array([[0.3, 1.1], [2.0, 0.7], [-1.0, 2.9]])  # w_000, x_000


def ideal():
    target = Target.parse("exact")
    return target.probabilities(target.compile(pair()), VALUES)


def test_described_errors_are_simulated():
    target = Target.from_backend(Mine(), shots=None)
    assert isinstance(target, DeviceTarget)
    compiled = target.compile(pair())
    found = target.probabilities(compiled, VALUES)
    flip = np.array([[0.8, 0.2], [0.2, 0.8]])
    rows = ideal().reshape(3, 2, 2)  # row, qubit 1, qubit 0
    axis = 1 if compiled.measured == (0, 1) else 2
    expected = np.moveaxis(np.moveaxis(rows, axis, -1) @ flip, -1, axis).reshape(3, 4)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)  # relaxation in nanoseconds


def test_scale_and_mitigation_go_to_described_errors():
    assert Target.from_backend(Mine(), scale=0, readout_mitigation=True).name.startswith("mine:")
    with pytest.raises(TargetError, match="runs circuits itself"):
        Target.from_backend(AerSimulator(), scale=2)


@pytest.mark.filterwarnings("ignore:.*has no QubitProperties")  # Aer's, of a backend without T1
@pytest.mark.parametrize("name", ["aer", "aer_of_a_device", "generic"])
def test_a_backend_runs_circuits_itself(name):
    backend = {
        "aer": AerSimulator,
        "aer_of_a_device": lambda: AerSimulator.from_backend(fake_backend("fake_lagos")),
        "generic": lambda: GenericBackendV2(3, seed=1, noise_info=False),
    }[name]()
    target = Target.from_backend(backend, shots=4000, seed=1, name=name)
    assert isinstance(target, SamplerTarget)
    compiled = target.compile(pair())
    found = target.probabilities(compiled, VALUES)
    again = target.probabilities(compiled, VALUES)
    other = target.probabilities(compiled, VALUES, seed=1)
    np.testing.assert_allclose(found, ideal(), rtol=0, atol=0.2 if "device" in name else 0.04)
    np.testing.assert_array_equal(found, again)
    assert (found != other).any()
    with pytest.raises(TargetError, match="gives shots only"):
        target.exact_probabilities(compiled, VALUES)


def test_a_simulators_own_noise_is_what_acts():
    noise = NoiseModel()
    noise.add_all_qubit_quantum_error(depolarizing_error(1.0, 2), ["cx"])
    noise.add_all_qubit_readout_error(ReadoutError([[0.9, 0.1], [0.1, 0.9]]))
    circuit = QuantumCircuit(2)
    circuit.rx(Parameter("x_000"), 0)
    circuit.cx(0, 1)
    target = Target.from_backend(AerSimulator(noise_model=noise), shots=20_000)
    found = target.probabilities(target.compile(circuit), [[0.4]])
    np.testing.assert_allclose(found, [[0.25] * 4], rtol=0, atol=0.015)
    result = target.as_estimator(seed=0).run([(circuit, ["ZI", "XX"], [0.4])]).result()[0]
    assert (np.abs(result.data.evs) < 4 * result.data.stds + 1e-9).all()
    with pytest.raises(TargetError, match="precision above 0"):
        target.as_estimator(default_precision=0).run([(circuit, "ZI", [0.4])])


def test_a_sampler_and_its_pass_manager():
    backend = fake_backend("fake_manila")
    manager = generate_preset_pass_manager(2, backend=backend, seed_transpiler=0)
    device = Target.parse("fake_manila", seed=1)
    noisy = Target.from_sampler(device.as_sampler(), pass_manager=manager, shots=20_000)
    compiled = noisy.compile(pair())
    assert compiled.circuit.num_qubits == 5
    found = noisy.probabilities(compiled, VALUES)
    exact = device.exact_probabilities(device.compile(pair()), VALUES)
    np.testing.assert_allclose(found, exact, rtol=0, atol=0.05)
    assert noisy.name == "TargetSampler"
    plain = Target.from_sampler(StatevectorSampler(seed=0), shots=8000, name="statevector")
    found = plain.probabilities(plain.compile(pair()), VALUES)
    np.testing.assert_allclose(found, ideal(), rtol=0, atol=0.03)


def test_a_circuit_without_parameters_is_drawn_for_each_row():
    circuit = QuantumCircuit(1)
    circuit.h(0)
    for target in (
        Target.from_sampler(StatevectorSampler(seed=np.random.default_rng(0)), shots=100),
        Target.from_backend(AerSimulator(), shots=100),
    ):
        found = target.probabilities(target.compile(circuit), np.zeros((6, 0)))
        assert len(set(found[:, 0])) > 1


def test_students_are_evaluated_there():
    data = load_data(DataSpec(name="digits"))
    student = make_student(
        StudentSpec(kind="hybrid", qubits=3, layers=1),
        image_shape=data.image_shape,
        num_classes=data.num_classes,
    )
    images, _ = subset(data.test, limit=40)
    target = Target.from_backend(AerSimulator(), shots=4000, seed=2)
    result = evaluate(student, images, target=target)
    assert (result.target, result.shots, result.images) == ("aer_simulator", 4000, 40)
    assert abs(result.accuracy - result.exact_accuracy) <= 0.1


def test_what_is_no_target_is_refused():
    cases = [
        (lambda: Target.from_backend("fake_torino"), "backend is a str"),
        (lambda: Target.from_sampler(AerSimulator()), "accepted is a BaseSamplerV2"),
        (lambda: Target.from_backend(AerSimulator(), shots=None), "gives shots only"),
        (lambda: Target.from_backend(AerSimulator(), shots=0), "shots is 0"),
    ]
    silent = Target.from_backend(Mine(errors=False), shots=10)
    cases.append((lambda: silent.probabilities(silent.compile(pair()), VALUES), "it runs nothing"))
    for refused, words in cases:
        with pytest.raises(TargetError, match=words) as caught:
            refused()
        assert "\n" not in str(caught.value)
