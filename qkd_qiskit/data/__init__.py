"""Images and labels: sources, arrays of your own, synthetic data, splits and draws."""

from qkd_qiskit.data.splits import Data, Split, load_data

__all__ = ["Data", "Split", "load_data"]
