"""Outputs that were computed elsewhere, as a network that knows these images alone."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from qkd_qiskit.data.splits import Split
from qkd_qiskit.errors import TeacherError
from qkd_qiskit.storage import tensor_digest

logger = logging.getLogger(__name__)


class OutputTable(nn.Module):
    """Logits by the bytes of an image.

    Attributes:
        table: Logits (images, num_classes).
        rows: Row of each image.
    """

    def __init__(self, splits: Iterable[Split]) -> None:
        """Keep the logits of every split that has them.

        Args:
            splits: Images with `teacher_logits`; those without are not known.
        """
        super().__init__()
        known = [(split.images, split.teacher_logits) for split in splits]
        given = [(images, logits) for images, logits in known if logits is not None]
        self.table = torch.cat([logits for _, logits in given])
        self.rows: dict[bytes, int] = {}
        others = 0
        for row, image in enumerate(image for images, _ in given for image in images):
            before = self.rows.setdefault(_bytes(image), row)
            others += not torch.equal(self.table[before], self.table[row])
        if others:
            logger.warning(
                "%d images occur again with other outputs of the teacher; those of the first are "
                "taught for all",
                others,
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the logits, and of which image each is for."""
        keys = torch.frombuffer(bytearray(b"".join(self.rows)), dtype=torch.uint8)
        rows = torch.tensor(list(self.rows.values()))
        return tensor_digest({"logits": self.table, "images": keys, "rows": rows})

    def knows(self, images: Tensor) -> bool:
        """Return whether all of these images are in the table."""
        return all(_bytes(image) in self.rows for image in images)

    def __deepcopy__(self, memo: dict[int, object]) -> OutputTable:
        return self  # what is known is only read

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, num_classes) of images that are known."""
        rows = [self.rows.get(_bytes(image)) for image in images]
        if None in rows:
            raise TeacherError(
                "a teacher that is an array of outputs knows the images of its pool alone; give a "
                "module or a function to be asked for others"
            )
        return self.table[torch.tensor(rows)]


def _bytes(image: Tensor) -> bytes:
    return image.contiguous().numpy().tobytes()
