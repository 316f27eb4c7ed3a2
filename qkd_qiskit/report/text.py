"""What a report says in words: numbers with their units, and the answer that an interval gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qkd_qiskit.experiments.comparisons import TUNED
from qkd_qiskit.experiments.results import BASELINE, FULL_TWIN, TREATMENT, TWIN, num_images
from qkd_qiskit.recipe import Recipe

PLACES = {
    "device": "on the device {}",
    "simulation": "simulation of {}",
    "rehearsal": "rehearsal of {}",
}
NONE = "–"  # in a task that has no number
FEW_SEEDS = 5  # below this many pairs the t interval is wide, and the reader is told
HELPED, HARMED, UNDECIDED = "up", "down", "open"

ARM_NAMES = {
    BASELINE: "label only",
    TUNED: "label only, tuned",
    TREATMENT: "distilled",
    TWIN: "classical twin",
    "label_only_before": "label only, before",
    "distilled_before": "distilled, before",
    FULL_TWIN: "full-size twin",
    "scaled_ce": "scaled cross-entropy",
}
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
}


def percent(share: float) -> str:
    """A share in percent: `61.5 %`."""
    return f"{100 * share:.1f}\u202f%"


def points(value: float) -> str:
    """A signed number of points; more digits where one would hide the sign: `−3.4`."""
    digits = 1 if abs(value) >= 0.05 or value == 0 else 2
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def count(number: int, noun: str = "") -> str:
    """A whole number with thousands set apart, and a noun in its number: `1 297 images`."""
    text = f"{number:,}".replace(",", "\u202f")
    return f"{text} {noun}{'s' * (number != 1)}" if noun else text


def arm_name(arm: str) -> str:
    """An arm as a reader calls it."""
    return ARM_NAMES.get(arm, arm.replace("_", " "))


def subject(recipe: Recipe, result: Mapping[str, Any]) -> tuple[str, str]:
    """What was distilled into what: a title, and a paragraph with the sizes."""
    teacher = TEACHER_NAMES.get(result["teacher"]["kind"], result["teacher"]["kind"])
    student, classes = result["student"], len(result["classes"]) if "classes" in result else None
    if "qubits" in student:
        title = f"{teacher} distilled into a {student['qubits']}-qubit circuit"
        what = (
            f"a {recipe.student.kind} student: a circuit of {count(student['qubits'], 'qubit')} "
            f"with {count(student['weights'], 'trained angle')}, among "
            f"{count(student['parameters'], 'trained parameter')} in all"
        )
    elif "filter_parameters" in student:
        kind = f"{recipe.student.kind}al network"
        title = f"{teacher} distilled into a {kind}"
        what = (
            f"a {kind} with {count(student['parameters'], 'trained parameter')}, "
            f"{count(student['filter_parameters'])} of them in its filters"
        )
    else:
        title = f"{teacher} distilled into a classical student"
        what = (
            f"a classical student with {count(student['parameters'], 'trained parameter')} and no "
            "circuit"
        )
    sample, size = result.get("sample", "image"), result["teacher"].get("parameters")
    teacher += f" with {count(size, 'trained parameter')}" if size else ""
    each = "on average " if "accuracies" in result["teacher"] else ""
    own = (
        f" Each seed has a teacher of its own, trained on the same {sample}s as its students."
        if recipe.teacher.same_draw
        else ""
    )
    paragraph = (
        f"{_capital(teacher)}, {each}right on {percent(result['teacher']['accuracy'])} of the test "
        f"{sample}s of {recipe.data.title}{f' ({classes} classes)' if classes else ''}, taught "
        f"{what}. "
        f"Each student learned from {_labelled(recipe, sample)}.{own}"
    )
    return _capital(title), paragraph


def _labelled(recipe: Recipe, sample: str) -> str:
    if recipe.data.train_points is not None:
        return f"{count(recipe.data.train_points, f'labelled {sample}')} drawn over all classes"
    if recipe.data.train_per_class is not None:
        return f"{count(recipe.data.train_per_class, f'labelled {sample}')} per class"
    return f"all labelled {sample}s"


def verdict(gain: Mapping[str, Any]) -> str:
    """HELPED, HARMED, or UNDECIDED where the interval holds zero or there is none."""
    low, high = gain["ci95"] or (0, 0)
    return HELPED if low > 0 else HARMED if high < 0 else UNDECIDED


def distillation_answer(gain: Mapping[str, Any], *, tuned: bool = False) -> str:
    """Whether distillation helped, in one sentence.

    Args:
        gain: The paired gain.
        tuned: Whether it is over label-only students with settings of their own.
    """
    if gain["mean"] is None:
        return (
            "No pair of trained students is left: this run cannot say whether distillation helped."
        )
    verb = "gained" if gain["mean"] > 0 else "changed test accuracy by"
    unit = "points of test accuracy" if gain["mean"] > 0 else "points"
    over = " over label-only students with settings of their own" if tuned else ""
    start = f"Distillation {verb} {points(gain['mean'])} {unit}{over}"
    if gain["ci95"] is None:
        return f"{start} with one paired seed: no interval, so no conclusion."
    ends = {HELPED: "it helped", HARMED: "it harmed", UNDECIDED: "not distinguishable from zero"}
    return f"{start} ({interval(gain)}): {ends[verdict(gain)]}."


def twin_answer(gain: Mapping[str, Any], *, twin: str = "classical twin") -> str:
    """How the distilled student stands against a twin without a circuit, in one sentence."""
    if gain["mean"] is None:
        return f"Against the {twin}: no pair of trained students is left."
    start = f"Against its {twin}, the distilled student: {points(gain['mean'])} points"
    if gain["ci95"] is None:
        return f"{start} with one paired seed: no interval, so no conclusion."
    ends = {
        HELPED: "the student is ahead",
        HARMED: "the twin is ahead",
        UNDECIDED: "not distinguishable from zero",
    }
    return f"{start} ({interval(gain)}): {ends[verdict(gain)]}."


def interval(gain: Mapping[str, Any]) -> str:
    """The interval of a gain, and how many pairs it comes from."""
    low, high = gain["ci95"]
    pairs = f"{gain['seeds']} paired seeds"
    return f"95\u202f% interval {points(low)} to {points(high)}, {pairs}"


def reminders(recipe: Recipe, result: Mapping[str, Any]) -> list[str]:
    """What has to be known to read the answer rightly, a sentence or two each."""
    said = []
    gains = [gain for gain in result["gain"].values() if gain["ci95"] is not None]
    if gains and gains[0]["seeds"] < FEW_SEEDS:
        low, high = gains[0]["ci95"]
        said.append(
            f"{gains[0]['seeds']} seeds are few: with their spread, only a gain beyond "
            f"±{points((high - low) / 2)[1:]} points would have been told from zero here. "
            "More seeds narrow the interval: qkd study trains ten, with a tuned baseline and "
            "controls."
        )
    if gains:
        said.append(
            "The interval covers what differs between seeds (draw of training data, its order, "
            "initialisation, shots). Teacher, validation split and test set are the same in "
            "all. Each target has its own interval; p values are corrected for their number."
        )
    if TWIN in result["arms"]:
        said.append(
            "The classical twin is trained with the student's settings; it may be better with "
            "settings of its own."
        )
    elif recipe.student.kind != "classical":
        said.append(
            "No classical twin was trained, so this run cannot say whether the circuit is needed "
            "(--arms label_only,distilled,classical_twin)."
        )
    return said


def training_place(recipe: Recipe, result: Mapping[str, Any]) -> str:
    """Where the circuits ran while they were trained, and what that took."""
    spec = recipe.distill
    how = {
        "exact": "with exact probabilities and gradients",
        "noisy": f"through the noise of {spec.train_target}, with exact gradients",
        "parameter_shift": f"on {spec.train_target}, by parameter shifts",
        "spsa": f"on {spec.train_target}, by SPSA",
    }
    said = [f"Circuits are trained {how[spec.gradient]}."]
    device = result.get("trained_on")
    if device is not None:
        where = PLACES[device["place"]].format(device["backend"])
        date, jobs = _unbroken(device["calibration_date"]), count(len(device["jobs"]), "job")
        trained = f"Circuits are trained {how[spec.gradient]} ({where}, calibrated {date}), from "
        trained += f"shots of {jobs} in mode {device['mode']}: {charged(device)}."
        said = [trained, emulated_training(device)]
    if "distilled_noisy" in result["arms"]:
        said.append(f"The arm `distilled noisy` trains through the noise of {recipe.noise_target}.")
    for population, cost in result.get("training_cost", {}).items():
        said.append(
            f"Training the {population} took {count(cost['circuits'], 'circuit')}, "
            f"{count(cost['executions'], 'execution')} with their shots."
        )
    return " ".join(said)


def missing_answer(arms: Sequence[str]) -> str:
    """Why there is no answer in a run that lacks an arm."""
    missing = " and ".join(arm_name(arm) for arm in (BASELINE, TREATMENT) if arm not in arms)
    return f"This run has no arm `{missing}`: it cannot say whether distillation helped."


def conditions(result: Mapping[str, Any], target: str) -> str:
    """Images, shots and noise of a target, in short."""
    described = result["targets"][target]
    parts = [count(num_images(result, target), result.get("sample", "image"))]
    shots = described["shots"]
    parts.append("exact probabilities" if shots is None else count(shots, "shot"))
    if "device" in described:
        parts.append(PLACES[described["device"]["place"]].format(described["device"]["backend"]))
        parts.append(f"calibrated {_unbroken(described['calibration_date'])}")
        parts.append(charged(described["device"]))
    elif is_noisy(result, target):
        date = _unbroken(described.get("calibration_date"))
        parts.append(f"noise calibrated {date}" if date else "synthetic noise")
        if described["options"].get("readout_mitigation"):
            parts.append("readout errors mitigated")
    elif shots is not None:
        parts.append("no noise")
    return ", ".join(parts)


def is_noisy(result: Mapping[str, Any], target: str) -> bool:
    """Whether a target has a device's noise."""
    return "options" in result["targets"][target]


