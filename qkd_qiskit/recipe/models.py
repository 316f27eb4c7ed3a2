"""The teacher and the student."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from qkd_qiskit.recipe.display import short_repr
from qkd_qiskit.recipe.observables import read_pauli_sum
from qkd_qiskit.recipe.validation import (
    BatchSize,
    Count,
    Epochs,
    LearningRate,
    Positive,
    Range,
    Seed,
    Weight,
    Width,
    check_fields,
    require,
    whole_number,
)

TeacherKind = Literal[
    "softmax",
    "mlp",
    "small_cnn",
    "lenet5",
    "alexnet",
    "ensemble",
    "quanvolution",
    "random_quanvolution",
    "convolution",
    "module",
    "logits",
    "run",
]
TeacherOutputs = Literal["logits", "probabilities", "log_probabilities", "sigmoid"]
UNTRAINED_TEACHERS: tuple[TeacherKind, ...] = ("logits", "run")  # no network is trained for them
IMAGE_TEACHERS: tuple[TeacherKind, ...] = (  # their layers look at neighbouring pixels
    "small_cnn",
    "lenet5",
    "alexnet",
    "ensemble",
    "quanvolution",
    "random_quanvolution",
    "convolution",
)
TeacherAverage = Literal["probabilities", "logits"]
StudentKind = Literal[
    "quantum",
    "hybrid",
    "classical",
    "classical_full",
    "quanvolution",
    "convolution",
    "module",
    "pca_linear",
    "pooled_linear",
    "bilinear",
    "random_features",
    "butterfly",
    "small_convolution",
    "softmax",
    "no_circuit",
    "linear_probe",
    "no_entanglers",
    "frozen_circuit",
]
TWINS = (
    "pca_linear",
    "pooled_linear",
    "bilinear",
    "random_features",
    "butterfly",
    "small_convolution",
)
WITHOUT_CIRCUIT = ("no_circuit", "linear_probe")
CHANGED_CIRCUITS = ("no_entanglers", "frozen_circuit")
CLASSICAL_STUDENTS = ("classical", "classical_full", "softmax", *TWINS, *WITHOUT_CIRCUIT)
FILTER_STUDENTS = ("quanvolution", "convolution")
Encoding = Literal[
    "amplitude",
    "matrix_product",
    "angle",
    "reuploading",
    "trained_reuploading",
    "qubit",
    "entangled_qubit",
]
Ansatz = Literal[
    "ry_rz_ring",
    "real_amplitudes",
    "cz_line",
    "ry_cz_line",
    "ry_cz_brick",
    "ry_cz_ring",
    "ry_cz_patch",
    "ry_rzz_line",
    "local_rotations",
]
Reduction = Literal["none", "linear", "crop", "pca", "avg_pool", "max_pool", "cnn"]
Readout = Literal["bins", "modulo", "learned", "probabilities", "expectation"]
Head = Literal["none", "linear", "mlp"]
CLASS_BINS = ("bins", "modulo", "learned")


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """What teaches.

    Attributes:
        kind: Architecture; module = your own, named by `module`; logits = no network: what is
            taught are the `teacher_logits` or `teacher_probabilities` in your own `data.file`;
            run = trained students of an earlier run, named by `run`.
        module: For kind=module: import path `package.file:factory`;
            factory(image_shape, num_classes) returns an nn.Module that maps images
            (batch, channels, height, width) to logits, or to what `outputs` says.
        outputs: For kind=module: what it gives: logits, probabilities (of a softmax),
            log_probabilities or sigmoid (a probability for each class by itself), which are turned
            into logits; null = found from what it gives.
        run: For kind=run: folder of the run whose students teach.
        arm: For kind=run: arm of these students.
        seed: For kind=run: seed of the student that teaches; all = an ensemble of the students of
            all its seeds; each = the student of a seed teaches those of the same seed here.
        target: For kind=run: where the circuits of these students run: exact, fake_lima:exact, ...
        digest: SHA-256 of these students, written into a run's recipe when it begins.
        checkpoint: Safetensors file with trained weights; the teacher is then not trained.
        epochs: Training epochs.
        batch_size: Training batch size.
        lr: Adam's learning rate.
        weight_decay: Decoupled weight decay (AdamW).
        train_per_class: Training images per class for the teacher; null = all.
        same_draw: One teacher for each seed, trained on the images that the students of that seed
            train on.
        ensemble: How many networks teach together: the same specification on the same images, with
            other initial weights and another order; 1 = one network.
        average: What is averaged over the networks of an ensemble: probabilities (softened by the
            temperature that the student is taught at) or logits.
    """

    kind: TeacherKind = "softmax"
    module: str | None = None
    outputs: TeacherOutputs | None = None
    run: str | None = None
    arm: str = "distilled"
    seed: Seed | Literal["all", "each"] = "all"
    target: str = "exact"
    digest: str | None = None
    checkpoint: str | None = None
    epochs: Epochs = 60
    batch_size: BatchSize = 128
    lr: LearningRate = 0.01
    weight_decay: Weight = 0.0
    train_per_class: Count | None = None
    same_draw: bool = False
    ensemble: Annotated[int, whole_number(most=100)] = 1
    average: TeacherAverage = "probabilities"

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self, "teacher")
        require(
            (self.module is not None) == (self.kind == "module"),
            "teacher.module",
            self.module,
            "an import path `package.file:factory` exactly when teacher.kind is `module`",
        )
        require(
            self.outputs is None or self.kind == "module",
            "teacher.outputs",
            self.outputs,
            "null where teacher.kind is not `module`: the built-in kinds give logits",
        )
        require(
            (self.run is not None) == (self.kind == "run"),
            "teacher.run",
            self.run,
            "the folder of a run exactly when teacher.kind is `run`",
        )
        if self.kind in UNTRAINED_TEACHERS:
            for key, default in (("checkpoint", None), ("same_draw", False), ("ensemble", 1)):
                require(
                    getattr(self, key) == default,
                    f"teacher.{key}",
                    getattr(self, key),
                    f"another kind where teacher.kind is {self.kind}, which trains no network",
                )
        require(
            not self.same_draw or (self.checkpoint is None and self.train_per_class is None),
            "teacher.same_draw",
            self.same_draw,
            "false where teacher.checkpoint or teacher.train_per_class is given",
        )
        require(
            self.ensemble == 1 or self.checkpoint is None,
            "teacher.ensemble",
            self.ensemble,
            "1 where teacher.checkpoint is given, which holds one network",
        )


@dataclass(frozen=True, kw_only=True)
class StudentSpec:
    """What learns.

    Attributes:
        kind: quantum (no trainable classical layer), hybrid (trainable reduction and/or head),
            classical (the twin of the hybrid or quantum student that the other fields describe,
            with a matched number of parameters and no circuit), classical_full (the same with as
            many hidden units as it likes: `full_width`), convolution (three filters of 2x2
            pixels and a linear layer) or quanvolution (the same, the filters circuits), which take
            no other field, or module (your own network around a circuit layer, named by `module`).
            Twins of at most as many trained numbers as the student that the other fields describe:
            pca_linear, pooled_linear (means of pixels), bilinear (features u^T X v),
            random_features, each with a linear layer; butterfly (Givens rotations of amplitudes,
            squared into class bins), small_convolution. softmax: a linear layer on all pixels or
            features, whatever its size. That student changed: no_circuit (its
            features straight to a head), linear_probe (the same, the reduction not trained),
            no_entanglers (the circuit without gates on two qubits), frozen_circuit (circuit weights
            random and not trained).
        qubits: Width of the circuit.
        encoding: How features enter: amplitude (2^n features, exactly, by 2^n - 2 CX),
            matrix_product (2^n features as nearly as `loader_layers` can, by n - 1 CZ each, the
            angles fitted to each image), angle (one per qubit), reuploading (one per qubit and
            layer), trained_reuploading (two rotations w x + b per qubit and
            layer, w and b trained, which the features take in turn), qubit (four rotations per
            qubit), entangled_qubit (the same with CZ on a line between them).
        features: For encoding=trained_reuploading: how many features there are; null = two per
            qubit. The other encodings take as many as their qubits say.
        loader_layers: For encoding=matrix_product: staircases of CZ on a line that load an image.
        ansatz: Trainable part of the circuit.
        layers: Repetitions of the ansatz.
        reduction: From image to features: linear and cnn are trained; crop, pca, avg_pool, max_pool
            and none are fixed.
        readout: bins, modulo or learned (outcome probabilities summed into classes; learned = which
            outcome counts for which class is chosen from the labelled images before training),
            probabilities (all 2^n) or expectation (<Z> per qubit).
        head: none, or trained layers from readout to logits: linear, or mlp with one hidden layer.
        head_width: Hidden units of the head mlp.
        full_width: Hidden units of the kind classical_full.
        sharpness: gamma in logits = gamma log p of a class-bin readout: a number or `learned`.
        circuit: OpenQASM 3 file with parameters x_000... and w_000... in place of encoding, ansatz
            and layers.
        observables: For readout=expectation: what is measured in place of <Z> per qubit, as sums of
            Pauli strings, such as [ZZII, XIII, 0.5*ZIII+0.5*IZII]; qubit 0 is the last letter. On a
            target every basis that they need is a circuit with all shots.
        module: For kind=module: import path `package.file:factory`;
            factory(image_shape, num_classes) returns an nn.Module from images
            (batch, channels, height, width) to logits that holds one TorchConnector or
            CompiledConnector. Twins of other kinds have as many parameters as it.
    """

    kind: StudentKind = "hybrid"
    qubits: Annotated[int, Range(accepted="a whole number, 1 to 20", least=1, most=20)] = 4
    encoding: Encoding = "amplitude"
    features: Width | None = None
    loader_layers: Annotated[int, whole_number(most=100)] = 3
    ansatz: Ansatz = "real_amplitudes"
    layers: Annotated[int, whole_number(most=1000)] = 2
    reduction: Reduction = "linear"
    readout: Readout = "probabilities"
    head: Head = "linear"
    head_width: Width = 8
    full_width: Width = 8
    sharpness: Positive | Literal["learned"] = 8.0
    circuit: str | None = None
    observables: tuple[str, ...] | None = None
    module: str | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self, "student")
        self._check_observables()
        rotations = 2 * self.qubits * self.layers
        require(
            self.features is None
            or self.encoding != "trained_reuploading"
            or self.features <= rotations,
            "student.features",
            self.features,
            f"at most {rotations}: two rotations for each of {self.qubits} qubits and "
            f"{self.layers} layers",
        )
        require(
            self.module is None
            or self.kind in ("module", "classical", "classical_full", "softmax", *TWINS),
            "student.module",
            self.module,
            "an import path `package.file:factory` only where student.kind is `module`",
        )
        require(
            self.encoding != "matrix_product" or self.reduction not in ("linear", "cnn"),
            "student.reduction",
            self.reduction,
            "a fixed reduction (none, crop, pca, avg_pool, max_pool) for the encoding "
            "matrix_product, whose angles are fitted and cannot be differentiated",
        )
        if self.kind == "quantum":
            require(
                self.head == "none",
                "student.head",
                self.head,
                "none for kind quantum, which has no trainable classical layer, or kind hybrid",
            )
            require(
                self.reduction not in ("linear", "cnn"),
                "student.reduction",
                self.reduction,
                "a fixed reduction (none, crop, pca, avg_pool, max_pool) for kind quantum, "
                "which has no trainable classical layer, or kind hybrid",
            )
        if self.kind == "frozen_circuit":
            require(
                self.head != "none" or self.reduction in ("linear", "cnn"),
                "student.kind",
                self.kind,
                "another kind, or no arm of this kind, where nothing but the circuit is trained",
            )
        if self.head == "none":
            require(
                self.readout in CLASS_BINS,
                "student.readout",
                self.readout,
                "bins, modulo or learned where student.head is none, or student.head: linear",
            )

    def _check_observables(self) -> None:
        if self.observables is None:
            return
        require(
            self.readout == "expectation",
            "student.observables",
            list(self.observables),
            "null, or student.readout: expectation",
        )
        read = [read_pauli_sum(text) for text in self.observables]
        wrong = [text for text, terms in zip(self.observables, read, strict=True) if terms is None]
        require(
            len(read) > 0 and not wrong,
            "student.observables",
            wrong[0] if wrong else [],
            "one or more sums of Pauli strings of equal length, such as ZZII or "
            "0.5*ZIII-0.5*IZII, qubit 0 the last letter",
        )
