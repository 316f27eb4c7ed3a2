"""The page of the inputs benchmark says what its committed rows say."""

import inputs


def test_the_published_tables_follow_from_the_published_rows():
    page = (inputs.RESULTS.parents[1] / "INPUTS.md").read_text()
    rows = inputs.read(inputs.RESULTS)
    assert inputs.tables(rows).strip() in page
    assert len(rows) == len(inputs.CASES) * len(inputs.ARMS) * 20


def test_rows_of_cases_that_were_not_run_are_kept(tmp_path):
    path = tmp_path / "inputs.csv"
    inputs.write({"a": {"label_only": [0.5, 0.25]}}, path)
    inputs.write({"b": {"label_only": [1.0]}}, path)
    inputs.write({"a": {"label_only": [0.75]}}, path)
    found = [(row["case"], row["seed"], row["accuracy"]) for row in inputs.read(path)]
    assert found == [("b", "200", "1.000000"), ("a", "200", "0.750000")]
