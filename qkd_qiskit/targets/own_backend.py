"""A user's own backend or sampler as a target.

A `BackendV2` that describes its errors is simulated as any device is. Any other, and an
`AerSimulator` with what noise it has, runs the circuits itself; so does any V2 sampler.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.primitives import BackendSamplerV2, BaseSamplerV2, BitArray
from qiskit.providers import BackendV2

from qkd_qiskit.errors import TargetError, first_line
from qkd_qiskit.targets import noise
from qkd_qiskit.targets.base import Target
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit, measure_all_qubits
from qkd_qiskit.targets.measured_program import Basis, MeasuredProgram, ShotProgram, registers_of
from qkd_qiskit.targets.measured_targets import in_basis, is_isa
from qkd_qiskit.targets.noisy import DeviceTarget, ReadoutMitigation
from qkd_qiskit.targets.sampling import count_outcomes
from qkd_qiskit.targets.transpilation import best_transpilation, initial_layout, measured_qubits

Transpile = Callable[[QuantumCircuit], QuantumCircuit]


class SamplerTarget(Target):
    """A V2 sampler and what transpiles circuits for it."""

    def __init__(
        self,
        make_sampler: Callable[[int], Any],
        *,
        transpile: Transpile | None,
        name: str,
        shots: int = 4096,
        seed: int = 0,
        device: Any = None,
    ):
        """Take what makes a sampler.

        Args:
            make_sampler: gives the sampler for a seed.
            transpile: what a circuit goes through first; None: it runs as it is.
            name: name of the target, for results.
            shots: shots per row of a batch.
            seed: seed that the sampler's seeds derive from, where it takes any.
            device: description (`BackendV2.target`) that tells transpiled circuits from others.

        Raises:
            TargetError: shots or seed is not accepted.
        """
        super().__init__(name, shots=shots, seed=seed)
        self._make_sampler, self._transpile, self._device = make_sampler, transpile, device

    def measured_program(
        self, circuit: QuantumCircuit, *, basis: Basis | None = None
    ) -> MeasuredProgram:
        """Return a circuit with measurements of its own as the sampler runs it."""
        is_ready = self._transpile is None or self._is_transpiled(circuit)
        device = self._device if self._is_transpiled(circuit) else None
        given = circuit if basis is None else in_basis(circuit, basis, device=device)
        isa = given if is_ready else self._prepared(given)
        names = tuple(parameter.name for parameter in given.parameters)
        return ShotProgram(registers_of(given), functools.partial(self._bits, isa, names))

    def _is_transpiled(self, circuit: QuantumCircuit) -> bool:
        if self._device is None:
            return circuit.layout is not None
        return bool(self._device.num_qubits) and is_isa(circuit, self._device)

    def _prepared(self, circuit: QuantumCircuit) -> QuantumCircuit:
        if self._transpile is None:
            return circuit
        try:
            return self._transpile(circuit)
        except TargetError:
            raise
        except Exception as error:  # of any type: it is the user's pass manager
            raise TargetError(
                f"circuit {circuit.name!r} could not be transpiled for {self.name}: "
                f"{first_line(error)}"
            ) from error

    def _compile(
        self, circuit: QuantumCircuit, parameters: tuple[Parameter, ...]
    ) -> CompiledCircuit:
        isa = self._prepared(measure_all_qubits(circuit))
        return CompiledCircuit(
            target=self.name,
            circuit=isa,
            parameters=tuple(parameter.name for parameter in parameters),
            num_qubits=circuit.num_qubits,
            layout=initial_layout(isa, circuit.num_qubits),
            measured=measured_qubits(isa),
            two_qubit_gates=noise.count_two_qubit_gates(isa),
            depth=isa.depth(),
            duration_s=None,
            fidelity=math.nan,  # only the sampler knows its noise
            program=None,
        )

    def _run(
        self, compiled: CompiledCircuit, values: NDArray[np.float64], *, shots: int, seed: int
    ) -> NDArray[np.float64]:
        try:
            bits = self._bits(compiled.circuit, compiled.parameters, values, shots=shots, seed=seed)
        except Exception as error:  # of any type: it is another library's
            raise TargetError(
                f"{self.name} could not run the circuit: {first_line(error)}"
            ) from error
        measured = bits[compiled.circuit.cregs[-1].name]
        frequencies: NDArray[np.float64] = count_outcomes(measured) / measured.num_shots
        return frequencies

    def _bits(
        self,
        circuit: QuantumCircuit,
        names: tuple[str, ...],
        values: NDArray[np.float64],
        *,
        shots: int,
        seed: int,
    ) -> Mapping[str, BitArray]:
        """Return the bits of each register (batch,); columns of `values` have these names."""
        live = [parameter.name for parameter in circuit.parameters]
        columns = [names.index(name) for name in live]
        pubs: list[tuple[Any, ...]] = [(circuit, {tuple(live): values[:, columns]}, shots)]
        if not live:  # there is nothing that would give a PUB its shape
            pubs = [(circuit, None, shots)] * len(values)
        data = [result.data for result in self._make_sampler(seed).run(pubs).result()]
        bits = {}
        for register in circuit.cregs:
            arrays = [part[register.name].array for part in data]
            joined = np.concatenate([array.reshape(-1, *array.shape[-2:]) for array in arrays])
            bits[register.name] = BitArray(joined, register.size)
        return bits

    def _run_exactly(
        self, compiled: CompiledCircuit, values: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        raise TargetError(
            f"{self.name} gives shots only; for exact probabilities use exact, or a backend whose "
            "target describes its errors"
        )


class BackendTarget(SamplerTarget):
    """A backend that runs circuits itself, with whatever noise it has."""

    def __init__(self, backend: Any, *, name: str, shots: int = 4096, seed: int = 0):
        """Take a `BackendV2` whose `run` gives counts with `memory=True`.

        Args:
            backend: the backend.
            name: name of the target.
            shots: shots per row of a batch.
            seed: seed that transpiler and simulator seeds derive from.

        Raises:
            TargetError: shots or seed is not accepted.
        """
        super().__init__(
            # Not Aer's own sampler: it drops the parameters of controlled gates.
            lambda seed: BackendSamplerV2(backend=backend, options={"seed_simulator": seed}),
            transpile=self._best,
            name=name,
            shots=shots,
            seed=seed,
            device=backend.target,
        )
        self.backend = backend

    def _best(self, circuit: QuantumCircuit) -> QuantumCircuit:
        seeds = self._transpiler_seeds(1 if self.backend.coupling_map is None else 10)
        return best_transpilation(circuit, self.backend.target, seeds=seeds, name=self.name)


def target_from_sampler(
    sampler: Any,
    *,
    pass_manager: Any = None,
    shots: int = 4096,
    seed: int = 0,
    name: str | None = None,
) -> SamplerTarget:
    """Return a V2 sampler as a target; its seed, if any, is its own.

    Args:
        sampler: any `BaseSamplerV2`.
        pass_manager: what circuits go through first, as Qiskit's `generate_preset_pass_manager`
            gives it; default: they run as they are.
        shots: shots per row of a batch.
        seed: seed of the target; the sampler does not get it.
        name: name of the target; default: the sampler's class.

    Raises:
        TargetError: it is no V2 sampler, or shots or seed is not accepted.
    """
    if not isinstance(sampler, BaseSamplerV2):
        raise TargetError(
            f"sampler is a {type(sampler).__name__}; accepted is a BaseSamplerV2, such as Qiskit's "
            "StatevectorSampler or Aer's SamplerV2"
        )
    return SamplerTarget(
        lambda _: sampler,
        transpile=None if pass_manager is None else pass_manager.run,
        name=name or type(sampler).__name__,
        shots=shots,
        seed=seed,
    )


def target_from_backend(
    backend: Any,
    *,
    shots: int | None = 4096,
    seed: int = 0,
    name: str | None = None,
    scale: float = 1.0,
    readout_mitigation: bool | ReadoutMitigation = False,
) -> Target:
    """Return a `BackendV2` as a target.

    - Where its `target` describes errors, T1 and T2: a `DeviceTarget` with this noise.
    - An `AerSimulator`, and any backend without such a description: it runs the circuits itself,
      and with them whatever noise it has.

    Args:
        backend: a fake backend, a `GenericBackendV2`, an `AerSimulator`, one of your own.
        shots: shots per row of a batch; None, where noise is described: exact probabilities.
        seed: seed that transpiler and shot seeds derive from.
        name: name of the target; default: the backend's.
        scale: what described noise is multiplied by.
        readout_mitigation: as for `DeviceTarget`, where noise is described.

    Raises:
        TargetError: it is no `BackendV2`, is a real device, or an option is not accepted.
    """
    if not isinstance(backend, BackendV2):
        raise TargetError(
            f"backend is a {type(backend).__name__}; accepted is a BackendV2; a target's name goes "
            "to Target.parse"
        )
    name = name or str(backend.name)
    if _is_real(backend):
        raise TargetError(
            f"{name} is a real device: it is reached by submission (`qkd submit`); to simulate it, "
            "save its calibration with save_snapshot and give the file to Target.parse"
        )
    if not _is_simulator(backend) and _describes_noise(backend.target):
        return DeviceTarget(
            backend,
            name=name,
            shots=shots,
            seed=seed,
            scale=scale,
            readout_mitigation=readout_mitigation,
        )
    if scale != 1 or readout_mitigation:
        raise TargetError(
            f"{name} runs circuits itself: scale and readout_mitigation are accepted where a "
            "backend's target describes errors, T1 and T2"
        )
    if shots is None:
        raise TargetError(f"{name} gives shots only; give their number")

    return BackendTarget(backend, name=name, shots=shots, seed=seed)


def _is_simulator(backend: Any) -> bool:
    from qiskit_aer import AerSimulator

    return isinstance(backend, AerSimulator)


def _is_real(backend: Any) -> bool:
    if not type(backend).__module__.startswith("qiskit_ibm_runtime"):
        return False  # without the import of a second
    from qiskit_ibm_runtime import IBMBackend

    return isinstance(backend, IBMBackend)


def _describes_noise(device: Any) -> bool:
    relaxing = any(
        getattr(known, "t1", None) and getattr(known, "t2", None)
        for known in device.qubit_properties or ()
    )
    return relaxing and any(
        getattr(properties, "error", None)
        for name in device.operation_names
        for properties in (device[name] or {}).values()
    )
