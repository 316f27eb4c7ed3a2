"""The face of the package: its names, and what an import costs."""

import subprocess
import sys
from pathlib import Path

import pytest

import qkd_qiskit
from qkd_qiskit import errors


def in_new_python(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", qkd_qiskit.__all__)
def test_every_public_name_is_there(name):
    assert getattr(qkd_qiskit, name) is not None
    assert name in dir(qkd_qiskit)


def test_public_names_are_sorted_and_have_a_home():
    assert sorted(qkd_qiskit.__all__) == list(qkd_qiskit.__all__)
    assert set(qkd_qiskit._HOMES) == set(qkd_qiskit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        qkd_qiskit.nonsense  # noqa: B018


def test_no_module_has_the_name_of_a_public_function():
    folder = Path(qkd_qiskit.__file__).parent
    modules = {path.stem for path in folder.iterdir() if path.name != "__init__.py"}
    assert not modules & set(qkd_qiskit.__all__)


def test_importing_the_package_or_its_command_loads_nothing_heavy():
    done = in_new_python(
        "import sys, qkd_qiskit, qkd_qiskit.cli\n"
        "heavy = {'torch', 'qiskit', 'numpy', 'scipy', 'matplotlib', 'sklearn', 'numba'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_errors_are_one_tree():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert all(issubclass(kind, errors.QKDError) for kind in kinds)
    assert issubclass(errors.InputError, ValueError)
    assert not issubclass(errors.StorageError, errors.InputError)


def test_its_version_is_that_of_the_installed_package():
    from importlib.metadata import version

    assert qkd_qiskit.__version__ == version("qkd-qiskit")
