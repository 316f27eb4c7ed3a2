"""The examples in the docstrings of the public names give what they say."""

import doctest
import importlib
import inspect
import shutil

import pytest

import qkd_qiskit
from qkd_qiskit.experiments import statistics

FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
WITHOUT = {
    "compress",  # trains for minutes
    "Data",  # Data.from_arrays has one
    "DataSpec",
    "DistillSpec",
    "Evaluation",
    "QKDError",
    "Split",
    "Student",
    "StudentSpec",
    "Target",
    "Teacher",
    "TeacherSpec",
}


def _examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    seen = {}
    for name in qkd_qiskit.__all__:
        value = getattr(qkd_qiskit, name)
        home = importlib.import_module(value.__module__)
        for kind in inspect.getmro(value) if inspect.isclass(value) else (value,):
            if kind.__module__.startswith("qkd_qiskit"):
                home = importlib.import_module(kind.__module__)
                for test in finder.find(kind, kind.__qualname__, module=home, globs={}):
                    seen[test.name] = test
    for test in finder.find(statistics, "statistics", globs=dict(vars(statistics))):
        seen[test.name] = test
    return [test for test in seen.values() if test.examples]


EXAMPLES = _examples()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda it: it.name)
def test_an_example_gives_what_it_says(example, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished.path, "runs/digits")
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    report = []
    runner.run(example, out=report.append)
    assert not runner.summarize(verbose=False).failed, "".join(report)


def test_what_a_user_calls_first_has_an_example():
    names = {example.name.partition(".")[0] for example in EXAMPLES}
    assert set(qkd_qiskit.__all__) - names <= WITHOUT
    assert {"Run.certify", "TrainedRun.recalibrate", "TrainedRun.evaluate"} <= {
        example.name for example in EXAMPLES
    }
