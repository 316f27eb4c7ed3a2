"""Feature maps of student and teacher, compared by their mean squared difference."""

from __future__ import annotations

from torch import Tensor


def feature_loss(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the mean square of the difference of feature maps `(batch, ...)` of one shape.

    The third term of the slides' quantum-to-classical setting, L = CE + KL + MSE(f_t, f_s); FitNets
    (arXiv 1412.6550, equation 3) have half the squared norm in its place.
    """
    return (features - teacher_features).square().mean()
