"""A data root like that of MNIST and Fashion-MNIST: ten classes of blocks under noise."""

import numpy as np

TRAIN_PER_CLASS, TEST_PER_CLASS = 40, 10


def write_small_mnist(root):
    """Write both data sets as unpacked IDX files below `root`, with equal bytes everywhere."""
    for name, seed in (("MNIST", 1), ("FashionMNIST", 2)):
        folder = root / name / "raw"
        folder.mkdir(parents=True)
        # The legacy generator: its stream is frozen across NumPy's versions.
        random = np.random.RandomState(seed)
        prototypes = np.kron(random.randint(0, 160, (10, 7, 7)), np.ones((4, 4), int))
        for part, count in (("train", TRAIN_PER_CLASS), ("t10k", TEST_PER_CLASS)):
            labels = random.permutation(np.repeat(np.arange(10), count))
            noise = random.randint(0, 96, (len(labels), 28, 28))
            _write_idx(folder / f"{part}-images-idx3-ubyte", prototypes[labels] + noise)
            _write_idx(folder / f"{part}-labels-idx1-ubyte", labels)


def _write_idx(path, values):
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
    path.write_bytes(header + values.astype(np.uint8).tobytes())
