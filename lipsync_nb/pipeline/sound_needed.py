"""How much of a speech an output frame needs: which mel columns it hears, and their samples."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lipsync_nb.types.arrays import IndexArray
from lipsync_nb.types.records import MIN_SPEECH_SECONDS, SAMPLE_RATE

from .audio_features import (
    FEATURE_FPS,
    HOP_LENGTH,
    MEL_COLUMNS_PER_SECOND,
    N_FFT,
    WINDOW_COLUMNS,
    num_columns,
    num_windows,
)
from .audio_times import AudioTimes, RowPlaces, WindowPlaces
from .family_audio import MelPlaces

MIN_SAMPLES = round(MIN_SPEECH_SECONDS * SAMPLE_RATE)
# Of a speech whose end is not known yet: longer than any.
_ENDLESS = 2**40
_NO_COLUMNS = np.zeros(0, np.int64)
# After so many frames the places of frames between rows come again, at any usual rate.
_MANY_FRAMES = range(100, 1100)


@dataclass(frozen=True, eq=False)
class Hearing:
    """Which mel columns output frames hear of a speech, and how many samples these take.

    Attributes:
        times: of the output frames.
    """

    times: AudioTimes

    def places(self, num_samples: int | None) -> RowPlaces:
        """As `encode_speech` has them for a speech of so many samples; None: without an end."""
        columns = _ENDLESS if num_samples is None else num_columns(num_samples)
        if self.times.is_mel:
            return MelPlaces(self.times, columns)
        rows = _ENDLESS if num_samples is None else num_windows(columns) + 2
        if self.times.phases == 1 and not self.times.phase:
            return RowPlaces(self.times, rows)
        step = MEL_COLUMNS_PER_SECOND / self.times.rows_per_second
        return WindowPlaces(self.times, rows, step, columns - WINDOW_COLUMNS, _NO_COLUMNS)

    def columns(self, frame: int, num_samples: int | None = None) -> IndexArray:
        """What a frame hears, int64: the first mel column of each window, or the mel columns.

        Where rows of the track lie on frames, row r is of window r - 1; the first window and the
        last are there twice.

        Args:
            num_samples: of the speech; None: it does not end before what the frame hears.
        """
        places = self.places(num_samples)
        if isinstance(places, WindowPlaces):
            return places.columns_heard(frame)
        rows = places.stored(frame)
        if self.times.is_mel:
            return rows
        starts = np.maximum(rows - 1, 0) * MEL_COLUMNS_PER_SECOND // FEATURE_FPS
        columns = _ENDLESS if num_samples is None else num_columns(num_samples)
        return np.asarray(np.minimum(starts, columns - WINDOW_COLUMNS), np.int64)

    @property
    def num_columns(self) -> int:
        """Mel columns of what is heard at one of the places that `columns` gives."""
        return 1 if self.times.is_mel else WINDOW_COLUMNS

    def needed_samples(self, frame: int) -> int:
        """From so many samples on a frame is there, and does not change; see `needed_samples`."""
        last = int(self.columns(frame).max()) + self.num_columns - 1
        return max(self._needed_to_be(frame), last * HOP_LENGTH + N_FFT // 2)

    def _needed_to_be(self, frame: int) -> int:
        """From so many samples on, a speech has this frame."""
        step = self.times.rows_per_second / self.times.fps
        if self.times.is_mel:
            fitting = max(0, (frame - 1) * step.numerator // step.denominator)
        else:
            # A track has two rows more than windows, and these have two more than fit evenly.
            rows = frame * step.numerator // step.denominator + 1 - 4
            fitting = max(0, -(-rows * MEL_COLUMNS_PER_SECOND // FEATURE_FPS))
        return max(MIN_SAMPLES, (WINDOW_COLUMNS - 1 + fitting) * HOP_LENGTH)

    @property
    def lookahead_seconds(self) -> float:
        """How long after a frame's own time the sound that it needs ends, at the most."""
        late = [
            Fraction(self.needed_samples(frame), SAMPLE_RATE) - frame / self.times.fps
            for frame in _MANY_FRAMES
        ]
        return float(max(late))


def needed_samples(times: AudioTimes, frame: int) -> int:
    """How many samples of a speech, 16 kHz, an output frame needs, whatever comes after them.

    Mel column c is of the samples up to ``200 c + 400``. A frame at row position
    ``p = rows_per_second * (frame / fps + offset)`` hears rows up to ``r = p + rows_after - 1``:

    * where an audio encoder makes rows of windows of 16 columns, the last of which begins with
      column ``s = floor((r - 1) * 80 / rows_per_second)``: ``200 * (s + 15) + 400`` samples;
    * where rows are columns of the mel (Wav2Lip): ``200 * floor(r) + 400``.

    At least 3200 (0.2 s), and as many as a speech must have to have the frame at all, which
    matters where an offset lets frames hear what was before them. For SyncTalk_2D at 25 frames a
    second that is ``200 * (floor(3.2 * (frame + 6)) + 17)``: 0.45 s after the frame's own time; for
    Wav2Lip ``200 * (floor(3.2 * frame) + 17)``: 0.21 s.

    Args:
        times: of the output frames, see `times_of`.

    Example:
        >>> needed_samples(times_of(avatar), 0)
        7200
    """
    return Hearing(times).needed_samples(frame)
