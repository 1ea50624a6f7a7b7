"""Feature tracks that are encoded while the frames before are made already."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from lipsync_nb.errors import SpeechError
from lipsync_nb.types.arrays import AnyArray, FloatArray, IndexArray, Shape
from lipsync_nb.types.records import FEATURE_SIZE

from .audio_times import RowPlaces
from .prefetch import Started


class EncodedTrack:
    """Feature rows of a speech, float32 ``[n, ...]``, waited for where they are not there yet.

    It is indexed as an array is, by arrays of rows; any number of threads may do so.

    Args:
        num_rows: of the track.
        blocks: gives them in order, see `feature_blocks`.
        path: for messages.
        row_shape: of a row.
    """

    def __init__(
        self,
        num_rows: int,
        blocks: Started[FloatArray],
        path: Path | None,
        row_shape: Shape = (FEATURE_SIZE,),
    ) -> None:
        self._rows = np.empty((num_rows, *row_shape), np.float32)
        self._blocks, self._path = blocks, path
        self._num_ready, self._lock = 0, threading.Lock()
        self._error: Exception | None = None

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
                block = self._next_block()
                check_track(block, self._num_ready, self._name)
                end = self._num_ready + len(block)
                self._rows[self._num_ready : end] = block.reshape(-1, *self._rows.shape[1:])
                self._num_ready = end

    def _next_block(self) -> FloatArray:
        """The next block; what went wrong once is raised each time that rows are asked for."""
        if self._error is not None:
            raise self._error
        try:
            block = self._blocks.next()
        except Exception as error:
            self._error = error
            raise
        if block is None:
            raise SpeechError(f"{self._name}: its features ended early.")
        return block

    @property
    def _name(self) -> str:
        return str(self._path or "speech")

    def close(self) -> None:
        """Let what is not encoded yet be."""
        self._blocks.close()


class TimedTrack:
    """What each output frame hears, where that is another row than the frame's own number.

    Its length is that of the video, in frames. Any number of threads may use it.

    Args:
        rows: the rows that are stored, float32 ``[n, 512]``.
        places: where those are that a frame hears.
    """

    def __init__(self, rows: FloatArray | EncodedTrack, places: RowPlaces) -> None:
        self.rows, self.places = rows, places

    def __len__(self) -> int:
        return len(self.places)

    def window(self, frame: int, padding: str = "zero") -> FloatArray:
        """The rows that a frame hears, float32 ``[before + after, 512]``; a copy.

        Args:
            padding: rows outside the speech are ``zero``, or ``repeat`` the first or last row.

        Raises:
            SpeechError, NetworkError: see `EncodedTrack`.
        """
        window: FloatArray = self.rows[self.places.stored(frame)]
        if padding == "zero":
            window[self.places.is_outside(frame)] = 0
        return window

    def wait_for(self, count: int) -> None:
        """Until so many stored rows are there; raises as `EncodedTrack` does."""
        if isinstance(self.rows, EncodedTrack):
            self.rows.wait_for(count)

    def close(self) -> None:
        """Let what is not encoded yet be."""
        if isinstance(self.rows, EncodedTrack):
            self.rows.close()


Track = FloatArray | EncodedTrack | TimedTrack


def check_whole(track: Track) -> None:
    """Raise `SpeechError` where a track that is there already holds what is no number."""
    rows = track.rows if isinstance(track, TimedTrack) else track
    if not isinstance(rows, EncodedTrack):
        check_track(rows)


def check_track(rows: FloatArray, first: int = 0, name: str = "features") -> None:
    """Raise `SpeechError` where features, from this row of a track on, are no numbers."""
    bad = ~np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
    if bad.any():
        raise SpeechError(
            f"{name}: found NaN or infinity in {bad.sum()} of {len(rows)} rows, the first is "
            f"{first + bad.argmax()}; expected finite numbers."
        )
