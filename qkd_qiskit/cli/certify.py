"""`qkd certify`: does the circuit of a trained run matter, or can it be left out?"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence

from qkd_qiskit.cli.command_parser import CommandParser
from qkd_qiskit.cli.output import add_output_options, load, say, show_table, terminal


def certify_parser(words: Sequence[str], name: str) -> CommandParser:
    """Return the parser of `qkd certify`."""
    parser = CommandParser(
        name,
        description="Does the circuit matter, or can it be left out? Fit the students of a "
        "finished run again, seed by seed: as classical twins of at most as many trained numbers "
        "(PCA, pooled pixels, bilinear maps, random features, a butterfly of rotations, a small "
        "convolution, a tanh layer), without their circuit, without its gates on two qubits, with "
        "random circuit weights; write the students in closed form as plain torch modules. The "
        "answer is one sentence, in the report too. Stopped at any moment, the same command goes "
        "on; all is kept in RUN/certify.",
    )
    parser.add_argument("run", type=str, help="run folder")
    parser.add_argument(
        "--arm", type=str, default="distilled", help="whose students; default: distilled"
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=1.0,
        help="points of test accuracy below which a model without a circuit is as good; default: 1",
    )
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="write the closed forms as ONNX files too; needs pip install 'qkd-qiskit[onnx]'",
    )
    add_output_options(parser)
    return parser


def run_certify(options: Namespace, words: Sequence[str]) -> int:
    """Certify the run and add it to its report; returns the exit status."""
    load(options)
    from qkd_qiskit.experiments.certificate import CERTIFICATE
    from qkd_qiskit.experiments.json_codec import encode
    from qkd_qiskit.experiments.run_folder import CERTIFY, REPORT
    from qkd_qiskit.report.certification_section import (
        HEADER,
        certification_answer,
        notes,
        variant_cells,
    )
    from qkd_qiskit.run import Run

    run = Run.open(options.run)
    with terminal(options) as callback:
        certificate = run.certify(
            options.arm, margin=options.margin, onnx=options.onnx, callback=callback
        )
        callback.stage("report")
        run.report()
    answer = _plain(certification_answer(certificate))
    if options.json:
        print(json.dumps(encode(certificate) | {"answer": answer}, indent=2))
    elif not options.quiet:
        from rich.table import Table

        table = Table(title=f"the students of {options.arm} without the circuit")
        for number, heading in enumerate(HEADER):
            table.add_column(heading, no_wrap=number == 0, justify="right" if number else "left")
        for variant in certificate.variants:
            table.add_row(*map(_plain, variant_cells(certificate, variant)))
        show_table(table)
        files = [
            f"figures: {run.path / CERTIFY / options.arm / CERTIFICATE}",
            f"report: {run.path / REPORT}",
        ]
        for text in (*map(_plain, notes(certificate)), answer, *files):
            say(text, style="bold" if text == answer else None)
    return 0


def _plain(text: str) -> str:
    return text.replace("\u202f", " ").replace("−", "-")