def charged(device: Mapping[str, Any]) -> str:
    """What jobs on a device cost: `318.2 QPU seconds`."""
    if device["place"] == "simulation":
        return "no QPU seconds"
    seconds = device["qpu_seconds"]
    if seconds is None:
        return f"about {device['expected_qpu_seconds']:.1f} QPU seconds"
    unreal = " by the model" if device["place"] == "rehearsal" else ""
    waits = device["wait_seconds"]
    waited = f" and {waits:.0f} s of waits between jobs" if waits >= 0.5 else ""
    return f"{seconds:.1f} QPU seconds{waited}{unreal}"


def measured(result: Mapping[str, Any]) -> list[str]:
    """What has to be said of figures that came through jobs, a sentence for each target."""
    said = []
    if "trained_on" in result:
        device = result["trained_on"]
        where = PLACES[device["place"]].format(device["backend"])
        said.append(f"The students were trained by jobs: {where}. {emulated_training(device)}")
    for name, described in result["targets"].items():
        device = described.get("device")
        if device is None:
            continue
        if device["place"] == "device":
            said.append(
                f"{name} was measured on the device {device['backend']}. All students' circuits "
                "for an image ran side by side in one job, so that drift meets both arms alike."
            )
        elif device["place"] == "rehearsal":
            said.append(
                f"{name} is a rehearsal: a server on this computer simulated {device['backend']}, "
                "and no quantum computer was used."
            )
        else:
            said.append(
                f"{name} is a simulation: the Runtime client ran its jobs in local testing mode, "
                "and no quantum computer was used."
            )
    return said


def emulated_training(device: Mapping[str, Any]) -> str:
    """That no quantum computer was used for a training, where none was."""
    return "" if device["place"] == "device" else "No quantum computer was used."


def _unbroken(date: str | None) -> str:
    """An ISO date that is not broken at its hyphens."""
    return (date or "").replace("-", "\u2011")


def best_case(result: Mapping[str, Any]) -> str:
    """What has to be said wherever a figure comes from a noise model; empty without one."""
    noisy = [
        name.partition("@")[0]
        for name, described in result["targets"].items()
        if is_noisy(result, name) or described.get("device", {}).get("place", "device") != "device"
    ]
    names = list(dict.fromkeys(noisy))
    if not names:
        return ""
    return (
        f"The noise of {', '.join(names)} is a best case: a model from calibration data, without "
        "crosstalk and drift."
    )


def seeds_text(result: Mapping[str, Any]) -> str:
    """How many seeds, and which where they are few: `3 seeds (0, 1, 2)`."""
    seeds = result["seeds"]
    which = f" ({', '.join(map(str, seeds))})" if len(seeds) <= 6 else ""
    return count(len(seeds), "seed") + which


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
