"""The students of arXiv:2311.13810 (version 1), re-implemented to be run under control.

A study of that paper's claim needs hundreds of its runs, each of ten thousand steps of one image.
`student` says in torch and Qiskit what its student is, `kernel` takes the steps in machine code,
`training` makes one run of it and `cells` holds the published figures. `benchmarks/paper.py` runs
the study.
"""

from paper_v1.cells import CELLS, Cell, PublishedGain
from paper_v1.data import PublishedData, published_data
from paper_v1.losses import published_loss, teacher_only_term, zero_weight_term
from paper_v1.student import PublishedStudent, published_circuit
from paper_v1.training import Figures, Setting, train

__all__ = [
    "CELLS",
    "Cell",
    "Figures",
    "PublishedData",
    "PublishedGain",
    "PublishedStudent",
    "Setting",
    "published_circuit",
    "published_data",
    "published_loss",
    "teacher_only_term",
    "train",
    "zero_weight_term",
]
