"""Time whole commands, from the shell's return key to the report, in seconds of CPU.

    python benchmarks/commands.py [--against CHECKOUT] [--commands distill,evaluate,study,import]

- `distill`: `qkd distill digits`, 3 seeds on exact and fake_torino, report included.
- `evaluate`: `qkd evaluate RUN --target fake_torino` of such a run that has exact figures alone: 6
  students with circuits.
- `study`: `qkd study digits --seeds 10 --jobs 1`.
- `import`: `from qkd_qiskit import distill`; and what `import torch` alone takes.

CPU time of the process and of all that it starts, the kernel compiled before. With another checkout
of this repository both have their turns one after the other; a ratio is the median of the turns'
ratios. Writes benchmarks/results/commands.csv; commands that are not timed keep their rows.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from helps import read, write_csv

HERE = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
COLUMNS = ("command", "ours_cpu_s", "against_cpu_s", "ratio")
QKD = ["-c", "from qkd_qiskit.cli import main; raise SystemExit(main())"]
COMMANDS = {
    "distill": [*QKD, "distill", "digits", "--quiet", "--out", "{out}"],
    "evaluate": [*QKD, "evaluate", "{run}", "--target", "fake_torino", "--quiet"],
    "study": [
        *(*QKD, "study", "digits", "--seeds", "10", "--jobs", "1"),
        *("--quiet", "--out", "{out}"),
    ],
    "import": ["-c", "from qkd_qiskit import distill"],
    "import torch": ["-c", "import torch"],
}


def seconds(words: list[str], *, source: Path) -> float:
    """Return the seconds of CPU that Python takes for these words, of one checkout."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # A folder without a package in it: what is imported is what PYTHONPATH names.
    subprocess.run(
        [sys.executable, *words],
        env=os.environ | {"PYTHONPATH": str(source)},
        cwd=tempfile.gettempdir(),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def turn(name: str, *, source: Path, folder: Path) -> float:
    """Return the seconds of one command; what it needs is made before, and not timed."""
    run = folder / "run"
    if name == "evaluate":
        words = [word.format(out=run) for word in COMMANDS["distill"]]
        seconds([*words, "--targets", "exact"], source=source)
    words = [word.format(out=folder / "out", run=run) for word in COMMANDS[name]]
    return seconds(words, source=source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    sources = {"ours": HERE} | ({"against": options.against} if options.against else {})
    rows = {row["command"]: row for row in read(RESULTS / "commands.csv")}
    for name in options.commands.split(","):
        taken: dict[str, list[float]] = {key: [] for key in sources}
        for _ in range(options.turns):
            for key, source in sources.items():
                with tempfile.TemporaryDirectory() as folder:
                    taken[key].append(turn(name, source=source.resolve(), folder=Path(folder)))
        row = {"command": name} | {
            f"{key}_cpu_s": f"{statistics.median(each):.2f}" for key, each in taken.items()
        }
        if "against" in taken:
            ratios = [b / a for a, b in zip(taken["ours"], taken["against"], strict=True)]
            row["ratio"] = f"{statistics.median(ratios):.2f}"
        rows[name] = row
        print(row, flush=True)
        kept = [rows[key] for key in COMMANDS if key in rows]
        write_csv(
            RESULTS / "commands.csv", COLUMNS, [dict.fromkeys(COLUMNS, "") | it for it in kept]
        )


if __name__ == "__main__":
    main()
