"""Saved calibration snapshots."""

import json
import math
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from qiskit.providers import BackendV2

from qkd_qiskit.errors import StorageError, TargetError
from qkd_qiskit.targets import DeviceTarget, Target, load_snapshot, save_snapshot, synthetic
from qkd_qiskit.targets.calibration_files import save_history
from qkd_qiskit.targets.snapshots import fake_backend
from qkd_qiskit.targets.synthetic_backends import readout_errors


def angles(compiled, batch=2):
    rng = np.random.default_rng(0)
    return rng.uniform(-np.pi, np.pi, (batch, len(compiled.parameters)))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "ibm_manila.json"
    save_snapshot(fake_backend("fake_manila"), path)
    return path


@pytest.mark.parametrize(
    "name", ["fake_manila", "fake_sherbrooke", "fake_torino", "fake_fractional"]
)
def test_a_saved_device_gives_the_same_probabilities(ring, tmp_path, name):
    path = tmp_path / "ibm_device.json"
    save_snapshot(fake_backend(name), path)
    first = DeviceTarget(fake_backend(name), num_transpilations=1, shots=200)
    second = Target.parse(str(path), shots=200)
    second.num_transpilations = 1
    compiled = [target.compile(ring(3, 1)) for target in (first, second)]
    values = angles(compiled[0])
    assert compiled[0].measured == compiled[1].measured
    assert compiled[0].duration_s == compiled[1].duration_s
    np.testing.assert_array_equal(
        first.exact_probabilities(compiled[0], values),
        second.exact_probabilities(compiled[1], values),
    )
    np.testing.assert_array_equal(
        first.probabilities(compiled[0], values), second.probabilities(compiled[1], values)
    )
    assert first.calibration_date == second.calibration_date is not None


def test_options_follow_a_files_name(saved):
    target = Target.parse(f"{saved}:scale=0.5:exact")
    assert target.name == f"{saved}:scale=0.5:exact"
    assert target.scale == 0.5


def test_the_file_holds_named_numbers_only(saved):
    content = json.loads(saved.read_text())
    assert set(content) == {"format", "name", "calibrated", "configuration", "properties"}
    assert set(content["configuration"]) == {
        "num_qubits",
        "dt",
        "granularity",
        "min_length",
        "pulse_alignment",
        "acquire_alignment",
    }
    assert set(content["properties"]) == {"qubits", "gates"}
    assert set(content["properties"]["qubits"][0]) == {"t1", "t2", "frequency"}
    fields = {
        key for places in content["properties"]["gates"].values() for p in places for key in p
    }
    assert fields == {"qubits", "error", "duration"}


