"""Give a stock network of qiskit-machine-learning the noise of a device.

The sampler is a Qiskit V2 primitive: exact probabilities under the noise of fake_torino, and shots
drawn from them. Any program that takes a sampler takes it.
"""

import numpy as np
from qiskit.circuit.library import n_local, z_feature_map
from qiskit_machine_learning.neural_networks import SamplerQNN

from qkd_qiskit import Target

features = z_feature_map(3, reps=1)
ansatz = n_local(3, "ry", "cx", reps=2)
circuit = features.compose(ansatz)


def parity(outcome: int) -> int:
    return outcome.bit_count() % 2


def network(target: str) -> SamplerQNN:
    return SamplerQNN(
        circuit=circuit,
        sampler=Target.parse(target, shots=20_000, seed=1).as_sampler(),
        input_params=list(features.parameters),
        weight_params=list(ansatz.parameters),
        interpret=parity,
        output_shape=2,
    )


rng = np.random.default_rng(0)
images, weights = rng.uniform(0, 1, (4, 3)), rng.uniform(-1, 1, ansatz.num_parameters)
for name in ("exact", "fake_torino", "fake_torino:scale=4"):
    print(f"{name:20}", network(name).forward(images, weights)[:, 1].round(3))
