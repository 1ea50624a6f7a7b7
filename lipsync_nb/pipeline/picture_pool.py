"""Buffers of pictures that go round."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lipsync_nb.types.arrays import ImageArray

# Frames that a call of joblib's workers carries.
JOBLIB_WINDOW = 32


def _new_buffer(shape: tuple[int, ...]) -> ImageArray:
    return np.empty(shape, np.uint8)


class PicturePool:
    """Picture buffers that are used again, so that no frame pays for fresh memory.

    Threads may share it.

    Args:
        limit: buffers kept at most.
        make: makes a new one of a shape; default: an array of NumPy's.
    """

    def __init__(
        self,
        limit: int = 2 * JOBLIB_WINDOW,
        make: Callable[[tuple[int, ...]], ImageArray] | None = None,
    ) -> None:
        self._limit, self._make = limit, make or _new_buffer
        self._free: list[ImageArray] = []

    def take(self, shape: tuple[int, ...]) -> ImageArray:
        """A buffer of this shape, uint8, with anything in it."""
        try:
            buffer = self._free.pop()
        except IndexError:
            return self._make(shape)
        return buffer if buffer.shape == shape else self._make(shape)

    def give(self, buffer: ImageArray) -> None:
        """Take a buffer back; whoever gives it must not use it any more."""
        if len(self._free) < self._limit:
            self._free.append(buffer)

    def __len__(self) -> int:
        return len(self._free)
