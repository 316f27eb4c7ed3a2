"""The benchmark of students for devices: its tables follow from its rows."""

import device_students


def rows_of(case):
    figures = {
        ("label_only", "exact"): (0.50, 0.60),
        ("label_only", "fake_torino:exact"): (0.48, 0.58),
        ("distilled", "exact"): (0.60, 0.71),
        ("distilled", "fake_torino:exact"): (0.58, 0.69),
        ("twin_pca", "exact"): (0.70, 0.70),
    }
    return [
        {"case": case, "arm": arm, "target": target, "seed": str(seed), "accuracy": f"{value:.6f}"}
        for (arm, target), values in figures.items()
        for seed, value in zip((300, 301), values, strict=True)
    ]


def test_tables_give_means_and_paired_differences_on_the_device():
    text = device_students.tables(rows_of("digits_few"))
    assert "digits_few, 2 seeds" in text
    assert "| `distilled` | 65.5 ± 69.9 | 63.5 ± 69.9 | 58.0 |" in text
    assert "| `twin_pca` | 70.0 ± 0.0 | - | - |" in text
    # 58 - 48 and 69 - 58; the twin, which no noise reaches, is compared as it is.
    assert "| digits_few | `distilled` - `label_only` | +10.5 [+4.1, +16.9] |" in text
    assert "| digits_few | `distilled` - `twin_pca` | -6.5 [" in text


def test_a_case_replaces_its_own_rows_alone(tmp_path):
    path = tmp_path / "table.csv"
    device_students.write(rows_of("mnist_few"), path)
    device_students.write(rows_of("digits_few"), path)
    device_students.write(rows_of("mnist_few"), path)
    found = [line["case"] for line in device_students.read(path)]
    assert found == ["digits_few"] * 10 + ["mnist_few"] * 10


def test_its_recipes_are_those_of_the_cases():
    for recipe, changes in device_students.CASES.values():
        made = device_students.load_recipe(recipe, changes | {"seeds": [300, 301]})
        assert device_students.DEVICE in made.targets
        assert device_students.BASELINE in made.arms


def test_the_published_tables_follow_from_the_published_rows():
    page = (device_students.RESULTS.parents[1] / "DEVICE.md").read_text()
    rows = device_students.read(device_students.RESULTS)
    assert device_students.tables(rows).strip() in page
