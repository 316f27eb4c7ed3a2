"""What a run is shown as: an HTML page, figures and tables."""

from qkd_qiskit.report.report import write_report

__all__ = ["write_report"]
