"""Names of devices, and their memory, on a machine whose GPUs are made up."""

import pytest
import torch

from qkd_qiskit.errors import CircuitError, InputError
from qkd_qiskit.simulator.memory import available_bytes, require_memory
from qkd_qiskit.simulator.torch_device import torch_device

GIB = 2**30


@pytest.fixture
def two_gpus(monkeypatch):
    """Make torch say that there are two GPUs: 3 GiB free, 2 held by torch, of which 1 is used."""
    said = {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "mem_get_info": lambda device: (3 * GIB, 8 * GIB),
        "memory_reserved": lambda device: 2 * GIB,
        "memory_allocated": lambda device: 1 * GIB,
    }
    for name, function in said.items():
        monkeypatch.setattr(torch.cuda, name, function)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cpu", "cpu"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("auto", "cuda")],
)
def test_names_of_devices_that_are_there(name, expected, two_gpus):
    assert torch_device(name) == torch.device(expected)


def test_a_gpu_too_many(two_gpus):
    with pytest.raises(InputError, match=r"^device 'cuda:2' is not there \(GPUs .*: 2\); give"):
        torch_device("cuda:2")


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torch_device("auto") == torch.device("cpu")
    assert torch_device(torch.device("meta")).type == "meta"
    for name in ("cuda", torch.device("cuda", 0)):
        with pytest.raises(InputError, match=r"\(torch finds no GPU here\); give cpu or auto$"):
            torch_device(name)
    for name in ("gpu", "cuda:", "CUDA", 0, None):
        with pytest.raises(InputError, match=r"^device is .*; give cpu, cuda, cuda:1"):
            torch_device(name)


def test_memory_is_asked_of_the_device(two_gpus):
    gpu = torch.device("cuda:1")
    assert available_bytes(gpu) == 4 * GIB
    assert available_bytes(torch.device("meta")) is None
    require_memory(20, copies=200, what="states", device=gpu)
    with pytest.raises(
        CircuitError, match=r"needs about 4\.7 GiB and 4\.0 GiB are free on cuda:1;"
    ):
        require_memory(20, copies=300, what="states", device=gpu)
