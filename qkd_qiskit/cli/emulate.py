"""`qkd targets rehearse`: a Runtime service on this machine, to submit to before paying."""

from __future__ import annotations

import json
import shlex
import signal
import threading
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from qkd_qiskit.cli.command_parser import TARGETS, CommandParser

if TYPE_CHECKING:
    from qkd_qiskit.targets.ibm.emulator import ServiceEmulator

_LOOK_S = 0.5


def rehearse_parser(name: str) -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        name,
        description="Serve a simulated device as IBM Quantum would serve the real one, on this "
        "machine alone. What is submitted to it costs nothing; Ctrl-C ends it and says what it "
        "received.",
    )
    parser.add_argument(
        "device",
        type=str,
        values=[TARGETS],
        help="a device snapshot such as fake_torino, or several: a,b",
    )
    parser.add_argument("--port", type=int, default=0, help="port; default: a free one")
    parser.add_argument(
        "--plan",
        type=str,
        default="premium",
        values=("premium", "open"),
        help="premium, or open: no sessions, 600 s",
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        help="what goes wrong, such as submit:503:accepted, job:429:retry_after=1:times=3, "
        "run:fail:rate=0.1 or submit:cut:after=2; can be given several times",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of faults with a rate, and of untagged jobs"
    )
    parser.add_argument(
        "--limits",
        action="store_true",
        help="enforce the limits of the plan: 5 new jobs a minute, on the Open Plan 3 that wait "
        "or run",
    )
    parser.add_argument("--ideal", action="store_true", help="simulate without noise")
    parser.add_argument("--ledger", type=str, help="JSON file for all that was received")
    return parser


def run_rehearse(options: Namespace) -> int:
    """Serve until SIGINT or SIGTERM; return the exit status."""
    from qkd_qiskit.storage import write_text
    from qkd_qiskit.targets.ibm.emulator import Faults, ServiceEmulator

    server = ServiceEmulator(
        options.device.split(","),
        port=options.port,
        plan=options.plan,
        faults=Faults(options.fault, seed=options.seed),
        seed=options.seed,
        noisy=not options.ideal,
        limits=options.limits,
    )
    ended = threading.Event()

    def end(number: int, frame: Any) -> None:
        ended.set()

    # Set here, because a shell starts background commands with SIGINT ignored.
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with server:
            print(_instructions(server, options), flush=True)
            while not ended.wait(_LOOK_S):  # a wait without end cannot be interrupted on Windows
                pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    print(f"\nreceived:\n{server.ledger.summary()}", flush=True)
    if options.limits:
        print(f"refused, because there were too many jobs: {server.limits.refused}")
    if options.ledger:
        write_text(options.ledger, json.dumps(server.ledger.as_dict(), indent=1) + "\n")
        print(f"ledger: {options.ledger}")
    return 0


def _instructions(server: ServiceEmulator, options: Namespace) -> str:
    devices = list(server.backends.values())
    noise = "without noise" if options.ideal else "with the noise of the snapshot"
    lines = [f"rehearsal at {server.url}, {options.plan} plan"]
    lines += [f"  {device.name}: {device.fake_name}, {noise}" for device in devices]
    limits = server.limits.limits.describe()
    lines += [f"  limits: {limits}"] if limits else []
    lines += [f"  fault: {fault}" for fault in server.faults.armed]
    lines += ["", "in another terminal, which must not be used for the real device afterwards:", ""]
    lines += [
        f"  export {name}={shlex.quote(value)}" for name, value in server.environment().items()
    ]
    lines += ["", f"  qkd submit RUN --backend {devices[0].name}", ""]
    lines.append("Ctrl-C ends the rehearsal and says what it received")
    return "\n".join(lines)
