"""Imports of the package go one way, folder by folder; a file above 400 lines has a second idea."""

import ast
from pathlib import Path

import pytest

import qkd_qiskit

PACKAGE = Path(qkd_qiskit.__file__).parent
LAYERS = (
    {"errors"},
    {"recipe", "simulator", "storage"},
    {"circuits", "data"},
    {"targets"},
    {"teachers"},
    {"students"},
    {"distillation"},
    {"experiments"},
    {"report"},
    {"run"},
    {"cli"},
    {"__main__"},
)
HEIGHT = {folder: height for height, layer in enumerate(LAYERS) for folder in layer}
WITHIN = (("recipe", "storage"),)  # of one layer, and still one way: the first imports the second
FILES = sorted(PACKAGE.rglob("*.py"))


def folder_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path):
    """Yield the folders of the package that a file imports, wherever in it, and the lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno} is relative"
            names = [node.module]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "qkd_qiskit" and len(parts) > 1:
                yield parts[1], node.lineno


def test_every_entry_of_the_package_has_a_layer():
    entries = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))
    }
    assert entries - {"__init__"} == set(HEIGHT)
    assert len(entries) <= 16


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards(path):
    folder = folder_of(path)
    if folder == "__init__":
        return
    for other, line in imported(path):
        allowed = other == folder or HEIGHT[other] < HEIGHT[folder] or (folder, other) in WITHIN
        assert allowed, f"{path}:{line}: {folder} imports {other}"


def test_no_module_is_in_a_circle():
    """Imports inside functions count: none is there to escape a circle."""
    names = {module_name(path): path for path in FILES}
    graph = {name: set(modules_imported(path, names)) for name, path in names.items()}
    done, walked = set(), []

    def walk(name):
        if name in walked:
            raise AssertionError(" -> ".join([*walked[walked.index(name) :], name]))
        if name not in done:
            walked.append(name)
            for other in sorted(graph[name]):
                walk(other)
            walked.pop()
            done.add(name)

    for name in sorted(graph):
        walk(name)


def module_name(path):
    parts = ("qkd_qiskit", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def modules_imported(path, names):
    tree = ast.parse(path.read_text())
    for_types = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for node in ast.walk(branch)
    }
    me = module_name(path)
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in for_types:
            continue
        for alias in node.names:
            module = f"{node.module}.{alias.name}"
            module = module if module in names else node.module
            if module in names and module != me and not me.startswith(f"{module}."):
                yield module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 100, node.name
