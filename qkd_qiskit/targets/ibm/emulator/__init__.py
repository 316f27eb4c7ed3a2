"""A rehearsal: IBM's Runtime service on this machine, to submit to before anything is paid.

`ServiceEmulator` serves the Runtime REST API on loopback. The true, unmodified client of
qiskit-ibm-runtime talks to it, in job, batch and session mode, and the commands of this package
through it: what is rehearsed is word for word what will be paid for::

    from qkd_qiskit.targets.ibm.emulator import Faults, ServiceEmulator

    with ServiceEmulator("fake_torino", faults=Faults(["submit:503:accepted"])) as server:
        os.environ.update(server.environment())
        ...                                    # submit to ibm_torino
        print(server.ledger.summary())

On the command line, `qkd targets rehearse fake_torino` prints the variables to export.

What runs the circuits
    Aer, with the noise of the device's snapshot on the used qubits and with its idle times: exactly
    what the target ``fake_torino:aer`` runs. Circuits must be in the device's gates and coupling,
    as for the real one; they arrive as bytes (QPY, float64 angles), so nothing is rounded.

Which counts are equal to which
    A job tagged ``seed:7`` is simulated with seed 7. Its counts are then bit for bit those that
    ``fake_torino:aer`` samples for the same ISA circuit, angles and shots with simulator seed 7;
    real servers do not read the tag. ``seed:7,8`` gives each of two PUBs its own. Without it, seeds
    derive from the content of each PUB and the server's seed. Neither the order of jobs nor faults
    change a count. A PUB that is cut into several draws other shots than the whole. The local mode
    of the client, ``Sampler(mode=fake_backend)``, does not give these counts: it rounds angles to
    pi/2 * 1e-5, simulates the whole device and leaves out the noise of idle times; the two agree
    within shots and that noise. Twirled circuits are randomised from the same seed: repeatable, and
    not equal to an untwirled run.

What it charges
    By the model in `usage_model.py`: a job that is completed costs what the model says,
    one that fails by the service's fault or before it runs costs nothing, one stopped at its
    maximum time costs that time. A session also costs the waits between its jobs, as they pass on
    this machine's clock. Simulating takes less, or more, time than that: nothing is slowed down.

What goes wrong
    See `fault_injection.py`. Faults can be scripted or random, and be changed while the server
    runs, with `ServiceEmulator.faults` or ``POST /rehearsal/faults``; ``GET /rehearsal/ledger``
    gives a process outside what was received.

What it is not
    A proof that the service will behave so: status codes and error numbers are those that are
    documented or have been reported, there are no other users in the queue, tokens are not signed,
    and nothing is kept when the server ends.
"""

from qkd_qiskit.targets.ibm.emulator.fault_injection import Fault, Faults
from qkd_qiskit.targets.ibm.emulator.ledger import Ledger, LedgerJob, LedgerSession, PubLoad
from qkd_qiskit.targets.ibm.emulator.server import ServiceEmulator

__all__ = [
    "Fault",
    "Faults",
    "Ledger",
    "LedgerJob",
    "LedgerSession",
    "PubLoad",
    "ServiceEmulator",
]
