import os

# One thread for each worker and what it starts: more only wait for each other. Set before torch is
# imported, which reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

TINY = """
data: {classes: [3, 5], train_per_class: 12, test_per_class: 20}
teacher: {kind: softmax, epochs: 3, lr: 0.05}
student: {kind: hybrid, qubits: 2, encoding: angle, layers: 1, reduction: linear,
          readout: probabilities, head: linear}
distill: {epochs: 3, batch_size: 8, lr: 0.05, selection: validation}
arms: [label_only, distilled, classical_twin]
targets: [exact, fake_manila]
shots: 50
test_limit: 10
seeds: 2
"""


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Keep what tests cache out of the user's cache folder, and theirs out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QKD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _checkpoint_of_every_epoch():
    """Trainings of tests are over before the first seconds have passed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qkd_qiskit.distillation.trainer.CHECKPOINT_SECONDS", 0.0)
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Path of a recipe that runs in a second: two digits, two qubits, three epochs, two seeds."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def finished(tiny, tmp_path_factory):
    """The folder of a finished run of the tiny recipe, to be read; copy it to change it."""
    from qkd_qiskit.experiments.experiment import run
    from qkd_qiskit.experiments.run_folder import RunFolder
    from qkd_qiskit.recipe.parsing import load_recipe

    path = tmp_path_factory.mktemp("finished") / "run"
    folder = RunFolder.create(path, load_recipe(tiny))
    run(folder, command="qkd distill tiny.yaml")
    return folder


@pytest.fixture
def rehearsal(monkeypatch):
    """Starts servers on loopback, and leads the client to the last one."""
    from qkd_qiskit.targets.ibm.emulator import ServiceEmulator

    servers = []
    monkeypatch.setenv("USAGE_DATA_OPT_OUT", "True")  # the client then asks in half the time

    def start(devices="fake_manila", **settings):
        server = ServiceEmulator(devices, **settings).start()
        servers.append(server)
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        return server

    yield start
    for server in servers:
        server.stop()


class OnDevice(TorchDispatchMode):
    """Refuses what would wait for another device than the CPU, or copy from or to it.

    On the device `meta`, which has shapes and no values, this is what can be known of a GPU without
    one: nothing depends on values, and every operand lies on the device.

    Attributes:
        kernels: Operations on the device that are no views.
    """

    looks = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2")

    def __init__(self, kind="meta", *, uploads=False):
        super().__init__()
        self.kind, self.uploads, self.kernels = kind, uploads, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [it for it in tree_leaves((args, kwargs or {})) if isinstance(it, torch.Tensor)]
        name = func.name().removeprefix("aten::").partition(".")[0]
        there = [it for it in given if it.device.type == self.kind]
        masks = name.startswith("index") and any(it.dtype == torch.bool for it in given)
        waits = name in self.looks or masks
        assert not (there and waits), f"{name} waits for the device"
        result = func(*args, **(kwargs or {}))
        made = [it for it in tree_leaves(result) if isinstance(it, torch.Tensor)]
        if there or any(it.device.type == self.kind for it in made):
            here = [it for it in (*given, *made) if it.device.type != self.kind and it.ndim]
            upload = self.uploads and name == "_to_copy" and not there
            assert upload or not here, f"{name} copies between the CPU and the device"
            self.kernels += not func.is_view
        return result


@pytest.fixture
def on_device():
    """Return the mode that refuses to wait for the device `meta`."""
    return OnDevice
