"""What Aer's density matrix gives for a compiled circuit: the reference of the noisy engine."""

import copy
import dataclasses

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit_aer import AerSimulator
from qiskit_aer.library import SaveProbabilities
from qiskit_aer.noise import QuantumError


def without_negligible_terms(noisy):
    """The noisy circuit without error terms of a probability below 1e-10.

    Aer passes over them and does not give their share to the others: a density matrix loses up to
    1e-9 of its trace at each two-qubit gate.
    """
    model = copy.deepcopy(noisy.noise_model)
    for errors in model._local_quantum_errors.values():
        for where, error in errors.items():
            terms = list(zip(error.circuits, error.probabilities, strict=True))
            kept = [(circuit, chance) for circuit, chance in terms if chance > 1e-10]
            total = sum(chance for _, chance in kept)
            errors[where] = QuantumError([(circuit, chance / total) for circuit, chance in kept])
    reduced = dataclasses.replace(noisy, noise_model=model)
    gates = {
        (name, where): model._local_quantum_errors[name][where].to_quantumchannel().data
        for name, where in noisy.channels.gates
    }
    vars(reduced)["channels"] = dataclasses.replace(noisy.channels, gates=gates)
    return reduced


def aer_probabilities(compiled, values, *, readout=None, noisy=None):
    """Rows (batch, 2**n) of the exact probabilities, readout errors included.

    `readout` gives the matrix A[true, measured] per logical qubit; default: the noise model's.
    `noisy` stands in for the compiled circuit's own noise.
    """
    noisy = compiled.program.noisy if noisy is None else noisy
    bare = QuantumCircuit(noisy.circuit.num_qubits)
    where = {}
    for instruction in noisy.circuit.data:
        qubits = [noisy.circuit.find_bit(qubit).index for qubit in instruction.qubits]
        if instruction.operation.name == "measure":
            where[noisy.circuit.find_bit(instruction.clbits[0]).index] = qubits[0]
        elif instruction.operation.name != "barrier":
            bare.append(instruction.operation, qubits)
    order = [where[bit] for bit in range(compiled.num_qubits)]
    bare.append(SaveProbabilities(len(order)), order)
    simulator = AerSimulator(
        method="density_matrix",
        noise_model=noisy.noise_model,
        max_parallel_threads=1,
        fusion_enable=False,
    )
    confusion = np.ones((1, 1))
    for bit, qubit in enumerate(order):
        errors = noisy.noise_model._local_readout_errors
        known = errors[(qubit,)].probabilities if (qubit,) in errors else np.eye(2)
        matrix = known if readout is None else readout[bit]
        confusion = np.kron(np.asarray(matrix), confusion)
    rows = []
    for row in np.asarray(values):
        names = dict(zip(compiled.parameters, row, strict=True))
        bound = bare.assign_parameters({p: names[p.name] for p in bare.parameters})
        rows.append(simulator.run(bound).result().data(0)["probabilities"] @ confusion)
    return np.stack(rows)
