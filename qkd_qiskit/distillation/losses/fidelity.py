"""Fidelities between states as relations, after QRKD of Liu et al. (arXiv 2508.13054)."""

from __future__ import annotations

from torch import Tensor

from qkd_qiskit.distillation.losses.points import distinct


def fidelity_loss(states: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    r"""Return the mean squared difference of the fidelities between examples.

    :math:`K^s_{ij} = |\langle \psi_i | \psi_j \rangle|^2` of the student's states, and
    :math:`(K^t_{ij} - K^s_{ij})^2` over distinct pairs, the teacher's states being the roots of its
    softened outputs: :math:`K^t_{ij} = (\sum_k \sqrt{p_{ik} p_{jk}})^2`,
    :math:`p_i = \mathrm{softmax}(t_i / T)`.

    Deviations: in the paper both networks are classical, and one fixed circuit makes states of the
    features of either; here they are the states that the student computes with, so that its
    encoding learns. The teacher has logits alone, hence its states above. The mean over pairs, not
    their sum; 0 in a batch of one.

    Args:
        states: The student's, normalised `(batch, 2^n)`, real or complex; a unitary that is the
            same for all of them changes nothing.
        teacher_logits: `(batch, num_classes)`.
        temperature: T, softens the teacher.
    """
    overlaps = states @ states.mH
    own = (overlaps * overlaps.conj()).real if overlaps.is_complex() else overlaps.square()
    roots = (teacher_logits / temperature).softmax(dim=-1).sqrt()
    error = (own - (roots @ roots.mT).square()).square() * distinct(own)
    return error.sum() / max(1, len(own) * (len(own) - 1))
