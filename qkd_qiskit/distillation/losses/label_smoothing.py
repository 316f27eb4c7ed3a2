"""Label smoothing of Szegedy et al. (arXiv 1512.00567)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax


def label_smoothing_loss(logits: Tensor, labels: Tensor, *, smoothing: float = 0.1) -> Tensor:
    r"""Return the cross-entropy of the student with smoothed labels, in nats.

    Section 7: the label's distribution becomes
    :math:`q'(k) = (1 - \epsilon) \delta_{k, y} + \epsilon / K` over K classes, and the loss
    :math:`H(q', p) = (1 - \epsilon) H(q, p) + \epsilon H(u, p)` with u uniform. As in the paper.

    Args:
        logits: Student's logits `(batch, num_classes)`.
        labels: Labels `(batch,)`.
        smoothing: Epsilon, the share that is spread over all classes, 0 to 1.
    """
    uniform = -log_softmax(logits, dim=-1).mean()
    return (1 - smoothing) * cross_entropy(logits, labels) + smoothing * uniform
