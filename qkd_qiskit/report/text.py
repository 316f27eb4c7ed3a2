"""Words of a report: numbers with their units, names, and the conditions of a figure."""

from __future__ import annotations

from pathlib import Path

from qkd_qiskit.experiments.provenance import Provenance
from qkd_qiskit.experiments.recalibration import SUFFIX
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.target_summary import DeviceJobs
from qkd_qiskit.recipe import UNTRAINED_TEACHERS, Recipe, TeacherSpec
from qkd_qiskit.recipe.arms import ARMS, FIRST_NOISY, SAME_DRAW
from qkd_qiskit.recipe.runtime import describe_changes
from qkd_qiskit.targets.names import split_name

_ADDED = {"overrotation", "zz", "day", "dead"}
PLACES = {
    "device": "on the device {}",
    "simulation": "simulation of {}",
    "rehearsal": "rehearsal of {}",
}
_SHOWN = ("qkd-qiskit", "qiskit", "qiskit-machine-learning", "qiskit-aer", "torch", "numpy")
NONE = "–"  # in a cell that has no number

TEACHER_NAMES = {
    "softmax": "softmax regression",
    "mlp": "a multilayer perceptron",
    "small_cnn": "a small convolutional network",
    "lenet5": "LeNet-5",
    "alexnet": "AlexNet",
    "ensemble": "an ensemble",
    "quanvolution": "a quanvolutional network",
    "random_quanvolution": "a network with random quanvolutional filters",
    "convolution": "a convolutional network",
    "module": "a network of your own",
    "logits": "soft labels of your own",
}


def percent(share: float) -> str:
    """Return a share in percent: `61.5 %`."""
    return f"{100 * share:.1f}\u202f%"


def points(value: float) -> str:
    """Return a signed number of points; more digits where one would hide the sign: `−3.4`."""
    digits = 1 if abs(value) >= 0.05 or value == 0 else 2
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def count(number: int, noun: str = "") -> str:
    """Return a whole number with thousands set apart, and a noun in its number: `1 297 images`."""
    text = f"{number:,}".replace(",", "\u202f")
    return f"{text} {noun}{'s' * (number != 1)}" if noun else text


def arm_name(arm: str) -> str:
    """Return an arm as a reader calls it."""
    return ARMS[arm].label if arm in ARMS else arm.replace("_", " ")


def subject(recipe: Recipe, result: Result) -> tuple[str, str]:
    """Return what was distilled into what: a title, and a paragraph with the sizes."""
    teacher = _teacher_name(recipe, result)
    student, classes = result.student, len(result.classes)
    if student.qubits is not None:
        title = f"{teacher} distilled into a {student.qubits}-qubit circuit"
        kind = f"a {recipe.student.kind} student"
        if recipe.student.kind == "module":
            kind = "a network of your own"
        what = (
            f"{kind}: a circuit of {count(student.qubits, 'qubit')} "
            f"with {count(student.weights or 0, 'trained angle')}, among "
            f"{count(student.parameters, 'trained parameter')} in all"
        )
    elif student.filter_parameters is not None:
        kind = f"{recipe.student.kind}al network"
        title = f"{teacher} distilled into a {kind}"
        what = (
            f"a {kind} with {count(student.parameters, 'trained parameter')}, "
            f"{count(student.filter_parameters)} of them in its filters"
        )
    else:
        title = f"{teacher} distilled into a classical student"
        what = (
            f"a classical student with {count(student.parameters, 'trained parameter')} and no "
            "circuit"
        )
    sample, size = result.sample, result.teacher.parameters
    teacher += f" with {count(size, 'trained parameter')}" if size else ""
    each = "on average " if result.teacher.accuracies is not None else ""
    own = (
        f" Each seed has a teacher of its own, trained on the same {sample}s as its students."
        if recipe.teacher.same_draw
        else " Each seed is taught by the student of the same seed."
        if recipe.teacher.seed == "each"
        else _seen_by_teacher(recipe, sample)
    )
    if result.teacher.members is not None:
        low, high = min(result.teacher.members), max(result.teacher.members)
        own += f" Its members alone are right on {percent(low)} to {percent(high)}."
    title_of_data = f"{recipe.data.title}{f' ({classes} classes)' if classes else ''}"
    right = f"right on {teacher_accuracy(result)} of the test {sample}s of {title_of_data}"
    if result.teacher.train_accuracy is not None:
        of_train = f"right on {percent(result.teacher.train_accuracy)} of the training {sample}s"
        unknown = (
            f"{of_train} of {title_of_data} (what they would be on the test {sample}s is not known)"
        )
        known = f"{of_train} and on {right.removeprefix('right on ')}"
        right = unknown if result.teacher.accuracy is None else known
    if recipe.data.backbone is not None:
        own += (
            " In the place of the images are features of a frozen network "
            f"({recipe.data.backbone_origin}), to which teacher and students add what they train."
        )
    paragraph = (
        f"{_capital(teacher)}, {each}{right}, taught "
        f"{what}. "
        f"Each student learned from {_labelled(recipe, sample)}.{own}"
    )
    return _capital(title), paragraph


