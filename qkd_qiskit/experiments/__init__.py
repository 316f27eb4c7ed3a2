"""Runs: arms, tasks, the run folder, evaluation, results and statistics."""

from qkd_qiskit.experiments.evaluation import Evaluation, evaluate, subset

__all__ = ["Evaluation", "evaluate", "subset"]
