"""Cross-entropy with the labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of the student with the labels `(batch,)`, in nats."""
    return cross_entropy(logits, labels)