def teacher_accuracy(result: Result) -> str:
    """Return the share of test images that the teacher classifies rightly, if it is known."""
    accuracy = result.teacher.accuracy
    return "not known" if accuracy is None else percent(accuracy)


def _teacher_name(recipe: Recipe, result: Result) -> str:
    kind, members = result.teacher.kind, result.teacher.members
    if kind == "run":
        return _teaching_students(recipe.teacher, members)
    name = TEACHER_NAMES.get(kind, kind)
    if members is None:
        return name
    return f"an ensemble of {len(members)} networks ({name.removeprefix('a ').removeprefix('an ')})"


def _teaching_students(spec: TeacherSpec, members: tuple[float, ...] | None) -> str:
    number = f"seed {spec.seed}" if members is None else count(len(members), "seed")
    run = f"the run {Path(spec.run or '').name} (arm {spec.arm.replace('_', ' ')}, "
    run += f"{'each seed' if spec.seed == 'each' else number}"
    run += ")" if spec.target == "exact" else f", on {spec.target})"
    if spec.seed == "each":
        return f"students of {run}"
    return f"a student of {run}" if members is None else f"an ensemble of students of {run}"


def _seen_by_teacher(recipe: Recipe, sample: str) -> str:
    """Return how many labels the teacher has seen, where it is known and is not the student's."""
    spec, of_students = recipe.teacher, _labelled(recipe, sample)
    if spec.kind in UNTRAINED_TEACHERS or spec.checkpoint is not None:
        return f" What the teacher has seen is not known here: it may be more than the {sample}s."
    seen = _images(None, spec.train_per_class, sample)
    if seen == of_students:
        return f" The teacher has seen {seen}, as they have."
    text = f" The teacher has seen {seen}: a gain can be what it knows of the others."
    if SAME_DRAW not in recipe.arms:
        text += f" The arm {SAME_DRAW} has a teacher that has not."
    return text


def _labelled(recipe: Recipe, sample: str) -> str:
    return _images(recipe.data.train_points, recipe.data.train_per_class, sample)


def _images(points: int | None, per_class: int | None, sample: str) -> str:
    if points is not None:
        return f"{count(points, f'labelled {sample}')} drawn over all classes"
    if per_class is not None:
        return f"{count(per_class, f'labelled {sample}')} per class"
    return f"all labelled {sample}s"


def training_place(recipe: Recipe, result: Result) -> str:
    """Return where the circuits ran while they were trained, and what that took."""
    spec = recipe.distill
    place = ", ".join(spec.train_targets)
    how = {
        "exact": "with exact probabilities and gradients",
        "noisy": f"through the noise of {place}, with exact gradients",
        "parameter_shift": f"on {place}, by parameter shifts",
        "spsa": f"on {place}, by SPSA",
        "forward": f"on {place}, by forward gradients in {count(spec.directions, 'direction')}",
        "guided_spsa": f"on {place}, by guided SPSA",
    }
    sentences = [f"Circuits are trained {how[spec.gradient]}."]
    device = result.trained_on
    if device is not None:
        where = PLACES[device.place].format(device.backend)
        date, jobs = _unbroken(device.calibration_date), count(len(device.jobs), "job")
        trained = f"Circuits are trained {how[spec.gradient]} ({where}, calibrated {date}), from "
        trained += f"shots of {jobs} in mode {device.mode}: {charged(device)}."
        sentences = [trained, emulated_training(device)]
    for arm in (recipe.arm_table[name] for name in result.arms if name in recipe.own_arms):
        sentences.append(f"The arm `{arm.label}` is {arm.description}.")
    for arm in (recipe.arm_table[name] for name in result.arms):
        if arm.taught_by is not None:
            sentences.append(
                f"The arm `{arm.label}` is taught by the students of `{arm_name(arm.taught_by)}`, "
                "each by that of its seed."
            )
    noisy = [name for name in result.arms if recipe.arm_table[name].train_target == FIRST_NOISY]
    if noisy:
        names = " and ".join(f"`{arm_name(name)}`" for name in noisy)
        does = "The arms {} train" if len(noisy) > 1 else "The arm {} trains"
        sentences.append(f"{does.format(names)} through the noise of {recipe.noise_target}.")
    for population, cost in result.training_cost.items():
        sentences.append(
            f"Training the {population} took {count(cost.circuits, 'circuit')}, "
            f"{count(cost.executions, 'execution')} with their shots."
        )
    return " ".join(sentences)


def conditions(result: Result, target: str) -> str:
    """Return images, shots and noise of a target, in short."""
    summary = result.targets[target]
    parts = [count(result.num_images(target), result.sample)]
    shots, device, date = summary.shots, summary.device, _unbroken(summary.calibration_date)
    parts.append("exact probabilities" if shots is None else count(shots, "shot"))
    if device is not None:
        parts.append(PLACES[device.place].format(device.backend))
        parts.append(f"calibrated {date}")
        parts += [describe_changes(device.options)] if device.options else []
        parts.append(charged(device))
    elif summary.options is not None:
        parts.append(f"noise calibrated {date}" if date else "synthetic noise")
        if summary.options.get("readout_mitigation"):
            parts.append("readout errors mitigated")
        if summary.by_aer:
            parts.append("shots by Aer")
    elif shots is not None:
        parts.append("no noise")
    if summary.recalibration is not None:
        fitted = _unbroken(summary.recalibration.fitted[:10])
        images = count(summary.recalibration.images, "unlabelled image")
        parts.append(f"recalibrated with {images} on {fitted}")
    return ", ".join(parts)


