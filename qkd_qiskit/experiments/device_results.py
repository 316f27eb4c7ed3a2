"""What a finished submission has added to a run's result, kept beside its jobs.

result.json can be made again from the run folder; what a device was, and what its jobs cost, is
found here then.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qkd_qiskit.experiments.json_codec import decode
from qkd_qiskit.experiments.run_folder import DEVICES, RunFolder, read_json, write_json
from qkd_qiskit.experiments.target_summary import DeviceJobs, TargetSummary

_FILE = "device.json"


@dataclass(frozen=True, kw_only=True)
class DeviceResult:
    """One submission's part of a result.

    Attributes:
        key: What its figures are filed under.
        target: The device that students were evaluated on, or None.
        trained_on: The jobs that they were trained by, or None.
    """

    key: str
    target: TargetSummary | None = None
    trained_on: DeviceJobs | None = None

    def save(self, folder: Path) -> None:
        """Write it into the folder of a submission."""
        write_json(folder / _FILE, {name: getattr(self, name) for name in self.__annotations__})


def device_results(run: RunFolder) -> list[DeviceResult]:
    """Return what the finished submissions of a run have added to its result.

    Raises:
        CheckpointError: A file is damaged.
    """
    paths = sorted((run.path / DEVICES).glob(f"*/{_FILE}"))
    return [decode(DeviceResult, read_json(path), where=path) for path in paths]
