"""The commands: what each does, and where its options and its work are."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from qkd_qiskit.cli.command_parser import CommandParser

SWEEPS = {
    "noise": "under the noise of devices, scaled: noise RUN",
    "shots": "from ever more shots: shots RUN",
    "drift": "on later days of a drifting calibration: drift RUN",
}
RECIPES = {
    "list": "list them",
    "show": "print one as YAML: show RECIPE",
    "schema": "print the JSON Schema of recipes, for editors",
}
CIRCUITS = {
    "list": "list them",
    "show": "draw one: show CIRCUIT",
    "export": "write all as OpenQASM 3 and drawings: export DIRECTORY",
}
RUNS = {
    "list": "list those of a folder: list [ROOT]",
    "show": "what a run is and found: show RUN",
    "compare": "what differs between runs: compare RUN RUN ...",
    "extend": "add seeds or arms: extend RUN --seeds 10",
    "export": "print figures: export RUN ... --format csv",
}
TARGETS = {
    "list": "list them",
    "snapshot": "save a device's calibration: snapshot DEVICE FILE",
    "rehearse": "serve a device here, to submit to unpaid",
}


@dataclass(frozen=True)
class Command:
    """A command; its module is imported when it is used, so that help is instant.

    Attributes:
        help: What it does, in a line.
        module: Where it is, in this folder.
        run_name: The function that does it, from its options and all that was typed; it returns
            the exit status.
        parser_name: The function that makes its parser, from the words after it and its action.
        actions: What each of its actions does, where it has some.
    """

    help: str
    module: str
    run_name: str
    parser_name: str
    actions: Mapping[str, str] = field(default_factory=dict)

    def parser(self, words: Sequence[str], name: str) -> CommandParser:
        """Return its parser."""
        make: Callable[[Sequence[str], str], CommandParser] = self._function(self.parser_name)
        return make(words, name)

    def run(self, options: Namespace, words: Sequence[str]) -> int:
        """Do it; return the exit status."""
        do: Callable[[Namespace, Sequence[str]], int] = self._function(self.run_name)
        return do(options, words)

    def _function(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(import_module(f"qkd_qiskit.cli.{self.module}"), name)
        return function


COMMANDS = {
    "distill": Command(
        "train a student from a teacher, and compare", "distill", "run_distill", "distill_parser"
    ),
    "study": Command(
        "is the gain real? paired seeds, controls, statistics", "study", "run_study", "study_parser"
    ),
    "evaluate": Command(
        "evaluate a trained run on another target", "evaluate", "run_evaluate", "evaluate_parser"
    ),
    "compress": Command(
        "distil a trained circuit into one that fits a device",
        "compress",
        "run_compress",
        "compress_parser",
    ),
    "certify": Command(
        "does the circuit matter, or can it be left out?",
        "certify",
        "run_certify",
        "certify_parser",
    ),
    "recalibrate": Command(
        "take a target's noise back, from unlabelled images",
        "recalibrate",
        "run_recalibrate",
        "recalibrate_parser",
    ),
    "submit": Command(
        "evaluate a trained run on a device of IBM Quantum", "submit", "run_submit", "submit_parser"
    ),
    "plan": Command(
        "which evaluation tells most for some QPU seconds", "plan", "run_plan", "plan_parser"
    ),
    "collect": Command("finish what was submitted", "submit", "run_collect", "collect_parser"),
    "sweep": Command(
        "what noise and shots cost a trained run", "sweep", "run_sweep", "sweep_parser", SWEEPS
    ),
    "bench": Command("the same as sweep", "sweep", "run_sweep", "sweep_parser", SWEEPS),
    "runs": Command("the runs that there are", "runs", "run_runs", "runs_parser", RUNS),
    "report": Command("write the report of a run again", "runs", "run_report", "report_parser"),
    "export": Command(
        "write a finished run as a folder to publish", "export", "run_export", "export_parser"
    ),
    "recipes": Command(
        "the built-in recipes", "listings", "run_recipes", "listing_parser", RECIPES
    ),
    "circuits": Command(
        "the reference circuits", "listings", "run_circuits", "listing_parser", CIRCUITS
    ),
    "targets": Command(
        "simulators and devices", "listings", "run_targets", "listing_parser", TARGETS
    ),
    "doctor": Command("what is usable on this machine", "doctor", "run_doctor", "doctor_parser"),
    "completion": Command(
        "complete commands in bash, zsh or fish",
        "completion",
        "run_completion",
        "completion_parser",
    ),
}
