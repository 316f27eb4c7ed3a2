"""What finished submissions have used, where the service reported it only later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from qkd_qiskit.errors import InputError, SubmissionError
from qkd_qiskit.experiments.device_results import DeviceResult
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.submission.batching import EVALUATE
from qkd_qiskit.experiments.submission.device import describe_jobs, open_runner
from qkd_qiskit.experiments.submission.submission import Submission
from qkd_qiskit.experiments.submission.training import TRAIN
from qkd_qiskit.targets.ibm.connection import RuntimeConnection
from qkd_qiskit.targets.ibm.job_records import read_journal

logger = logging.getLogger(__name__)


def with_late_usage(
    run: RunFolder, submission: Submission, connect: Callable[[], RuntimeConnection]
) -> Result:
    """Return what result.json holds, with the QPU seconds that were not known when it was written.

    Args:
        run: The run.
        submission: One that is finished.
        connect: Gives its device; called where there is something to ask.
    """
    result = run.ended()
    folder = submission.folder(run)
    records = read_journal(folder)
    if not records.unsettled() and records.session is None:
        return result
    try:
        with open_runner(run, submission, connect()):
            pass  # its end asks for what is not known, and closes a session that could not be
    except (SubmissionError, InputError) as error:
        logger.warning("%s: what it used stays unknown: %s", submission.name, error)
        return result
    target, training = result.targets.get(submission.name), result.trained_on
    if target is not None and target.device is not None:
        jobs = describe_jobs(run, submission, EVALUATE, mode=target.device.mode)
        changed = replace(target, device=jobs)
        result = replace(result, targets={**result.targets, submission.name: changed})
    if submission.train and training is not None:
        jobs = describe_jobs(run, submission, TRAIN, mode=training.mode)
        result = replace(
            result, trained_on=replace(jobs, calibration_date=training.calibration_date)
        )
    DeviceResult(
        key=submission.name,
        target=result.targets.get(submission.name),
        trained_on=result.trained_on if submission.train else None,
    ).save(folder)
    run.end(result)
    return result
