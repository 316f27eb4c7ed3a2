import pytest
import torch

from qkd_qiskit import Data


@pytest.fixture(scope="session")
def data():
    """Images of 4x4 pixels in three classes, each with a brighter pixel on the diagonal."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    images = 0.2 * torch.rand(90, 1, 4, 4, generator=generator)
    images[torch.arange(90), 0, labels, labels] += 0.5
    return Data.from_arrays(images.numpy(), labels.numpy(), seed=1)
