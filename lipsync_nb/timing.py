"""Where the time goes: spans of each stage's own work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """One piece of work: which stage, which thread, from when to when, for how many frames."""

    stage: str
    worker: str
    start_seconds: float
    end_seconds: float
    frames: int

    @property
    def seconds(self) -> float:
        return self.end_seconds - self.start_seconds


@dataclass(frozen=True)
class StageRow:
    """One line of the stage table."""

    stage: str
    seconds: float
    frames: int

    @property
    def ms_per_frame(self) -> float:
        return 1000 * self.seconds / self.frames if self.frames else 0.0

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds > 0 else 0.0


class Timings:
    """Collects spans from any thread; prints as a stage table.

    Times are seconds on ``time.perf_counter``, counted from the creation of this object.
    """

    def __init__(self) -> None:
        self._origin = time.perf_counter()
        self._spans: list[Span] = []
        self._lock = threading.Lock()
        self.num_frames = 0
        self.wall_seconds = 0.0

    @contextmanager
    def stage(self, name: str, frames: int = 0) -> Iterator[None]:
        """Time the body as a stage's own work on so many frames."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, start, time.perf_counter(), frames)

    def add(self, name: str, start: float, end: float, frames: int) -> None:
        """Add a span given in ``time.perf_counter`` seconds."""
        worker = threading.current_thread().name
        span = Span(name, worker, start - self._origin, end - self._origin, frames)
        with self._lock:
            self._spans.append(span)

    def finish(self, num_frames: int) -> None:
        """Note the frames made and the wall time since the creation."""
        self.num_frames = num_frames
        self.wall_seconds = time.perf_counter() - self._origin

    @property
    def spans(self) -> tuple[Span, ...]:
        with self._lock:
            return tuple(self._spans)

    @property
    def stages(self) -> tuple[StageRow, ...]:
        """Seconds and frames of each stage, in the order in which the stages first ran."""
        totals: dict[str, tuple[float, int]] = {}
        for span in self.spans:
            seconds, frames = totals.get(span.stage, (0.0, 0))
            totals[span.stage] = (seconds + span.seconds, frames + span.frames)
        return tuple(StageRow(name, *total) for name, total in totals.items())

    @property
    def fps(self) -> float:
        """Frames a second of the whole, wall time."""
        return self.num_frames / self.wall_seconds if self.wall_seconds > 0 else 0.0

    def __str__(self) -> str:
        rows = [*self.stages, StageRow("whole", self.wall_seconds, self.num_frames)]
        lines = [f"{'stage':<12}{'seconds':>9}{'ms/frame':>10}{'FPS':>9}"]
        lines += [
            f"{row.stage:<12}{row.seconds:>9.2f}"
            + (f"{row.ms_per_frame:>10.2f}{row.fps:>9.1f}" if row.frames else "")
            for row in rows
        ]
        return "\n".join(lines)
