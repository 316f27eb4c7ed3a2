"""What was requested of a device for a run, recorded so that any process can finish it.

RUN/devices/NAME/
  submission.json  journal.jsonl  jobs/
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from qkd_qiskit.errors import CheckpointError, InputError
from qkd_qiskit.experiments.json_codec import decode
from qkd_qiskit.experiments.run_folder import DEVICES, RunFolder, read_json, write_json
from qkd_qiskit.experiments.target_summary import Place
from qkd_qiskit.recipe import Mode, RuntimeSpec
from qkd_qiskit.targets.ibm.job_records import read_journal

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
        id: Part of the tags of its jobs, by which the service finds them; "" in older ones.
        recalibrate: Unlabelled images that are measured before the test images, to fit maps.
        options: Fields of `RuntimeSpec` that are not as the run's recipe says.
        recalibrated: Whether students that are trained there began with the device's maps.
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
    id: str = ""
    recalibrate: int = 0
    options: Mapping[str, object] = field(default_factory=dict)
    recalibrated: bool = False

    def runtime(self, base: RuntimeSpec) -> RuntimeSpec:
        """Return how its jobs are submitted, where the recipe of the run says `base`.

        Raises:
            InputError: The options are none.
        """
        options: dict[str, Any] = dict(self.options)
        if isinstance(options.get("layout"), list):
            options["layout"] = tuple(options["layout"])
        try:
            return replace(base, **options, mode=self.mode)
        except TypeError:
            raise InputError(
                f"options are {options!r:.80}; accepted are those of runtime"
            ) from None

    @property
    def fixed(self) -> dict[str, object]:
        """What cannot change once something is submitted."""
        names = ("shots", "limit", "seeds", "evaluate", "recalibrate")
        options = json.loads(json.dumps(self.options))  # a layout is a list where it was read
        return {name: getattr(self, name) for name in names} | {"options": options}

    @property
    def maps(self) -> str:
        """Return the name that maps of the device are kept under: for any shots, and repeated."""
        return maps_of(self.backend, self.place)

    def folder(self, run: RunFolder) -> Path:
        """Return where its jobs are kept."""
        return run.path / DEVICES / self.name.replace(":", "-")

    def save(self, run: RunFolder) -> Submission:
        """Write it into the run; return itself."""
        content = asdict(self)
        if not self.recalibrate:
            del content["recalibrate"]  # as records were before there were maps
        for name in ("options", "recalibrated"):
            if not content[name]:
                del content[name]
        write_json(self.folder(run) / RECORD, content)
        return self


def maps_of(backend: str, place: Place) -> str:
    """Return the name that maps of a device are kept under."""
    return backend + _SUFFIX[place]


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
            return replace(wanted, name=name, id=new_id())
        if begun.fixed == wanted.fixed:
            if not (begun.finished and again):
                return begun
        elif not begun.finished:
            given = ", ".join(
                f"{key} {value}"
                for key, value in begun.fixed.items()
                if key != "evaluate" and value not in (0, {})
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


def new_id() -> str:
    """Return an id that no other submission has."""
    return secrets.token_hex(8)


@contextmanager
def leaving_nothing(folder: Path) -> Iterator[None]:
    """Take away what was written into a new folder where what is asked for is refused."""
    existed = folder.exists()
    try:
        yield
    except InputError:
        if not existed and not read_journal(folder).records:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # other submissions lie there
                folder.parent.rmdir()
        raise


def _read(path: Path) -> Submission:
    try:
        submission = decode(Submission, read_json(path), where=path)
    except CheckpointError as error:
        reason = str(error).partition("; delete")[0]
        raise CheckpointError(
            f"{reason}; bring back a copy of it: it says what was sent to the device"
        ) from None
    fault = _fault(submission, folder=path.parent.name)
    if fault:
        raise CheckpointError(f"{path}: {fault}; bring back a copy of it")
    return submission


def _fault(submission: Submission, *, folder: str) -> str | None:
    """Return what cannot be in a record of a submission, or None."""
    if submission.name.replace(":", "-") != folder:
        return f"name is {submission.name!r:.80}, and its folder is {folder!r}"
    if not re.fullmatch(r"[A-Za-z][\w-]*", submission.backend):
        return f"backend {submission.backend!r:.80} is no name of a device"
    least = {"shots": 1, "limit": 1, "images_per_job": 0}
    for name, lowest in least.items():
        if getattr(submission, name) < lowest:
            return f"{name} is {getattr(submission, name)}, which is below {lowest}"
    if not submission.seeds:
        return "seeds is empty"
    try:
        submission.runtime(RuntimeSpec())
    except InputError as error:
        return str(error)
    limit = submission.max_qpu_seconds
    return f"max_qpu_seconds is {limit}" if limit is not None and not limit > 0 else None
