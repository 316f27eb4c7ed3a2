"""What `qkd certify` finds: the models fitted without the circuit, the closed form, the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from qkd_qiskit.experiments.json_codec import OMITTED, decode
from qkd_qiskit.experiments.results import Comparison
from qkd_qiskit.experiments.run_folder import CERTIFY, RunFolder, read_json

CERTIFICATE = "certificate.json"
Verdict = Literal["matters", "left_out", "open"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What was fitted in the place of the students.

    Attributes:
        name: What: the name of a twin's arm, no_circuit, linear_probe, no_entanglers, ...
        parameters: Its trained numbers.
        rival: Whether it has no circuit and at most as many trained numbers as the students: what
            the verdict is about.
        validation_accuracy: Mean over the seeds; None where a training failed.
        accuracy: Test accuracy of each seed; None where its training failed.
        ahead: At how many seeds the students are ahead of it.
        comparison: The students over it; None where there was no pair.
    """

    name: str
    parameters: int
    rival: bool
    validation_accuracy: float | None
    accuracy: tuple[float | None, ...]
    ahead: int
    comparison: Comparison


@dataclass(frozen=True, kw_only=True)
class ClosedForm:
    """The students as a plain torch module.

    Attributes:
        kind: quadratic (forms of normalised features) or fourier (sums in the angles).
        numbers: Numbers in it.
        difference: Largest difference of a logit from the student's, over the seeds.
        images: Validation images on which they were compared.
        files: Of each seed, inside the run; torch.export.load reads them.
    """

    kind: str
    numbers: int
    difference: float
    images: int
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Whether a run's circuit matters.

    Attributes:
        arm: Whose students.
        seeds: Their seeds.
        parameters: Their trained numbers.
        accuracy: Test accuracy of each; None where its training failed.
        margin: Points below which a rival is as good.
        verdict: matters, left_out or open.
        best: The rival of the best validation accuracy; None without a rival.
        variants: What was fitted in their place.
        refused: Why something was not fitted, by name.
        closed_form: The students in closed form; None where it was refused.
    """

    arm: str
    seeds: tuple[int, ...]
    parameters: int
    accuracy: tuple[float | None, ...]
    margin: float
    verdict: Verdict
    best: str | None
    variants: tuple[Variant, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    closed_form: ClosedForm | None = field(default=None, metadata=OMITTED)

    def variant(self, name: str) -> Variant:
        """Return a variant by its name."""
        return next(it for it in self.variants if it.name == name)


def read_certificates(folder: RunFolder) -> list[Certificate]:
    """Return the certificates of a run, an arm each.

    Raises:
        CheckpointError: A file is damaged.
    """
    paths = sorted((folder.path / CERTIFY).glob(f"*/{CERTIFICATE}"))
    return [decode(Certificate, read_json(path), where=path) for path in paths]