def charged(device: DeviceJobs) -> str:
    """Return what jobs on a device cost: `318.2 QPU seconds`."""
    if device.place == "simulation":
        return "no QPU seconds"
    seconds = device.qpu_seconds
    if seconds is None:
        return f"about {device.expected_qpu_seconds:.1f} QPU seconds"
    unreal = " by the model" if device.place == "rehearsal" else ""
    waits = device.wait_seconds
    waited = f" and {waits:.0f} s of waits between jobs" if waits >= 0.5 else ""
    return f"{seconds:.1f} QPU seconds{waited}{unreal}"


def measured(result: Result) -> list[str]:
    """Return what has to be known of figures that came through jobs, a sentence for each target."""
    sentences = []
    device = result.trained_on
    if device is not None:
        where = PLACES[device.place].format(device.backend)
        sentences.append(f"The students were trained by jobs: {where}. {emulated_training(device)}")
    for name, summary in result.targets.items():
        device = summary.device
        if device is None or summary.recalibration is not None:
            continue
        if device.place == "device":
            sentences.append(
                f"{name} was measured on the device {device.backend}. All students' circuits "
                "for an image ran side by side in one job, so that drift meets both arms alike."
            )
        elif device.place == "rehearsal":
            sentences.append(
                f"{name} is a rehearsal: a server on this computer simulated {device.backend}, "
                "and no quantum computer was used."
            )
        else:
            sentences.append(
                f"{name} is a simulation: the Runtime client ran its jobs in local testing mode, "
                "and no quantum computer was used."
            )
    return sentences


def checked(result: Result) -> list[str]:
    """Return that Aer has the probabilities that shots were drawn from, a sentence for a target."""
    return [
        f"Shots on {name} are drawn from exact noisy probabilities; Aer's density matrix gives the "
        f"same for {count(check.circuits, 'circuit')} to within {check.within:.0e}."
        for name, summary in result.targets.items()
        if (check := summary.check) is not None
    ]


def emulated_training(device: DeviceJobs) -> str:
    """Return that no quantum computer was used for a training, where none was."""
    return "" if device.place == "device" else "No quantum computer was used."


def _unbroken(date: str | None) -> str:
    """Return an ISO date that is not broken at its hyphens."""
    return (date or "").replace("-", "\u2011")


def best_case(result: Result) -> str:
    """Return what has to be known of every figure from a noise model; empty without one."""
    noisy = [
        name.partition("@")[0].removesuffix(SUFFIX)
        for name, summary in result.targets.items()
        if summary.noisy or (summary.device is not None and summary.device.place != "device")
    ]
    worse = dict.fromkeys(name for name in noisy if set(split_name(name)[1]) & _ADDED)
    names = [name for name in dict.fromkeys(noisy) if name not in worse]
    sentences = []
    if names:
        sentences.append(
            f"The noise of {', '.join(names)} is a best case: a model from calibration data, "
            "without crosstalk and drift."
        )
    if worse:
        sentences.append(
            f"The noise of {', '.join(worse)} is a model from calibration data, and what the "
            "target's name adds to it."
        )
    return " ".join(sentences)


def seeds_text(result: Result) -> str:
    """Return how many seeds, and which where they are few: `3 seeds (0, 1, 2)`."""
    seeds = result.seeds
    which = f" ({', '.join(map(str, seeds))})" if len(seeds) <= 6 else ""
    return count(len(seeds), "seed") + which


def making(provenance: Provenance) -> dict[str, str]:
    """Return when, where and with what a run was made, by what it is; empty where nobody knows."""
    if not provenance.sessions:
        return {}
    last = provenance.sessions[-1]
    dates = (
        f"{session.began[:16].replace('T', ' ')}{'' if session.ended else ' (stopped)'}"
        for session in provenance.sessions
    )
    versions = (f"{name} {last.packages[name]}" for name in _SHOWN if name in last.packages)
    texts = {
        "begun": f"{', '.join(dates)} UTC",
        "ended": f"{(last.ended or 'not yet')[:16].replace('T', ' ')}{' UTC' * bool(last.ended)}",
        "with": ", ".join([last.python, *versions]),
        "on": f"{last.cpu}, {count(last.cores, 'core')}, {last.platform}",
    }
    if last.git is not None:
        changed = ", with changes" if last.git.modified else ""
        texts["commit"] = f"{last.git.commit} of the folder that it ran in{changed}"
    if "test" in provenance.data:
        texts["test set"] = f"SHA-256 {provenance.data['test']}"
    return texts


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
