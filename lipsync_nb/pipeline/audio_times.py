"""Which moments of the speech each output frame hears: exact, whatever rate it is rendered at.

A network was trained at a rate of its own: its feature rows are so many a second, and a frame
hears some of them before its time and some after it. Frames of another rate, or an offset, lie
between rows; then windows of the sound are encoded where the frame's own rows would begin.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from lipsync_nb.types.arrays import IndexArray


@dataclass(frozen=True)
class AudioTimes:
    """When output frames are, in rows of the network's training.

    Attributes:
        fps: output frames a second.
        rows_per_second: of the network's training.
        rows_before, rows_after: a frame at row position p hears ``[p - before, p + after)``.
        offset_seconds: a frame hears what is so much later in the sound; below 0: earlier.
        is_mel: the rows are columns of the mel, see `MelPlaces`.
    """

    fps: Fraction
    rows_per_second: Fraction
    rows_before: int
    rows_after: int
    offset_seconds: Fraction = Fraction(0)
    is_mel: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether frame i is at row i."""
        return self.fps == self.rows_per_second and not (self.offset_seconds or self.is_mel)

    def position(self, frame: int) -> Fraction:
        """Row position of an output frame: row r of the track lies at r."""
        return self.rows_per_second * (frame / self.fps + self.offset_seconds)

    def first(self, frame: int) -> Fraction:
        """Row position of the first row that a frame hears; its others lie 1, 2, ... after it."""
        return self.position(frame) - self.rows_before

    @property
    def num_heard(self) -> int:
        """Rows that a frame hears."""
        return self.rows_before + self.rows_after

    @property
    def heard_seconds(self) -> Fraction:
        """How long the stretch of rows is that a frame hears."""
        return self.num_heard / self.rows_per_second

    def num_frames(self, num_rows: int) -> int:
        """Output frames before the end of a track of so many rows; the offset moves none."""
        return -int(-num_rows * self.fps // self.rows_per_second)

    @property
    def phases(self) -> int:
        """Frames are at this many places between two rows, evenly spaced."""
        return (self.rows_per_second / self.fps).denominator

    @property
    def phase(self) -> Fraction:
        """How far the first of these places lies after a row, 0 to 1 / ``phases``."""
        return self.position(0) % Fraction(1, self.phases)


@dataclass(frozen=True, eq=False)
class RowPlaces:
    """Where the rows that frames hear are stored.

    Attributes:
        times: of the frames.
        num_rows: of the whole track.
    """

    times: AudioTimes
    num_rows: int

    def __len__(self) -> int:
        """Number of output frames."""
        return self.times.num_frames(self.num_rows)

    def stored(self, frame: int) -> IndexArray:
        """Where the rows are that a frame hears, int64; beyond the ends the first or last one."""
        return np.clip(self._rows(frame), 0, self.num_rows - 1)

    def is_outside(self, frame: int) -> npt.NDArray[np.bool_]:
        """Which of these lie before the track's beginning, or after its end."""
        rows = self._rows(frame)
        return (rows < 0) | (rows >= self.num_rows)

    def _rows(self, frame: int) -> IndexArray:
        """Rows of the track: a position is within the row that began last."""
        first = self.times.first(frame)
        return first.numerator // first.denominator + np.arange(self.times.num_heard)

    def num_stored(self, frames: int) -> int:
        """Rows that the first so many frames need, from the first on."""
        return int(self.stored(frames - 1)[-1]) + 1 if frames > 0 else 0


@dataclass(frozen=True, eq=False)
class WindowPlaces(RowPlaces):
    """Where the rows that frames hear are stored, one for each window of the sound that is needed.

    The row at position p is that of the window from mel column ``(p - 1) * columns_a_row`` on,
    rounded down; the row from 0 to 1 is the first window's too.

    Attributes:
        columns_a_row: mel columns from a row of the track to the next.
        last_column: where the last window begins.
        columns: first mel column of each stored window, int64, ascending.
    """

    columns_a_row: Fraction
    last_column: int
    columns: IndexArray

    @classmethod
    def of(
        cls, times: AudioTimes, num_rows: int, columns_a_row: Fraction, last_column: int
    ) -> WindowPlaces:
        """With the windows that any frame needs, each once: as many as mel columns at most."""
        every = np.arange(last_column + 1, dtype=np.int64)
        places = cls(times, num_rows, columns_a_row, last_column, every)
        if times.phases >= columns_a_row:
            return places
        needed = places._columns(times.phase - 1, num_rows + 2, times.phases)
        return cls(times, num_rows, columns_a_row, last_column, np.unique(needed))

    def stored(self, frame: int) -> IndexArray:
        return np.searchsorted(self.columns, self.columns_heard(frame)).astype(np.int64)

    def columns_heard(self, frame: int) -> IndexArray:
        """First mel column of each window that a frame hears, int64."""
        return self._columns(self.times.first(frame), self.times.num_heard)

    def _columns(self, first: Fraction, rows: int, phases: int = 1) -> IndexArray:
        """Columns of the windows from a position on, ``phases`` of them a row."""
        steps = self.columns_a_row
        start, step = steps * (first - 1), steps / phases
        unit = start.denominator * step.denominator
        ticks = start.numerator * step.denominator + np.arange(rows * phases, dtype=np.int64) * (
            step.numerator * start.denominator
        )
        return np.clip(ticks // unit, 0, self.last_column)
