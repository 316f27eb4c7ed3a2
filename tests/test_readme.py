"""The README's Python is run as it stands there."""

import re
from pathlib import Path

import torch

README = Path(__file__).parent.parent / "README.md"


def test_the_python_in_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.M | re.S)
    assert len(blocks) == 4
    names = {}
    for block in blocks:
        exec(block, names)
    exact, noisy = (float(line) for line in capsys.readouterr().out.split())
    assert exact > 0.85
    assert noisy > 0.75
    images = names["data"].test.images[:2]
    assert torch.equal(names["layer"].weight, names["layer"]._weights)
    assert names["maps"].shape == (256, 3, 14, 14)
    assert names["student"](images).shape == (2, 10)
