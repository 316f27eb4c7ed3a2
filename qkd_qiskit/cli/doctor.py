"""`qkd doctor`: what is installed, found and usable on this machine, for a report or before a run.

Nothing is sent anywhere, and of an account no more is said than whether there is one.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from qkd_qiskit.cli.command_parser import CommandParser
from qkd_qiskit.cli.line_breaks import broken

State = Literal["ok", "note", "problem"]
PACKAGES = (
    "qkd-qiskit",
    "qiskit",
    "qiskit-machine-learning",
    "qiskit-aer",
    "qiskit-ibm-runtime",
    "torch",
    "torchvision",
    "numpy",
    "numba",
)
DATA_SETS = {
    "mnist": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: What was looked at.
        state: Ok; note, where something can be had and is not; problem, where a run would fail.
        text: What was found, and what to do where it is not ok.
    """

    name: str
    state: State
    text: str


def doctor_parser(words: Sequence[str], name: str) -> CommandParser:
    """Return the parser of `qkd doctor`."""
    parser = CommandParser(
        name,
        description="Say what is installed, found and usable here: versions, cores, memory, the "
        "compiled kernel, data sets, the cache, an account. Sends nothing; shows no secret.",
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    return parser


def run_doctor(options: Namespace, words: Sequence[str]) -> int:
    """Print what was found; returns 1 where a run would fail, else 0."""
    if not options.json:
        print("looking at what is installed ...", file=sys.stderr, flush=True)
    findings = [finding for look in LOOKS for finding in _findings(look)]
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            mark = {"ok": " ", "note": "-", "problem": "!"}[finding.state]
            line = f"{mark} {finding.name:<{width}}  {finding.text}"
            print(broken(line, indent=width + 4))
        problems = sum(finding.state == "problem" for finding in findings)
        print(f"\n{problems} problems" if problems != 1 else "\n1 problem")
    return int(any(finding.state == "problem" for finding in findings))


def _findings(look: Callable[[], list[Finding]]) -> list[Finding]:
    """Return what a look finds; a library that cannot be imported is what it finds, too."""
    try:
        return look()
    except ImportError as error:
        name = look.__name__.strip("_")
        return [Finding(name, "problem", f"{error}: install the package and what it needs again")]


def _client() -> list[Finding]:
    """Return a note where the client of IBM Quantum is another than the one that was tested."""
    from qkd_qiskit.targets.ibm.client_version import PACKAGE, version_fault

    untested = version_fault()
    return [] if untested is None else [Finding(PACKAGE, "note", untested)]


def _versions() -> list[Finding]:
    found = [Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")]
    for package in PACKAGES:
        try:
            found.append(Finding(package, "ok", version(package)))
        except PackageNotFoundError:
            text = f"not installed: pip install {package}"
            found.append(Finding(package, "problem", text))
    return found


def _machine() -> list[Finding]:
    import torch

    from qkd_qiskit.simulator.memory import available_bytes

    free = available_bytes()
    memory = "unknown" if free is None else f"{free / 2**30:.1f} GiB free"
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{usable} usable, {torch.get_num_threads()} used by torch; memory: {memory}"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch can use"
    return [Finding("cores", "ok", text), Finding("gpu", "ok", gpu)]


def _kernel() -> list[Finding]:
    """Run a circuit through the compiled kernel, which compiles it where it is not yet."""
    import torch

    from qkd_qiskit.recipe import StudentSpec
    from qkd_qiskit.simulator.run import kernel_works
    from qkd_qiskit.students import make_student

    print("compiling the kernel, or loading it ...", file=sys.stderr, flush=True)
    began = time.perf_counter()
    if not kernel_works():
        text = "not usable, so torch is used, which is slower; the reason is above"
        return [Finding("kernel", "note", text)]
    student = make_student(
        StudentSpec(kind="hybrid", qubits=4), image_shape=(1, 4, 4), num_classes=2
    )
    student(torch.rand(2, 1, 4, 4)).sum().backward()
    return [Finding("kernel", "ok", f"compiled; ready after {time.perf_counter() - began:.1f} s")]


def _data() -> list[Finding]:
    from qkd_qiskit.data.sources import data_root

    root = data_root(None)
    found = [
        Finding("data root", "ok", f"{root} ({'QKD_DATA' if _given('QKD_DATA') else 'default'})")
    ]
    for name, folder in DATA_SETS.items():
        there = (root / folder).is_dir()
        missing = "not there: give --data.root or QKD_DATA"
        if name != "cifar10":
            missing += ", or let torchvision download it"
        found.append(Finding(f"  {name}", "ok" if there else "note", folder if there else missing))
    return found


def _cache() -> list[Finding]:
    from qkd_qiskit.storage import cache_path

    path = cache_path("teachers", "")
    assert path is not None
    folder = path.parent.parent
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(nearest, os.W_OK):
        text = f"{folder} cannot be written: set QKD_CACHE to a folder, or teachers train each time"
        return [Finding("cache", "note", text)]
    files = [file for file in folder.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    return [Finding("cache", "ok", f"{folder}: {len(files)} files, {size / 2**20:.0f} MiB")]


def _account() -> list[Finding]:
    from qkd_qiskit.targets.ibm.account import URL

    rehearsal = os.environ.get(URL)
    if rehearsal:
        text = f"{URL} is set: commands talk to a rehearsal, not to IBM Quantum"
        return [Finding("account", "note", text)]
    if _given("QISKIT_IBM_TOKEN"):
        return [Finding("account", "ok", "in QISKIT_IBM_TOKEN")]
    if _holds_accounts(Path.home() / ".qiskit" / "qiskit-ibm.json"):
        return [Finding("account", "ok", "saved by the Runtime client")]
    text = "none: only simulators; save one with QiskitRuntimeService.save_account(...)"
    return [Finding("account", "note", text)]


def _holds_accounts(file: Path) -> bool:
    """Return whether there is an account; the client leaves {} where the last one was deleted."""
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def _given(variable: str) -> bool:
    return bool(os.environ.get(variable))


LOOKS: tuple[Callable[[], list[Finding]], ...] = (
    _versions,
    _client,
    _machine,
    _kernel,
    _data,
    _cache,
    _account,
)
