"""A small distillation on a device in processes that may be killed at any moment.

Run as a script it waits for lines of JSON on its standard input, `{"folder": ...}`; for each it
forks a process that trains in that folder, or goes on there, and answers with its id and, when it
has ended, with its status. What takes long, the imports, is done once.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from qkd_qiskit.cli.interrupts import as_interrupts
from qkd_qiskit.data.splits import Data
from qkd_qiskit.distillation import trainer as loop
from qkd_qiskit.distillation.population import Member
from qkd_qiskit.errors import QKDError
from qkd_qiskit.recipe import DistillSpec, RuntimeSpec, StudentSpec, TeacherSpec
from qkd_qiskit.storage import save_tensors
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.targets.gradients import SPSAExecutor
from qkd_qiskit.targets.ibm.connection import connect
from qkd_qiskit.targets.ibm.job_runner import Runner
from qkd_qiskit.targets.ibm.journal import Journal
from qkd_qiskit.targets.ibm.retry import RetryPolicy
from qkd_qiskit.targets.ibm.target import RuntimeTarget
from qkd_qiskit.teachers.teacher import make_teacher

DONE, STOPPED, INTERRUPTED = 0, 75, 76
RESULT = "trained.safetensors"
DEVICE, SHOTS = "fake_manila", 256
EPOCHS, STEPS = 9, 27
STUDENT = StudentSpec(qubits=2, layers=1, encoding="angle")
MEMBERS = (("label_only", 1.0, 0.0), ("distilled", 0.5, 0.5))
IMPATIENT = RetryPolicy(
    tries=12,
    first_wait_s=0.002,
    longest_wait_s=0.03,
    attempts=6,
    poll_s=0.005,
    longest_poll_s=0.05,
    settle_s=0.05,
)


def examples():
    """Two classes that are told apart, a teacher and where the students begin."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    images = 0.2 * torch.rand(40, 1, 4, 4, generator=generator)
    images[torch.arange(40), 0, labels, labels] += 0.5
    data = Data.from_arrays(images.numpy(), labels.numpy(), seed=1)
    return data, make_teacher(TeacherSpec(kind="softmax", epochs=10, lr=0.1), data)


def student(seed=0):
    """A student of two qubits, with a trained reduction and head."""
    return make_student(STUDENT, image_shape=(1, 4, 4), num_classes=2, seed=seed)


def train(data, teacher, *, target, checkpoint=None, epochs=EPOCHS):
    """Train two members of two arms by SPSA on a target, three steps an epoch."""
    shape = student()
    shape.executor = SPSAExecutor(target, target.compile(shape.circuit))
    members = [Member(arm=a, seed=0, ce_weight=c, kd_weight=k) for a, c, k in MEMBERS]
    draws = torch.stack([data.draw(12, seed=0) for _ in members])
    trained = loop.train_population(
        shape,
        members,
        starts=[dict(student().named_parameters()) for _ in members],
        examples=loop.make_distillation_data(shape, teacher, data, draws=draws),
        spec=DistillSpec(epochs=epochs, batch_size=8, lr=0.05, schedule="constant"),
        checkpoint=checkpoint,
    )
    return trained, shape.executor.cost


def train_on_device(folder, data, teacher, *, mode, device, **settings):
    """Train through a runner with a journal in `folder`, and keep what came out."""
    options = RuntimeSpec(mode=mode)
    connection = connect(device, options=options, policy=IMPATIENT)
    with (
        Journal(folder) as journal,
        Runner(
            connection, journal=journal, options=options, policy=IMPATIENT, **settings
        ) as runner,
    ):
        target = target_of(connection, runner)
        trained, cost = train(
            data, teacher, target=target, checkpoint=folder / "population.safetensors"
        )
    tensors = {
        f"{place}/{name}": value
        for place, one in enumerate(trained)
        for name, value in one.state.items()
    }
    losses = torch.tensor([[epoch.loss for epoch in one.history] for one in trained])
    steps = {"steps": str(cost.steps), "calls": str(cost.calls)}
    save_tensors(folder / RESULT, tensors | {"losses": losses}, metadata=steps)


def target_of(connection, runner):
    return RuntimeTarget(
        connection.backend,
        runner=runner,
        prefix="train/",
        shots=SHOTS,
        seed=3,
        num_transpilations=2,
    )


def main():
    data, teacher = examples()
    student()(data.validation.images)  # loads the compiled kernels
    for line in sys.stdin:
        task = json.loads(line)
        child = os.fork()
        if not child:
            os._exit(_attempt(task, data, teacher))
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


def _attempt(task, data, teacher):
    os.environ.update(task["environment"])
    log = Path(task["log"]).open("a")  # noqa: SIM115 - until the process ends
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    import logging

    logging.basicConfig(level=logging.INFO, stream=log, format="%(name)s %(message)s")
    logging.getLogger("qiskit").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup
    try:
        with as_interrupts():
            train_on_device(
                Path(task["folder"]), data, teacher, mode=task["mode"], device=task["device"]
            )
    except KeyboardInterrupt:
        return INTERRUPTED
    except QKDError as error:
        print(f"{type(error).__name__}: {error}", file=log, flush=True)
        return STOPPED
    except BaseException:
        import traceback

        traceback.print_exc(file=log)
        log.flush()
        return 1
    log.flush()
    return DONE


if __name__ == "__main__":
    main()
