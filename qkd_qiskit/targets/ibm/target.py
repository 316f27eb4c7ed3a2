"""A real device as a target: every call of it is one key of a journal, run exactly once.

A training that was stopped begins again and asks for the same calls; those that were run are read
from the disk, so that it arrives where it was, with the same bits, and goes on from there.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from qiskit import qpy
from qiskit.circuit import Parameter, QuantumCircuit

from qkd_qiskit.errors import CheckpointError, TargetError
from qkd_qiskit.storage import write_atomic
from qkd_qiskit.targets import noise
from qkd_qiskit.targets.base import Target
from qkd_qiskit.targets.compiled_circuit import (
    CompiledCircuit,
    content_digest,
    measure_all_qubits,
)
from qkd_qiskit.targets.ibm.isa_check import check_circuit
from qkd_qiskit.targets.ibm.job_plan import Pub
from qkd_qiskit.targets.ibm.job_runner import Runner
from qkd_qiskit.targets.noisy import calibration_date
from qkd_qiskit.targets.transpilation import (
    best_transpilation,
    calibration_circuit,
    initial_layout,
    measured_qubits,
)

_DATE, _DURATION, _FIDELITY = "calibration_date", "duration_s", "estimated_fidelity"


class RuntimeTarget(Target):
    """A device behind a `Runner`; a call's probabilities are those of one PUB.

    A circuit is transpiled once in a run's life: it is kept in ``jobs/`` beside the counts, as the
    calibration, and with it the best layout, changes from day to day.
    """

    def __init__(
        self,
        backend: Any | None,
        *,
        runner: Runner,
        prefix: str,
        shots: int = 4096,
        seed: int = 0,
        num_transpilations: int = 10,
    ):
        """Take a device and the runner that submits to it.

        Args:
            backend: The device, with a calibrated `target`; None for one that the account has no
                more, whose jobs can still be read.
            runner: Submits, and keeps what was run.
            prefix: Beginning of the keys, such as ``train/``; the call's number follows.
            shots: Shots per row of a batch.
            seed: Seed of the transpiler, and of the shots where a simulator runs the jobs.
            num_transpilations: Transpiler seeds tried per circuit, the best is kept.

        Raises:
            TargetError: Shots or seed is not accepted.
        """
        super().__init__(runner.connection.name, shots=shots, seed=seed)
        self.backend, self.runner, self.prefix = backend, runner, prefix
        self.num_transpilations = num_transpilations
        self.calibration_date = None if backend is None else calibration_date(backend)

    def probabilities(
        self,
        compiled: CompiledCircuit,
        values: ArrayLike,
        *,
        shots: int | None = None,
        seed: int | None = None,
    ) -> NDArray[np.float64]:
        """Return measured frequencies (batch, 2**num_qubits), little-endian over logical qubits.

        Args:
            compiled: What `compile` of this target returned.
            values: As for `Target.probabilities`.
            shots: Shots per row in place of the target's.
            seed: Number of the call, which names it in the journal; None counts as 0.

        Raises:
            TargetError: As `Target.probabilities`.
            CheckpointError: The journal has another call of that number.
            SubmissionError: The service failed, or the job did.
        """
        rows = self._checked(compiled, values)
        if shots is not None and shots < 1:
            raise TargetError(f"shots is {shots}; accepted are whole numbers from 1")
        if not len(rows):
            return np.empty((0, 2**compiled.num_qubits))
        call = seed or 0
        pub = Pub.of(compiled, rows, shots=shots or self.shots or 1)
        (counts,) = self.runner.run(f"{self.prefix}{call:06d}", [pub], seed=self._shot_seed(call))
        # Twirling may have rounded the shots up.
        frequencies: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True)
        return frequencies

    def _compile(
        self, circuit: QuantumCircuit, parameters: tuple[Parameter, ...]
    ) -> CompiledCircuit:
        spec = self.runner.options
        given = f"{content_digest(circuit)}/{self.name}/{self.seed}/{self.num_transpilations}"
        chosen = (spec.layout, spec.optimization_level, spec.fractional)
        if chosen != (None, 3, False):
            given += f"/{chosen}"
        isa = self._kept(f"circuit/{given}", lambda: self._transpile(circuit))
        known = isa.metadata or {}
        self.calibration_date = known.get(_DATE, self.calibration_date)
        return self._describe(isa, tuple(parameter.name for parameter in parameters))

    def calibration(self, measured: tuple[int, ...]) -> CompiledCircuit:
        """Return the circuit that measures qubits in 0 and in 1, by its one angle: 0 or pi.

        Args:
            measured: Physical qubits, in the order of the bits that they are measured into.

        Raises:
            TargetError: The account has the device no more, and it was not made before.
        """
        isa = self._kept(
            f"calibration/{measured}/{self.name}",
            lambda: calibration_circuit(measured, noise.calibrated_part(self._device)),
        )
        return self._describe(isa, tuple(parameter.name for parameter in isa.parameters))

    def _kept(self, given: str, make: Callable[[], QuantumCircuit]) -> QuantumCircuit:
        """Return a circuit for the device: that which was made first."""
        kind, _, content = given.partition("/")
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        path = self.runner.journal.folder / "jobs" / f"{kind}-{digest}.qpy"
        if path.exists():
            # Not checked: jobs that were run with it are read whatever the device is now, and the
            # connection checks what is sent.
            return _read(path)
        isa = make()
        check_circuit(isa, self._device, name=self.name)
        isa.metadata = {_DATE: self.calibration_date, **self._estimates(isa)}
        write_atomic(path, lambda new: _write(isa, new))
        return isa

    def _describe(self, isa: QuantumCircuit, parameters: tuple[str, ...]) -> CompiledCircuit:
        known, num_qubits = isa.metadata or {}, isa.num_clbits
        estimates = known if _DURATION in known else self._estimates(isa)
        return CompiledCircuit(
            target=self.name,
            circuit=isa,
            parameters=parameters,
            num_qubits=num_qubits,
            layout=initial_layout(isa, num_qubits),
            measured=measured_qubits(isa),
            two_qubit_gates=noise.count_two_qubit_gates(isa),
            depth=isa.depth(),
            duration_s=estimates[_DURATION],
            fidelity=estimates[_FIDELITY],
            program=None,
        )

    def _estimates(self, isa: QuantumCircuit) -> dict[str, float]:
        return {
            _DURATION: float(isa.estimate_duration(self._device, unit="s")),
            _FIDELITY: noise.estimate_fidelity(isa, self._device),
        }

    @property
    def _device(self) -> Any:
        if self.backend is None:
            raise TargetError(
                f"the account has {self.name} no more, and a circuit is not compiled for it yet; "
                "begin anew with another --backend"
            )
        return self.backend.target

    def _transpile(self, circuit: QuantumCircuit) -> QuantumCircuit:
        device = noise.calibrated_part(self._device)
        have = len(device["measure"]) if "measure" in device else 0
        if circuit.num_qubits > have:
            raise TargetError(
                f"circuit {circuit.name!r} has {circuit.num_qubits} qubits, {self.name} has "
                f"{have} calibrated; use a smaller circuit or a larger device"
            )
        self._check_layout(circuit, device)
        return best_transpilation(
            measure_all_qubits(circuit),
            device,
            seeds=self._transpiler_seeds(self.num_transpilations),
            name=self.name,
            optimization_level=self.runner.options.optimization_level,
            layout=self.runner.options.layout,
        )

    def _check_layout(self, circuit: QuantumCircuit, device: Any) -> None:
        layout = self.runner.options.layout
        if layout is None:
            return
        usable = {where[0] for where in device["measure"]}
        wrong = [qubit for qubit in layout if qubit not in usable]
        if len(layout) != circuit.num_qubits or wrong:
            why = f"{wrong[0]} is not calibrated" if wrong else f"it has {len(layout)} qubits"
            raise TargetError(
                f"layout {', '.join(map(str, layout))} is not accepted for a circuit of "
                f"{circuit.num_qubits} qubits on {self.name} ({why}); give {circuit.num_qubits} "
                f"of its qubits {min(usable)} to {max(usable)}, or leave it out"
            )

    def _run(
        self, compiled: CompiledCircuit, values: NDArray[np.float64], *, shots: int, seed: int
    ) -> NDArray[np.float64]:
        raise AssertionError  # `probabilities` goes another way

    def _run_exactly(
        self, compiled: CompiledCircuit, values: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        raise TargetError(
            f"{self.name} is a real device, whose exact probabilities nobody knows; evaluate on "
            "exact, or on a snapshot of its calibration"
        )


def _write(circuit: QuantumCircuit, path: Path) -> None:
    with path.open("wb") as file:
        qpy.dump(circuit, file)


def _read(path: Path) -> QuantumCircuit:
    try:
        with path.open("rb") as file:
            (circuit,) = qpy.load(file)
    except Exception as error:  # of many types, for a damaged file
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}); bring back a copy: jobs that were "
            "run used this circuit"
        ) from error
    return circuit
