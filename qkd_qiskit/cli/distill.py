"""`qkd distill`: train, compare, report."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qkd_qiskit.cli.command_parser import CommandParser
from qkd_qiskit.cli.error_messages import fail
from qkd_qiskit.cli.output import add_output_options, load, show_result, terminal
from qkd_qiskit.cli.recipe_options import ARMS_HELP, DEFAULT_RECIPE, add_keys, given_recipe
from qkd_qiskit.errors import InputError, StorageError, WorkerError
from qkd_qiskit.recipe.parsing import recipe_keys, sections

if TYPE_CHECKING:
    from qkd_qiskit.experiments.workers import Workers


def distill_parser(words: Sequence[str], name: str) -> CommandParser:
    """Return the parser of `qkd distill`."""
    parser = CommandParser(
        name,
        usage="qkd distill [RECIPE] [--KEY VALUE ...] [--out DIR] [--quiet | --json]\n"
        "       qkd distill --resume DIR [--quiet | --json]",
        description="Train a teacher, then students with and without it, over paired seeds; "
        "evaluate them on the targets; write a run folder with a report. Every KEY of the recipe "
        "can be given: --student.qubits 6 --targets exact,aer.",
    )
    parser.add_argument("--out", type=str, help="new run folder; default: runs/RECIPE")
    parser.add_argument("--resume", type=str, help="run folder to continue, with its own recipe")
    add_track_option(parser)
    add_output_options(parser)
    add_keys(parser, words)
    parser.epilog = ARMS_HELP
    return parser


def add_track_option(parser: CommandParser) -> None:
    """Add `--track`."""
    parser.add_argument(
        "--track",
        type=str,
        values=("tensorboard", "mlflow", "wandb"),
        help="where figures go as well, while it runs: tensorboard, mlflow or wandb",
    )


def run_distill(options: Namespace, words: Sequence[str]) -> int:
    """Start a new run, or continue one; returns the exit status."""
    return run_folder(options, words)


def run_folder(
    options: Namespace,
    words: Sequence[str],
    *,
    workers: Workers | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> int:
    """Run what the options say, in a new folder or the one to continue; returns the exit status.

    Args:
        options: What was parsed.
        words: What was typed; its first word is the command.
        workers: Where the tasks of the run go; default: this process.
        defaults: Values by key in place of those of the recipe, where no file states them.
    """
    # Before torch is loaded, so that a value that is not accepted is refused at once.
    recipe = given_recipe(options, defaults=defaults) if options.resume is None else None
    load(options)
    from qkd_qiskit.experiments.run_folder import RECIPE, new_folder
    from qkd_qiskit.run import resume_experiment, run_experiment

    name = words[0]
    if recipe is not None:
        suffix = "" if name == "distill" else f"-{name}"
        if options.out == "":
            raise InputError("--out: '' is not accepted; give the path of a new or empty folder")
        path = options.out or new_folder(options.recipe or DEFAULT_RECIPE, suffix=suffix)
        command = ["qkd", *words]
        start = partial(run_experiment, recipe, out=path)
    else:
        keys = [f"--{key}" for key in (*recipe_keys(), *sections())]
        own = [*filter(None, [options.recipe]), *_given(words, ["--out", *keys])]
        if own:
            raise InputError(
                f"{own[0]} was given with --resume, which goes on with the recipe in "
                f"{options.resume}; leave it out, or start a new run"
            )
        path = options.resume
        # What repeats a run is its recipe: the command that started it is not known here.
        command = ["qkd", name, str(Path(path) / RECIPE)]
        start = partial(resume_experiment, path)
    resume = f"to continue: qkd {name} --resume {shlex.quote(str(path))}"
    try:
        with terminal(options) as callback:
            run = start(
                callback=callback,
                command=shlex.join(command),
                workers=workers,
                track=options.track,
            )
            callback.stage("report")
            run.report()
    except KeyboardInterrupt:
        return fail(f"interrupted; {resume}", status=130)
    except (StorageError, WorkerError) as error:
        begun = (Path(path) / RECIPE).exists()
        return fail(f"{error}; {resume}" if begun else str(error), status=1)
    return show_result(run.folder, run.result, options)


def _given(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    return [word for word in words if word.partition("=")[0] in flags]
