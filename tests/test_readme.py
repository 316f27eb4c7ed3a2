"""The Python of the README and of the pages it moved to is run as it stands there."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
PAGES = {"README.md": 1, "docs/python.md": 3, "docs/quanvolution.md": 1}


def blocks_of(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), flags=re.M | re.S)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = blocks_of(page)
    assert len(blocks) == PAGES[page]
    names = {}
    for block in blocks:
        exec(block, names)
    if "maps" in names:
        assert names["maps"].shape == (256, 3, 14, 14)
        return
    exact, noisy = (float(line) for line in capsys.readouterr().out.split())
    assert exact > 0.85
    assert noisy > 0.75
    images = names["data"].test.images[:2]
    assert names["student"](images).shape == (2, 10)
    if "layer" in names:
        assert torch.equal(names["layer"].weight, names["layer"]._weights)


def test_the_readme_fits_a_sitting():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (ROOT / target).exists(), target
