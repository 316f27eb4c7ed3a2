"""What was requested of a device for a run, recorded so that any process can finish it.

RUN/devices/NAME/
  submission.json  journal.jsonl  jobs/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from qkd_qiskit.errors import CheckpointError, InputError
from qkd_qiskit.experiments.run_folder import DEVICES, RunFolder, read_json, write_json
from qkd_qiskit.experiments.target_summary import Place
from qkd_qiskit.recipe import Mode

RECORD = "submission.json"
_SUFFIX: dict[Place, str] = {"device": "", "simulation": ":submitted", "rehearsal": ":rehearsal"}


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What is requested of a device.

    Attributes:
        name: What its figures are filed under.
        backend: The device.
        place: Device (a real one), simulation (the client's local testing mode) or rehearsal (a
            server on this computer).
        mode: How jobs are submitted.
        shots: Shots per circuit.
        limit: Test images.
        seeds: Seeds of the students that are evaluated.
        images_per_job: Test images in a job of the evaluation.
        max_qpu_seconds: QPU seconds that its jobs together may use; None = no limit.
        train: Whether students are trained there before.
        evaluate: Whether students are evaluated there.
        finished: Whether nothing is left to do.
        command: What was typed to train, for the report.
        recalibrate: Unlabelled images that are measured before the test images, to fit maps.
    """

    name: str
    backend: str
    place: Place
    mode: Mode
    shots: int
    limit: int
    seeds: tuple[int, ...]
    images_per_job: int
    max_qpu_seconds: float | None = None
    train: bool = False
    evaluate: bool = True
    finished: bool = False
    command: str = ""
    recalibrate: int = 0

    @property
    def fixed(self) -> dict[str, object]:
        """What cannot change once something is submitted."""
        names = ("shots", "limit", "seeds", "evaluate", "recalibrate")
        return {name: getattr(self, name) for name in names}

    @property
    def maps(self) -> str:
        """Return the name that maps of the device are kept under: for any shots, and repeated."""
        return self.backend + _SUFFIX[self.place]

    def folder(self, run: RunFolder) -> Path:
        """Return where its jobs are kept."""
        return run.path / DEVICES / self.name.replace(":", "-")

    def save(self, run: RunFolder) -> Submission:
        """Write it into the run; return itself."""
        content = asdict(self)
        if not self.recalibrate:
            del content["recalibrate"]  # as records were before there were maps
        write_json(self.folder(run) / RECORD, content)
        return self


def find_submissions(run: RunFolder) -> list[Submission]:
    """Return what was requested of devices for a run.

    Raises:
        CheckpointError: A record is damaged.
    """
    return [_read(path) for path in sorted((run.path / DEVICES).glob(f"*/{RECORD}"))]


def begin_or_go_on(run: RunFolder, wanted: Submission, *, again: bool) -> Submission:
    """Return the submission that does what is wanted: one that was begun, or a new one.

    A finished one with the same request is given back as it is; `again` begins another.

    Args:
        run: The run.
        wanted: What is requested, under its first name.
        again: Whether the same is to be measured once more.

    Raises:
        InputError: One with another request has not ended.
    """
    known = {submission.name: submission for submission in find_submissions(run)}
    for name in _names(wanted.name):
        begun = known.get(name)
        if begun is None:
            return replace(wanted, name=name)
        if begun.fixed == wanted.fixed:
            if not (begun.finished and again):
                return begun
        elif not begun.finished:
            given = ", ".join(
                f"{key} {value}"
                for key, value in begun.fixed.items()
                if key != "evaluate" and value != 0
            )
            raise InputError(
                f"{run.path} has a submission to {begun.name} that has not ended, with {given}; "
                f"finish it first: qkd collect {run.path}"
            )
    raise AssertionError


def first_name(backend: str, place: Place, *, shots: int, usual_shots: int) -> str:
    """Return the key of figures of a device: its name, the place, unusual shots."""
    return backend + _SUFFIX[place] + (f"@{shots}" if shots != usual_shots else "")


def _names(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}#{number}"
        number += 1


def _read(path: Path) -> Submission:
    content = {"recalibrate": 0} | read_json(path)
    try:
        known = {field.name: content[field.name] for field in fields(Submission)}
        return Submission(**known | {"seeds": tuple(content["seeds"])})
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is no record of a submission ({type(error).__name__}: {error}); bring back a "
            "copy of it"
        ) from error
