"""A small ResNet, trained on CIFAR-10, whose frozen features others learn from.

    python benchmarks/backbone.py --root DIR            # 12 epochs of 50 seconds on one core
    python benchmarks/backbone.py --stop-after 9    # what made the weights in results/

It trains on the images that a run of seed 0 with `data.validation_fraction: 0.1` takes as its pool,
so that the validation and test images of such runs are new to it. It is stopped and called again at
any moment: every epoch is kept in OUT with everything that the next one needs. The weights are
written to benchmarks/results/backbone.safetensors, where `data.backbone_weights` finds them with
`data.backbone: module:backbone:resnet8`, `data.backbone_layer: pool` and this folder on PYTHONPATH.

He et al., arXiv:1512.03385, section 4.2, with n = 1 (8 layers), and a learned projection where a
block changes its shape; SGD with Nesterov's momentum 0.9, weight decay 5e-4, label smoothing 0.1,
random crops and flips. The learning rate goes linearly from point to point of `RATES`; twelve
epochs are 7 % of the 182 of that paper (64,000 steps).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from qkd_qiskit import DataSpec, load_data

HERE = Path(__file__).parent
WEIGHTS = HERE / "results" / "backbone.safetensors"
WIDTHS = (16, 32, 64)
BATCH = 128
# Epoch and learning rate. It fell as for 16 epochs at first, and from the ninth on as for 12.
RATES = ((0.0, 0.0), (3.2, 0.2), (9.0, 0.109375), (12.0, 0.0))
EPOCHS = 12
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's channels


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if inputs != outputs or stride != 1:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        """Return `(batch, outputs, height / stride, width / stride)`."""
        inner = torch.relu(self.norm1(self.conv1(images)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(images))


class Normalise(nn.Module):
    """Pixels of [0, 1] to mean 0 and deviation 1 in each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return normalised images."""
        return (images - self.mean) / self.deviation


class ResNet8(nn.Module):
    """Images `(batch, 3, 32, 32)` in [0, 1] to logits; layer `pool` gives 64 features."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()
        )
        inputs = (WIDTHS[0], *WIDTHS)
        self.blocks = nn.Sequential(
            *(
                Block(before, width, stride=1 if number == 0 else 2)
                for number, (before, width) in enumerate(zip(inputs, WIDTHS, strict=False))
            )
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(WIDTHS[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(batch, num_classes)`."""
        logits: Tensor = self.head(self.pool(self.blocks(self.stem(self.normalise(images)))))
        return logits


def resnet8() -> nn.Module:
    """Return the untrained network."""
    return ResNet8()


def augmented(images: Tensor, stream: torch.Generator) -> Tensor:
    """Return images shifted by up to 4 pixels, each flipped or not."""
    count = len(images)
    padded = functional.pad(images, (4, 4, 4, 4))
    tops, lefts = (torch.randint(9, (count, 1), generator=stream) for _ in range(2))
    columns = lefts + torch.arange(32)
    flipped = torch.rand(count, 1, generator=stream) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    rows = tops + torch.arange(32)
    which = torch.arange(count)
    return padded[
        which[:, None, None, None],
        torch.arange(3)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def rate(epoch: float) -> float:
    """Return the learning rate at a moment, counted in epochs."""
    return float(np.interp(epoch, *zip(*RATES, strict=True)))


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share classified rightly."""
    network.eval()
    right = 0
    for batch, expected in zip(images.split(500), labels.split(500), strict=True):
        given = network(batch.to(memory_format=torch.channels_last)).argmax(dim=1)
        right += int((given == expected).sum())
    return right / len(labels)


def main() -> None:
    """Train, or go on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", help="folder of cifar-10-batches-py; default: $QKD_DATA")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stop-after", type=int, default=EPOCHS, help="epochs, of all twelve")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "backbone")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = load_data(DataSpec(name="cifar10", root=given.root, validation_fraction=0.1), seed=0)
    images, labels = data.pool.images, data.pool.labels
    torch.manual_seed(0)
    network = resnet8().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    given.out.mkdir(parents=True, exist_ok=True)
    kept, history = given.out / "unfinished.pt", []
    if kept.exists():
        state = torch.load(kept, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        history = state["history"]
    steps = len(labels) // BATCH
    for epoch in range(len(history), given.stop_after):
        began = time.process_time()
        stream = torch.Generator().manual_seed(epoch)
        order = torch.randperm(len(labels), generator=stream)
        network.train()
        total = 0.0
        for number, rows in enumerate(torch.split(order[: steps * BATCH], BATCH)):
            batch = augmented(images[rows].float(), stream)
            logits = network(batch.to(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits, labels[rows], label_smoothing=0.1)
            optimizer.param_groups[0]["lr"] = rate(epoch + number / steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        right = accuracy(network, data.validation.images, data.validation.labels)
        seconds = time.process_time() - began
        history.append({"epoch": epoch + 1, "loss": total / steps, "validation": right})
        history[-1]["cpu_seconds"] = seconds
        print(f"epoch {epoch + 1}/{EPOCHS}: {100 * right:.2f} %, {seconds:.0f} s", flush=True)
        parts = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**parts, "history": history}, kept.with_suffix(".new"))
        kept.with_suffix(".new").replace(kept)
    test = accuracy(network, data.test.images, data.test.labels)
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, WEIGHTS)
    text = json.dumps({"epochs": history, "test": test}, indent=1)
    (HERE / "results" / "backbone.json").write_text(text + "\n")
    print(f"test {100 * test:.2f} %, {WEIGHTS} ({WEIGHTS.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
