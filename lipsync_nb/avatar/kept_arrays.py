"""Sequences of arrays: kept in part, checked when they are used, or copied side by side."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence
from typing import overload

import numpy as np

from lipsync_nb.types.arrays import AnyArray, ImageArray


class PartlyKept(Sequence[ImageArray]):
    """Arrays of which the first are kept; the others are read anew at every access.

    Args:
        kept: the first ones, at least one.
        read: gives the array of an index.
        count: number of arrays.
    """

    def __init__(
        self, kept: Sequence[ImageArray], read: Callable[[int], ImageArray], count: int
    ) -> None:
        self.kept, self._read, self._count = kept, read, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> ImageArray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ImageArray]: ...

    def __getitem__(self, index: int | slice) -> ImageArray | Sequence[ImageArray]:
        chosen = range(self._count)[index]
        if isinstance(chosen, range):
            return [self[i] for i in chosen]
        if chosen < len(self.kept):
            return self.kept[chosen]
        return self._read(chosen)


class CheckedArrays(Sequence[ImageArray]):
    """Views of a mapped file that may be damaged: each is checked when it is first used.

    So nothing is read at opening, and an array that was once found right costs nothing more.
    Any number of threads may use it.

    Args:
        kept: the views, contiguous.
        sums: `check_sum` of each.
        mend: gives the array of an index that is damaged; called once for it.
    """

    def __init__(
        self,
        kept: Sequence[ImageArray],
        sums: Sequence[int],
        mend: Callable[[int], ImageArray],
    ) -> None:
        self.kept, self._sums, self._mend = list(kept), sums, mend
        self._is_checked, self._lock = bytearray(len(self.kept)), threading.Lock()

    def __len__(self) -> int:
        return len(self.kept)

    @overload
    def __getitem__(self, index: int) -> ImageArray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ImageArray]: ...

    def __getitem__(self, index: int | slice) -> ImageArray | Sequence[ImageArray]:
        chosen = range(len(self.kept))[index]
        if isinstance(chosen, range):
            return [self[i] for i in chosen]
        if not self._is_checked[chosen]:
            self._check(chosen)
        return self.kept[chosen]

    def _check(self, index: int) -> None:
        if check_sum(self.kept[index]) != self._sums[index]:
            with self._lock:
                if not self._is_checked[index]:
                    self.kept[index] = self._mend(index)
        self._is_checked[index] = 1


def check_sum(*arrays: AnyArray) -> int:
    """CRC-32 of contiguous arrays, one after the other: every flipped bit is seen, at 4 GB/s."""
    found = 0
    for array in arrays:
        found = zlib.crc32(array.data, found)
    return found


def kept_of(arrays: Sequence[ImageArray]) -> Sequence[ImageArray]:
    """Those that are in memory or mapped, as they are: for their sizes, not for their pixels."""
    return arrays.kept if isinstance(arrays, PartlyKept | CheckedArrays) else arrays


class Shelf:
    """Copies of arrays, one after the other in large blocks; what is not filled costs nothing.

    A decoder's buffers come and go between the pictures that are kept. Were these kept where they
    are, they would leave as much room again that nothing fits into.
    """

    def __init__(self, block_bytes: int = 1 << 26) -> None:
        self._size = block_bytes
        self._free = np.empty(0, np.uint8)

    def put(self, array: ImageArray) -> ImageArray:
        """A copy, contiguous."""
        if array.nbytes > self._free.nbytes:
            self._free = np.empty(max(self._size, array.nbytes), np.uint8)
        copy = self._free[: array.nbytes].reshape(array.shape)
        self._free = self._free[array.nbytes :]
        copy[:] = array
        return copy
