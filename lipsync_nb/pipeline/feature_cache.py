"""What the network computes from template frames alone, kept between uses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from lipsync_nb.avatar.kept_arrays import check_sum
from lipsync_nb.network.boundary import BoundaryTensor
from lipsync_nb.system.background import in_background
from lipsync_nb.types.arrays import AnyArray, IndexArray


@dataclass(frozen=True, eq=False)
class StoredFeatures:
    """Features that an earlier process left.

    Attributes:
        arrays: one ``[frames, *shape]`` a boundary tensor; what is written to them stays here.
        sums: `check_sum` of each frame that was computed; the others' rows are zeros.
        let_go: gives up a frame's pages until they are read again; not for what was written.
    """

    arrays: tuple[AnyArray, ...]
    sums: Mapping[int, int]
    let_go: Callable[[int], None]


class Files(Protocol):
    """Where features are kept for the next process, see `FeatureFiles`."""

    def open(self) -> StoredFeatures | None:
        """What an earlier process left."""

    def write(self, arrays: Sequence[AnyArray], frames: Sequence[int]) -> None:
        """Keep these frames' features."""

    def warn(self, text: str) -> None:
        """A line about them."""


class FeatureCache:
    """Boundary tensors of a split graph for template frames, an array each, filled as they come.

    Memory is taken from the system only as slots are filled. Several threads may use it: a slot is
    written by the first that claims it, and read once it is filled; another computes its own.

    Args:
        boundary: the tensors that cross the cut.
        frames: the template frames to keep, in ascending order.
        files: where they are kept for the next process too, if all frames are kept; those that
            are there are used, each checked before its first use.
    """

    def __init__(
        self,
        boundary: Sequence[BoundaryTensor],
        frames: IndexArray,
        files: Files | None = None,
    ) -> None:
        self.boundary = tuple(boundary)
        self._slots = {int(frame): slot for slot, frame in enumerate(frames)}
        self._filled: set[int] = set()
        self._claimed: set[int] = set()
        self._computed: set[int] = set()
        self._lock = threading.Lock()
        self._files = files
        stored = files.open() if files is not None else None
        self._let_go = stored.let_go if stored is not None else None
        self._unchecked = dict(stored.sums) if stored is not None else {}
        self.num_found, self._is_damaged = len(self._unchecked), False
        self._arrays = (
            list(stored.arrays)
            if stored is not None
            else [np.empty((len(frames), *tensor.shape), tensor.dtype) for tensor in boundary]
        )

    def __len__(self) -> int:
        """Template frames whose features are here."""
        return len(self._filled)

    @property
    def capacity(self) -> int:
        return len(self._slots)

    def has_slots(self, frames: IndexArray) -> bool:
        """Whether all of these template frames can be kept."""
        return self._slots.keys() >= set(frames.tolist())

    def covers(self, frames: IndexArray) -> bool:
        """Whether the features of all of these template frames are here, or in the files."""
        return self._filled | self._unchecked.keys() >= set(frames.tolist())

    @property
    def nbytes(self) -> int:
        """Bytes of the features that are here."""
        return len(self) * self._frame_bytes

    @property
    def _frame_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.boundary)

    @property
    def ram_bytes(self) -> int:
        """Bytes of what this process computed."""
        return len(self._computed) * self._frame_bytes

    @property
    def file_bytes(self) -> int:
        """Bytes of what an earlier process left, in mapped files."""
        return self.nbytes - self.ram_bytes

    def missing(self, frames: IndexArray) -> IndexArray:
        """Those of these template frames whose features are not here, each once, ascending."""
        asked = {int(frame) for frame in frames.flat}
        # One by one: another thread may take a frame out of these meanwhile.
        for frame in asked:
            if frame in self._unchecked:
                self._check(frame)
        wanted = sorted(asked - self._filled)
        return np.array(wanted, np.int64)

    def _check(self, frame: int) -> None:
        """Take a frame's features that were found in files, where they are as they were written."""
        wanted = self._unchecked.get(frame)
        if wanted == check_sum(*(array[frame] for array in self._arrays)):
            self._filled.add(frame)
        elif self._files is not None and self._unchecked.pop(frame, None) is not None:
            self._is_damaged = True
            text = f"are damaged (those of frame {frame}); they are computed anew."
            self._files.warn(text)
        self._unchecked.pop(frame, None)

    def keep(self) -> None:
        """Write what is here into the files, where they lack much of it or are wrong.

        In a thread ``features``; the process does not end before it.
        """
        count = len(self._filled | set(self._unchecked))
        if self._files is None or not (self._is_damaged or count > 1.1 * self.num_found):
            return
        self.num_found, self._is_damaged = count, False
        in_background(partial(self._write, self._files), "features")

    def _write(self, files: Files) -> None:
        # What was not looked at may be damaged: it must not get a new check sum.
        for frame in list(self._unchecked):
            self._check(frame)
        files.write(self._arrays, sorted(self._filled))

    def put(self, frame: int, values: Sequence[AnyArray]) -> None:
        """Keep a frame's features, one array ``tensor.shape`` each, if it has a slot to fill."""
        slot = self._slots.get(frame)
        if slot is None or not self._claim([frame]):
            return
        for array, value in zip(self._arrays, values, strict=True):
            array[slot] = value
        self._fill([frame])

    def _claim(self, frames: Sequence[int]) -> bool:
        with self._lock:
            if not self._filled.isdisjoint(frames) or not self._claimed.isdisjoint(frames):
                return False
            self._claimed.update(frames)
            return True

    def _fill(self, frames: Sequence[int]) -> None:
        with self._lock:
            # First, since `let_go` takes what is filled and was not computed for what is in files.
            self._computed.update(frames)
            self._filled.update(frames)
            self._claimed.difference_update(frames)

    def slots(self, frames: IndexArray) -> list[AnyArray]:
        """Where these frames' features go, ``[n, *tensor.shape]`` each, to be written to.

        Empty where their slots do not follow each other, or are written by somebody else. `mark`
        says that they were written.
        """
        slots = [self._slots.get(int(frame)) for frame in frames]
        start = slots[0]
        if start is None or slots != list(range(start, start + len(slots))):
            return []
        if not self._claim(frames.tolist()):
            return []
        return [array[start : start + len(slots)] for array in self._arrays]

    def mark(self, frames: IndexArray, is_written: bool = True) -> None:
        """Note that the features of these frames were written where `slots` said, or not."""
        if is_written:
            self._fill(frames.tolist())
        else:
            with self._lock:
                self._claimed.difference_update(frames.tolist())

    def gather(
        self, frames: IndexArray, others: Mapping[int, Sequence[AnyArray]]
    ) -> list[AnyArray]:
        """Features of these template frames, ``[n, *tensor.shape]`` each.

        Frames in successive slots are given as views, without a copy.

        Args:
            others: features of the frames that are not here.
        """
        start = self._slots.get(int(frames[0]), -1)
        slots = [self._slots.get(int(frame)) for frame in frames]
        here = all(int(frame) in self._filled for frame in frames)
        if here and slots == list(range(start, start + len(slots))):
            return [array[start : start + len(slots)] for array in self._arrays]
        rows = [self._row(int(frame), others) for frame in frames]
        return [np.stack(parts) for parts in zip(*rows, strict=True)]

    def let_go(self, frames: IndexArray) -> None:
        """These frames were used: what of them lies in files need not be this process's memory.

        The system keeps the pages as long as it has room, and the next use finds them there.
        """
        if self._let_go is None:
            return
        for frame in set(frames.tolist()):
            # What was computed here is in no file.
            if frame in self._filled and frame not in self._computed:
                self._let_go(self._slots[frame])

    def _row(self, frame: int, others: Mapping[int, Sequence[AnyArray]]) -> Sequence[AnyArray]:
        if frame in self._filled:
            slot = self._slots[frame]
            return [array[slot] for array in self._arrays]
        return others[frame]
