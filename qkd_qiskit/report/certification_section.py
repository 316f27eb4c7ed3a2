"""Whether the circuit matters: the answer in a sentence, and the table it rests on."""

from __future__ import annotations

from statistics import fmean

from qkd_qiskit.experiments.certificate import Certificate, Variant, read_certificates
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.statistics import LEAST_PAIRS, LEVEL
from qkd_qiskit.report.conclusions import interval
from qkd_qiskit.report.html import Markup, columns, element, join, section, table
from qkd_qiskit.report.text import NONE, arm_name, count, percent, points

HEADER = ("", "numbers", "test accuracy", "students ahead by, points", "p (Holm)", "ahead at")
_BOX = {"matters": "up", "left_out": "down", "open": "open"}


def certification_section(folder: RunFolder) -> Markup:
    """Return what `qkd certify` has found, an arm after the other; nothing where it was not run."""
    certificates = read_certificates(folder)
    if not certificates:
        return Markup()
    return section("Does the circuit matter?", *(_part(it) for it in certificates))


def certification_answer(certificate: Certificate) -> str:
    """Return whether the circuit matters, in one sentence."""
    if certificate.best is None:
        return "Open: no model without the circuit has as few trained numbers."
    best = certificate.variant(certificate.best)
    test, name = best.comparison, arm_name(best.name)
    if test.mean is None:
        return f"Open: of the students and the {name}, no pair is left that was trained."
    if test.ci95 is None:
        return f"Open: one seed says nothing; the students: {points(test.mean)} over the {name}."
    over = f"{points(test.mean)} points ({interval(test)}) over the {name}, the best"
    if certificate.verdict == "matters":
        return f"The circuit matters: {over}, and ahead of every model without it."
    within = f"{certificate.margin:g} point{'s' * (certificate.margin != 1)}"
    if certificate.verdict == "left_out":
        return (
            f"The circuit can be left out: the {name} is as good within {within}; students minus "
            f"{name}: {points(test.mean)} points ({interval(test)})."
        )
    if test.seeds < LEAST_PAIRS:
        return f"Open: {over}; a conclusion takes {LEAST_PAIRS} seeds."
    return (
        f"Open: {over}; they are not clearly ahead of every model without the circuit, nor is that "
        f"one as good within {within}."
    )


def variant_cells(certificate: Certificate, variant: Variant) -> list[str]:
    """Return the cells of a row under `HEADER`."""
    test = variant.comparison
    known = [value for value in variant.accuracy if value is not None]
    ahead, holm = NONE, NONE
    if test.mean is not None:
        ahead = points(test.mean)
    if test.ci95 is not None:
        ahead += f" [{points(test.ci95[0])}, {points(test.ci95[1])}]"
    if test.p_holm is not None:
        holm = "< 0.001" if test.p_holm < 0.001 else f"{test.p_holm:.3f}"
    more = variant.parameters > certificate.parameters
    return [
        arm_name(variant.name) + (" *" if variant.name == certificate.best else ""),
        count(variant.parameters) + (" †" if more else ""),
        percent(fmean(known)) if known else "all failed",
        ahead,
        holm,
        f"{variant.ahead} of {test.seeds}",
    ]


def notes(certificate: Certificate) -> list[str]:
    """Return what has to be known to read the table, a sentence each."""
    known = [value for value in certificate.accuracy if value is not None]
    mean = f", right on {percent(fmean(known))} of the test data" if known else ""
    students = (
        f"The students of the arm {certificate.arm}: "
        f"{count(certificate.parameters, 'trained number')}{mean}; every model is fitted to the "
        "same images with the same loss, teacher and settings, which are those of the students."
    )
    signs = (
        "* the best without the circuit by validation accuracy, among those of at most as many "
        "trained numbers; † more numbers than the students: shown, and not part of the answer. "
        f"p: paired t test, corrected for all rows; below {LEVEL:g} it counts."
    )
    sentences = [students, signs]
    sentences += [
        f"Not fitted: {arm_name(name)} ({reason})."
        for name, reason in certificate.refused.items()
        if name != "closed_form"
    ]
    closed = certificate.closed_form
    if closed is None:
        reason = certificate.refused.get("closed_form", "not asked for")
        return [*sentences, f"No closed form: {reason}."]
    what = "quadratic forms" if closed.kind == "quadratic" else "Fourier sums"
    images = count(closed.images, "validation image")
    text = (
        f"In closed form the students are {what} of {count(closed.numbers)} numbers, whose logits "
        f"differ by at most {closed.difference:.1e} on {images}; torch.export.load reads "
        f"{closed.files[0]} without this package."
    )
    return [*sentences, text]


def _part(certificate: Certificate) -> Markup:
    rows = [list[object](variant_cells(certificate, it)) for it in certificate.variants]
    answer = element("p", certification_answer(certificate))
    return join(
        [
            element("div", answer, class_=f"answer {_BOX[certificate.verdict]}"),
            columns(table(list(HEADER), [rows], caption=" ".join(notes(certificate)))),
        ]
    )
