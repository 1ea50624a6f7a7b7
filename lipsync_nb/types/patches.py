"""Finished patches: the pixels that a frame differs in from its template frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .arrays import FloatArray, ImageArray
from .records import Box, Pixels, Predictions


@dataclass(frozen=True)
class PatchLayout:
    """How finished patches lie in a network's output: boxes of all sizes, at the upper left of one.

    Attributes:
        height, width: of the largest box in pixels; even where ``pixels`` is ``i420``.
        pixels: ``bgr``: uint8 ``[height, width, 3]``; ``i420``: luma ``[height, width]``, then U
            and V ``[height / 2, width / 2]``, of the box widened to even pixels.
    """

    height: int
    width: int
    pixels: Pixels

    @classmethod
    def of(cls, boxes: Sequence[Box], pixels: Pixels) -> PatchLayout:
        """The layout that all these face boxes fit into."""
        outer = [outer_box(box, pixels) for box in boxes]
        return cls(max(b.height for b in outer), max(b.width for b in outer), pixels)

    @property
    def num_bytes(self) -> int:
        """Bytes of a patch."""
        size = self.height * self.width
        return size * 3 // 2 if self.pixels == "i420" else size * 3

    def place(self, box: Box) -> FloatArray:
        """A box within its patch, float32 ``[4, 1, 1]``: left, top, width, height in pixels."""
        outer = outer_box(box, self.pixels)
        values = box.x1 - outer.x1, box.y1 - outer.y1, box.width, box.height
        return np.array(values, np.float32).reshape(4, 1, 1)

    def planes(self, patch: ImageArray, box: Box) -> tuple[ImageArray, ...]:
        """Views of a patch's pixels for this box: BGR ``[h, w, 3]``, or Y, U and V.

        Args:
            patch: uint8 ``[num_bytes]``.
        """
        outer = outer_box(box, self.pixels)
        if self.pixels == "bgr":
            whole = patch.reshape(self.height, self.width, 3)
            return (whole[: outer.height, : outer.width],)
        size = self.height * self.width
        luma = patch[:size].reshape(self.height, self.width)
        chroma = patch[size:].reshape(2, self.height // 2, self.width // 2)
        rows, columns = outer.height // 2, outer.width // 2
        return luma[: outer.height, : outer.width], *chroma[:, :rows, :columns]


def outer_box(box: Box, pixels: Pixels) -> Box:
    """What is written into a frame: the box, or the one widened to even pixels."""
    return box.even if pixels == "i420" else box


@dataclass(frozen=True, eq=False)
class FinishedPatches(Predictions):
    """Predictions that are resized to their boxes already, in the pixels of the frames.

    Attributes:
        images: uint8 ``[n, layout.num_bytes]``.
        layout: how they lie.
        release: called by who has read them all: their memory is used again.
    """

    layout: PatchLayout
    release: Callable[[], None]
