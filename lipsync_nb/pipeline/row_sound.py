"""Which sound the rows of a track are made from, and what they are of a quiet room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lipsync_nb.types.arrays import FLOAT32, FloatArray
from lipsync_nb.types.records import SAMPLE_RATE

from .audio_features import (
    FEATURE_FPS,
    HOP_LENGTH,
    MEL_COLUMNS_PER_SECOND,
    N_FFT,
    WINDOW_COLUMNS,
    WindowEncoder,
    mel_spectrogram,
    mel_windows,
)
from .audio_times import RowPlaces, WindowPlaces

# A quiet room: what networks heard in pauses while they were trained, unlike digital silence.
_ROOM_DB, _ROOM_SECONDS = -60.0, 1.0
Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RowSound:
    """Which sound each row of a track is made from.

    Attributes:
        starts: where it begins for each row, in seconds, float64 ``[rows]``.
        seconds: how long it is.
        quiet: a row of a quiet room.
    """

    starts: Seconds
    seconds: float
    quiet: FloatArray

    @classmethod
    def of_windows(cls, places: RowPlaces, rows: int, encode: WindowEncoder) -> RowSound:
        """Of the first rows that are stored, each of a window that was encoded."""
        if isinstance(places, WindowPlaces):
            starts = places.columns[:rows] / MEL_COLUMNS_PER_SECOND
        else:
            # The first row is there twice.
            starts = np.maximum(np.arange(rows) - 1, 0) / FEATURE_FPS
        return cls(starts, WINDOW_COLUMNS / MEL_COLUMNS_PER_SECOND, quiet_row(encode))

    @classmethod
    def of_mel(cls, rows: int) -> RowSound:
        """Of the first columns of a mel, as rows."""
        starts = (np.arange(rows) * HOP_LENGTH - N_FFT // 2) / SAMPLE_RATE
        return cls(starts, N_FFT / SAMPLE_RATE, _room_mel().mean(axis=1))


def quiet_row(encode: WindowEncoder) -> FloatArray:
    """What an audio encoder makes of a quiet room: the mean row over a second."""
    windows = mel_windows(_room_mel())
    return np.asarray(encode(windows).mean(axis=0), FLOAT32)


def _room_mel() -> FloatArray:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 10 ** (_ROOM_DB / 20), round(_ROOM_SECONDS * SAMPLE_RATE))
    return mel_spectrogram(noise.astype(FLOAT32))
