"""A network of one's own around a circuit, trained in a loop of one's own from a teacher."""

import torch
from qiskit.circuit.library import n_local, z_feature_map
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN
from torch import nn

from qkd_qiskit import DataSpec, Student, TeacherSpec, evaluate, load_data, make_teacher
from qkd_qiskit.distillation.losses import distillation_loss, label_loss

data = load_data(DataSpec(name="digits", classes=[0, 1, 2, 3]))
teacher = make_teacher(TeacherSpec(epochs=20), data)
features, ansatz = z_feature_map(4, reps=1), n_local(4, "ry", "cz", reps=2)
qnn = EstimatorQNN(
    circuit=features.compose(ansatz),
    input_params=list(features.parameters),
    weight_params=list(ansatz.parameters),
    observables=[SparsePauliOp(paulis) for paulis in ("ZIII", "IZII", "IIXX", "XXII")],
    input_gradients=True,
)
torch.manual_seed(0)
front, head = [nn.Flatten(), nn.Linear(64, 4), nn.Tanh()], [nn.LayerNorm(4), nn.Linear(4, 4)]
network = nn.Sequential(*front, TorchConnector(qnn), *head)

student = Student.from_module(network, image_shape=(1, 8, 8), num_classes=4)
optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
logits = teacher.logits(data.pool.images)
for _ in range(8):
    for rows in torch.randperm(len(data.pool)).split(32):
        guess = student.train()(data.pool.images[rows])
        loss = distillation_loss(guess, logits[rows], temperature=2.0)
        loss = 0.5 * loss + 0.5 * label_loss(guess, data.pool.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
for target in ("exact", "fake_lima:exact"):
    print(f"{target}: accuracy {evaluate(student.eval(), data.test, target=target).accuracy:.3f}")
