"""What a student is trained on: one function per published loss, each a mean over the batch.

Every function takes the student's logits `(batch, num_classes)` first and returns a scalar, under
`torch.func.vmap` too. A class-bin student gives `logits = gamma log p`; at gamma = 1 and
temperature 1 the softmax of these is p itself, so the same functions serve for logits and for the
binned distribution of a fully quantum student.

Losses of relations (RKD, SP, PKT) compare examples of a batch with one another, their logits taken
as points: unlike a softmax they see a constant that is added to all logits of an example. In a
batch of one they are 0, and so is their gradient. `fidelity_loss` is one of them too, and takes the
states of the student's circuit in the place of its logits.
"""

from qkd_qiskit.distillation.losses.cross_entropy import label_loss
from qkd_qiskit.distillation.losses.dist import dist_loss
from qkd_qiskit.distillation.losses.dkd import decoupled_loss
from qkd_qiskit.distillation.losses.feature_mse import feature_loss
from qkd_qiskit.distillation.losses.fidelity import fidelity_loss
from qkd_qiskit.distillation.losses.jensen_shannon import jensen_shannon_loss
from qkd_qiskit.distillation.losses.kd import distillation_loss
from qkd_qiskit.distillation.losses.label_smoothing import label_smoothing_loss
from qkd_qiskit.distillation.losses.pkt import pkt_loss
from qkd_qiskit.distillation.losses.rkd import rkd_angle_loss, rkd_distance_loss
from qkd_qiskit.distillation.losses.similarity import similarity_loss
from qkd_qiskit.distillation.losses.standardized_kd import standardized_distillation_loss

__all__ = [
    "decoupled_loss",
    "dist_loss",
    "distillation_loss",
    "feature_loss",
    "fidelity_loss",
    "jensen_shannon_loss",
    "label_loss",
    "label_smoothing_loss",
    "pkt_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "similarity_loss",
    "standardized_distillation_loss",
]
