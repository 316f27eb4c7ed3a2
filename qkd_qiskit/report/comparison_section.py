"""The section of a report that compares arms: forest plot, tests, and what was tuned."""

from __future__ import annotations

from collections.abc import Sequence

from qkd_qiskit.experiments.comparisons import baseline_of
from qkd_qiskit.experiments.results import Comparison, Result, Tuning
from qkd_qiskit.experiments.statistics import LEVEL
from qkd_qiskit.recipe.arms import CONTROLS, REPLICATE, TRANSFER, TREATMENT, TUNED
from qkd_qiskit.report.conclusions import interval, twin_choice
from qkd_qiskit.report.figures import gain_figure
from qkd_qiskit.report.gain_section import gain_limits, gain_row
from qkd_qiskit.report.html import Markup, element, join, panel, panels, section, table
from qkd_qiskit.report.text import NONE, arm_name, count, percent, points

_HEADER = ["", "gain, points", "bootstrap", "p", "p (Holm)", "effect", "pairs", "for 1 point"]
_WIDTH = 8.2  # inches


def comparison_section(result: Result) -> Markup:
    """Return every comparison of the run; nothing where it has no two seeds to compare."""
    entries = [entry for entry in result.comparisons if entry.ci95 is not None]
    if not entries:
        return Markup()
    targets = list(dict.fromkeys(entry.target for entry in entries))
    figures = [panel(target, _forest(result, _of(entries, target))) for target in targets]
    tests = sum(entry.p_holm is not None for entry in entries)
    return section(
        "Is it real?",
        *(element("p", text) for text in _texts(result)),
        panels(
            *figures,
            caption="Each dot is the difference of one pair of students with the same seed; the "
            "diamond is their mean, the bar its 95\u202f% interval (paired t). Grey: Holm's p is "
            f"{LEVEL:g} or more.",
        ),
        table(
            _HEADER,
            [
                [[target], *(_row(entry, result) for entry in _of(entries, target))]
                for target in targets
            ],
            caption="Gain: mean of the paired differences and its 95\u202f% t interval. Bootstrap: "
            "bias-corrected and accelerated 95\u202f% interval of the same mean. p: paired t test, "
            f"two-sided; p (Holm): corrected for the {count(tests, 'test')} of this table. Effect: "
            "Cohen's d_z. For 1 point: the seeds that tell such a gain from zero with a power of "
            "0.8, given the spread of these pairs. A pair of which a student failed to train is "
            "left out and counted.",
        ),
    )


def _of(entries: Sequence[Comparison], target: str) -> list[Comparison]:
    return [entry for entry in entries if entry.target == target]


def _texts(result: Result) -> list[str]:
    """Return what has to be known to read the comparisons."""
    arms, sentences = list(result.arms), []
    if result.tuning is not None:
        sentences.append(
            "The baseline is the label-only student with settings of its own: "
            f"{_tuning(result.tuning)}."
        )
    elif baseline_of(arms) is not None:
        sentences.append(
            "The label-only student has the settings of the distilled one, which may not be its "
            f"best: the arm {TUNED} has its own."
        )
    sentences += [
        f"Settings of {arm_name(arm)}, chosen in the same way: {_tuning(tuning)}."
        for arm, tuning in (result.tunings or {}).items()
    ]
    controls = [arm_name(arm) for arm in CONTROLS[1:] if arm in arms]
    if controls:
        sentences.append(
            f"Controls ({', '.join(controls)}) keep the loss and take away what the teacher knows "
            "of the single image: what they gain as well is not the teacher's doing."
        )
    noise = [entry for entry in result.comparisons if entry.arm == REPLICATE]
    if noise and noise[0].mean is not None and noise[0].ci95 is not None:
        sentences.append(
            "The replicate differs from label only by the order of the images alone, by "
            f"{points(noise[0].mean)} points ({interval(noise[0])}): the floor of the noise."
        )
    if result.twins is not None:
        accuracy = result.twins.validation_accuracy
        shown = ", ".join(
            f"{arm_name(arm)} {NONE if value is None else percent(value)}"
            for arm, value in accuracy.items()
        )
        sentences.append(
            f"{twin_choice(result.twins)} Validation accuracy: {shown}. Of the twins only the best "
            "is compared with the distilled student."
        )
    if TRANSFER in arms:
        sentences.append(
            "The arm transfer sees images that the others do not, labelled by the teacher: its "
            "gain is not that of distillation on equal images."
        )
    return sentences


def _tuning(tuning: Tuning) -> str:
    chosen = tuning.chosen
    return (
        f"learning rate {chosen.lr:g}, weight decay {chosen.weight_decay:g}, "
        f"{count(chosen.epochs, 'epoch')}, the best of {count(len(tuning.tried))} on validation "
        f"images over {count(len(tuning.seeds), 'seed')}"
    )


def _forest(result: Result, entries: Sequence[Comparison]) -> str:
    target = entries[0].target
    rows = [
        gain_row(
            result,
            entry,
            arms=(entry.arm, entry.baseline),
            target=target,
            label=_pair_name(entry, result),
            clear=entry.p_holm is not None and entry.p_holm < LEVEL,
        )
        for entry in entries
    ]
    return gain_figure(
        rows,
        name=f"forest-{list(result.targets).index(target)}",
        label="points of test accuracy",
        limits=gain_limits(rows),
        width=_WIDTH,
    )


def _pair_name(entry: Comparison, result: Result) -> str:
    best = result.twins is not None and entry.baseline == result.twins.best
    note = " (best twin)" if best else ""
    return f"{arm_name(entry.arm)} − {arm_name(entry.baseline)}{note}"


def _row(entry: Comparison, result: Result) -> list[object]:
    name = _pair_name(entry, result)
    needed = entry.seeds_needed["1"]
    left_out = len(entry.left_out)
    note = [element("span", f"{left_out} failed", class_="small")] if left_out else []
    effect = NONE if entry.effect is None else f"{entry.effect:+.2f}".replace("-", "−")
    return [
        element("strong", name) if entry.arm == TREATMENT else name,
        NONE
        if entry.mean is None or entry.ci95 is None
        else join([points(entry.mean), _span(entry.ci95)]),
        NONE if entry.bootstrap95 is None else _span(entry.bootstrap95),
        _p(entry.p),
        _p(entry.p_holm),
        effect,
        join([str(entry.seeds), *note]),
        NONE if needed is None else count(needed),
    ]


def _span(ends: Sequence[float]) -> Markup:
    return element("span", f"{points(ends[0])} to {points(ends[1])}", class_="small")


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
