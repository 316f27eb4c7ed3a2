"""The documentation site: `sphinx-build -W docs build/site`; it executes the tutorials."""

import re
import sys
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import command_help

project = "qkd_qiskit"
author = "The qkd_qiskit developers"
copyright = "The qkd_qiskit developers"
release = version = installed("qkd-qiskit")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["build"]
html_theme = "furo"
html_title = "qkd_qiskit"
html_static_path = ["_static"]
html_css_files = ["site.css"]
# The tutorials are executed when the site is built; -D nb_execution_mode=off leaves that out.
nb_execution_mode = "auto"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds a cell
nb_merge_streams = True
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "dollarmath"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
# Built without a network; a site that is published may set this to the inventories of others.
intersphinx_mapping: dict[str, tuple[str, None]] = {}
suppress_warnings = ["ref.term", "ref.ref"]  # of docstrings that scikit-learn writes into classes
viewcode_line_numbers = True

# Pages of the repository link to each other as files; here they are pages or downloads.
PAGES = {
    "HELPS.md": "helps.md",
    "DEVICE.md": "device.md",
    "COMPRESS.md": "compress.md",
    "CIFAR10.md": "cifar10.md",
    "PAPER.md": "paper.md",
    "SPEED.md": "speed.md",
    "NOISE.md": "noise.md",
    "SLIDES.md": "slides.md",
    "SLIDES_Q2C.md": "slides-q2c.md",
}
_PROGRAM_LINK = re.compile(r"\]\((\w+\.py)\)")
_TABLE_HEAD = re.compile(r"^\|.*\|\n(?=\|[ :|-]+\|\n)", re.MULTILINE)
_FOLDER_LINK = re.compile(r"\[([^\]]+)\]\(\.\./qkd_qiskit[^)]*\)")


def _relink_source(app: Any, name: str, content: list[str]) -> None:
    """Rewrite the links of a page of this folder."""
    text = content[0].replace("](../README.md)", "](start.md)")
    for file, page in PAGES.items():
        text = text.replace(f"](../benchmarks/{file})", f"](results/{page})")
    content[0] = _FOLDER_LINK.sub(r"\1", text)


def _relink_include(app: Any, path: Any, parent: str, content: list[str]) -> None:
    """Rewrite the links of a page of the benchmarks."""
    text = content[0]
    for file, page in PAGES.items():
        text = text.replace(f"]({file})", f"]({page})")
    text = text.replace("](../docs/", "](../")
    # Names of arms as headings may be broken behind an underscore, or tables are too wide.
    text = _TABLE_HEAD.sub(lambda head: head[0].replace("_", "_\u200b"), text)
    text = _PROGRAM_LINK.sub(r"](../../benchmarks/\1)", text)
    text = text.replace("](results/", "](../../benchmarks/results/")
    content[0] = _FOLDER_LINK.sub(r"\1", text)


def _forget_sourceless(app: Any, env: Any) -> None:
    """Drop modules without source, which viewcode would link to and write no page of."""
    modules = getattr(env, "_viewcode_modules", {})
    for name in [name for name, entry in modules.items() if not entry]:
        del modules[name]


def setup(app: Any) -> None:
    """Write the page of commands, and connect what rewrites links; Sphinx calls it."""
    command_help.write()
    app.connect("source-read", _relink_source)
    app.connect("include-read", _relink_include)
    app.connect("env-updated", _forget_sourceless)