def test_account_data_does_not_come_along(tmp_path):
    backend = fake_backend("fake_manila")
    backend.token = "SECRET"
    backend.options.hub = "SECRET"
    backend._conf_dict = {**backend._conf_dict, "url": "SECRET", "credits_required": "SECRET"}
    save_snapshot(backend, tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text()
    assert "SECRET" not in text
    assert "hub" not in text


def test_both_readout_errors_and_endless_relaxation_are_kept(tmp_path, ring):
    target = synthetic(3, p2=0.01, readout=(0.02, 0.05))
    save_snapshot(target.backend, tmp_path / "made.json")
    backend = load_snapshot(tmp_path / "made.json")
    assert isinstance(backend, BackendV2)
    assert readout_errors(backend.target["measure"][(1,)]) == (0.02, 0.05)
    assert backend.target.qubit_properties[0].t1 == math.inf
    again = Target.parse(str(tmp_path / "made.json"))
    assert again.calibration_date is None
    first, second = target.compile(ring(2)), again.compile(ring(2))
    np.testing.assert_array_equal(
        target.exact_probabilities(first, angles(first)),
        again.exact_probabilities(second, angles(second)),
    )


def test_what_is_not_known_stays_unknown(tmp_path, ring):
    backend = fake_backend("fake_manila")
    device = backend.target
    described = device.qubit_properties
    described[0].t1 = math.nan
    device.qubit_properties = described
    save_snapshot(backend, tmp_path / "a.json")
    loaded = load_snapshot(tmp_path / "a.json").target
    assert loaded.qubit_properties[0].t1 is None
    target = Target.parse(str(tmp_path / "a.json"))
    assert 0 not in target.compile(ring(2)).measured


def test_an_unusual_file_name_is_refused(tmp_path):
    with pytest.raises(TargetError, match=r"must end in \.json"):
        save_snapshot(fake_backend("fake_manila"), tmp_path / "manila.pkl")


def test_a_file_that_cannot_be_written_or_read_is_one_clear_error(tmp_path):
    (tmp_path / "a").write_text("no folder")
    with pytest.raises(StorageError, match="cannot write"):
        save_snapshot(fake_backend("fake_manila"), tmp_path / "a" / "b.json")
    with pytest.raises(TargetError, match="cannot be read: No such file") as caught:
        Target.parse(str(tmp_path / "none.json"))
    assert "\n" not in str(caught.value)


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda c: c.update(format="other"), "is no snapshot"),
        (lambda c: c["properties"]["qubits"].pop(), "4 of 5 qubits are described"),
        (lambda c: c["properties"]["gates"].update(magic=[]), "KeyError: 'magic'"),
        (lambda c: c["properties"]["gates"]["sx"][0].update(qubits=[9]), r"sx on qubits \[9\]"),
        (lambda c: c["properties"]["gates"]["sx"][0].update(error="x"), "could not convert"),
        (lambda c: c["configuration"].pop("dt"), "KeyError: 'dt'"),
        (lambda c: c.update(properties=None), "TypeError"),
        (lambda c: c.update(calibrated="yesterday"), "Invalid isoformat"),
    ],
)
def test_a_damaged_file_is_one_clear_error(saved, edit, told):
    change(saved, edit)
    with pytest.raises(TargetError, match=told) as caught:
        Target.parse(str(saved))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\x00"])
def test_what_is_not_json_is_one_clear_error(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(TargetError, match=r"is not a JSON file|is no snapshot"):
        Target.parse(str(tmp_path / "a.json"))


class Remembering:
    """A device that was calibrated every second day, as an account's is."""

    name = "ibm_lima"

    def __init__(self, backend, today):
        self.backend, self.today = backend, today

    def configuration(self):
        return self.backend.configuration()

    def properties(self, refresh=False, datetime=None):
        days = (self.today - datetime).days // 2 * 2
        if days > 6:
            return None
        content = self.backend.properties().to_dict()
        content["last_update_date"] = (self.today - timedelta(days=days)).isoformat()
        content["qubits"][0][0]["value"] = 50.0 + days  # T1 in us
        return type(self.backend.properties()).from_dict(content)


def test_a_history_is_a_snapshot_of_each_calibration(tmp_path):
    today = datetime(2026, 11, 27, 12, tzinfo=timezone.utc)
    device = Remembering(fake_backend("fake_lima"), today)
    written = save_history(device, tmp_path / "history", days=30, now=today)
    dates = ["2026-11-21", "2026-11-23", "2026-11-25", "2026-11-27"]
    assert [path.name for path in written] == [f"ibm_lima-{date}.json" for date in dates]
    for path, days in zip(written, (6, 4, 2, 0), strict=True):
        target = Target.parse(f"{path}:exact")
        assert target.calibration_date == path.stem.removeprefix("ibm_lima-")
        known = target.backend.target.qubit_properties[0]
        assert known.t1 == pytest.approx((50 + days) * 1e-6)


def test_a_snapshot_has_no_history(tmp_path):
    with pytest.raises(TargetError, match="fake_lima has no history: it is of one day"):
        save_history(fake_backend("fake_lima"), tmp_path, days=3)
