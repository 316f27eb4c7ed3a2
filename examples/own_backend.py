"""Evaluate a student on a backend of your own, and on a simulator of your own.

A `BackendV2` whose target describes errors is simulated with them; an `AerSimulator` runs the
circuits itself, with its own noise model.
"""

from qiskit.providers.fake_provider import GenericBackendV2
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, depolarizing_error

from qkd_qiskit import DataSpec, StudentSpec, Target, evaluate, load_data, make_student, subset

data = load_data(DataSpec(name="digits"))
student = make_student(
    StudentSpec(kind="hybrid", qubits=4, layers=1),
    image_shape=data.image_shape,
    num_classes=data.num_classes,
)
images, _ = subset(data.test, limit=20)

device = GenericBackendV2(5, coupling_map=[[0, 1], [1, 2], [2, 3], [3, 4]], seed=7)
noise = NoiseModel()
noise.add_all_qubit_quantum_error(depolarizing_error(0.05, 2), ["cx"])

for target in (
    Target.parse("exact"),
    Target.from_backend(device, shots=1000, name="my_device"),
    Target.from_backend(device, shots=None, name="my_device_without_shots"),
    Target.from_backend(AerSimulator(noise_model=noise), shots=1000, name="my_simulator"),
):
    result = evaluate(student, images, target=target)
    print(f"{result.target:30} accuracy {result.accuracy:.2f}, exact {result.exact_accuracy:.2f}")
