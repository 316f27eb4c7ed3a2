"""The example of a loss of one's own runs, and is short."""

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_loss.py"


def test_the_example_trains_two_students(capsys):
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["recipe's loss", "own loss"]
    assert all(float(line.rpartition(" ")[2]) > 0.8 for line in lines)
    assert len(EXAMPLE.read_text().splitlines()) <= 40
