"""The files of the hosted CI name what there is."""

import os
import re
from pathlib import Path

import pytest
import yaml

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def steps_of(path):
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        yield from job["steps"]


def test_there_are_checks_nights_and_releases():
    assert [path.stem for path in FILES] == ["ci", "nightly", "release"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_extras_and_scripts_that_are_named_are_there(path):
    runs = [step["run"] for step in steps_of(path) if "run" in step]
    assert runs
    for run in runs:
        for extras in re.findall(r"\.\[([\w,-]+)\]", run):
            assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]), run
        if run.startswith(".ci/"):
            assert os.access(ROOT / run, os.X_OK)


def test_the_oldest_python_that_is_accepted_is_tried_with_the_newest_and_the_lowest_versions():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert oldest in jobs["python"]["strategy"]["matrix"]["python"]
    assert {"python-version": oldest} in [it.get("with") for it in jobs["lowest"]["steps"]]


def test_what_may_fail_is_what_is_not_released():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "nightly.yml").read_text())["jobs"]
    allowed = [name for name, job in jobs.items() if job.get("continue-on-error")]
    assert allowed == ["development", "next-python"]
