"""Feature tracks that are encoded while the frames before are made already."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from lipsync_nb.errors import SpeechError
from lipsync_nb.types.arrays import AnyArray, FloatArray, IndexArray
from lipsync_nb.types.records import FEATURE_SIZE

from .prefetch import Started


class EncodedTrack:
    """Feature rows of a speech, float32 ``[n, 512]``, waited for where they are not there yet.

    It is indexed as an array is, by arrays of rows; any number of threads may do so.

    Args:
        num_rows: of the track.
        blocks: gives them in order, see `feature_blocks`.
        path: for messages.
    """

    def __init__(self, num_rows: int, blocks: Started[FloatArray], path: Path | None) -> None:
        self._rows = np.empty((num_rows, FEATURE_SIZE), np.float32)
        self._blocks, self._path = blocks, path
        self._num_ready, self._lock = 0, threading.Lock()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: IndexArray) -> FloatArray:
        """Rows of these numbers, a copy.

        Raises:
            SpeechError: a row up to there holds NaN or infinity.
            NetworkError: the audio encoder fails.
        """
        self.wait_for(int(np.max(index, initial=-1)) + 1)
        return self._rows[np.asarray(index)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> AnyArray:
        self.wait_for(len(self))
        return np.array(self._rows, dtype, copy=copy)

    def wait_for(self, count: int) -> None:
        """Until so many rows are there; raises as indexing does."""
        if count <= self._num_ready:
            return
        with self._lock:
            while self._num_ready < count:
                block = self._blocks.next()
                if block is None:
                    raise SpeechError(f"{self._name}: its features ended early.")
                check_track(block, self._num_ready, self._name)
                end = self._num_ready + len(block)
                self._rows[self._num_ready : end] = block
                self._num_ready = end

    @property
    def _name(self) -> str:
        return str(self._path or "speech")

    def close(self) -> None:
        """Let what is not encoded yet be."""
        self._blocks.close()


Track = FloatArray | EncodedTrack


def check_track(rows: FloatArray, first: int = 0, name: str = "features") -> None:
    """Raise `SpeechError` where features, from this row of a track on, are no numbers."""
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise SpeechError(
            f"{name}: found NaN or infinity in {bad.sum()} of {len(rows)} rows, the first is "
            f"{first + bad.argmax()}; expected finite numbers."
        )
