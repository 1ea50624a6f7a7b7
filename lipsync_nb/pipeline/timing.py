"""Where the time goes: spans of each stage's own work."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lipsync_nb.types.rich import Rich
from lipsync_nb.types.table import Column, Table


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
    """One line of the stage table.

    Attributes:
        stage: its name.
        seconds: during which it was at work, by one worker or several.
        frames: that it worked on.
        p50_ms, p95_ms: percentiles of the milliseconds a frame over its pieces of work, divided
            among its workers.
    """

    stage: str
    seconds: float
    frames: int
    p50_ms: float = 0.0
    p95_ms: float = 0.0

    @property
    def ms_per_frame(self) -> float:
        return 1000 * self.seconds / self.frames if self.frames else 0.0

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Lane:
    """How one worker spent the steady seconds: at work, waiting for others, and on the rest.

    ``busy_seconds`` is the work of its stages, ``waiting_seconds`` is for the stage before it or
    after it; what is missing to ``seconds`` is neither: progress reports, and moving on.
    """

    worker: str
    seconds: float
    busy_seconds: float
    waiting_seconds: float

    @property
    def rest_seconds(self) -> float:
        return self.seconds - self.busy_seconds - self.waiting_seconds


class Timings(Rich):
    """Collects spans from any thread; prints as a stage table.

    Times are seconds on ``time.perf_counter``, counted from the creation of this object.

    Attributes:
        num_frames: frames made, once finished.
        wall_seconds: from the creation to the end.
        steady_seconds: from the first frame's start to the end, without opening and warm-up.
    """

    def __init__(self) -> None:
        self._origin = time.perf_counter()
        self._spans: list[Span] = []
        self._waits: list[Span] = []
        self._lock = threading.Lock()
        self._begin_seconds = 0.0
        self.num_frames = 0
        self.wall_seconds = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """All but the lock: a copy, in this process or another, has its own."""
        with self._lock:
            state = {name: value for name, value in self.__dict__.items() if name != "_lock"}
            return {**state, "_spans": list(self._spans), "_waits": list(self._waits)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str, frames: int = 0) -> Iterator[None]:
        """Time the body as a stage's own work on so many frames."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, start, time.perf_counter(), frames)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time the body as a worker's wait for another one; it is not a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            end, worker = time.perf_counter(), threading.current_thread().name
            with self._lock:
                self._waits.append(
                    Span("wait", worker, start - self._origin, end - self._origin, 0)
                )

    def add(self, name: str, start: float, end: float, frames: int) -> None:
        """Add a span given in ``time.perf_counter`` seconds."""
        worker = threading.current_thread().name
        span = Span(name, worker, start - self._origin, end - self._origin, frames)
        with self._lock:
            self._spans.append(span)

    def begin(self) -> None:
        """Note that the steady work begins now: all is open, and warmed up where that is apart."""
        self._begin_seconds = time.perf_counter() - self._origin

    def finish(self, num_frames: int) -> None:
        """Note the frames made and the wall time since the creation."""
        self.num_frames = num_frames
        self.wall_seconds = time.perf_counter() - self._origin

    @property
    def begin_seconds(self) -> float:
        """When the steady work began."""
        return self._begin_seconds

    @property
    def steady_seconds(self) -> float:
        return max(0.0, self.wall_seconds - self._begin_seconds)

    @property
    def spans(self) -> tuple[Span, ...]:
        with self._lock:
            return tuple(self._spans)

    @property
    def waits(self) -> tuple[Span, ...]:
        """When which worker waited for another one."""
        with self._lock:
            return tuple(self._waits)

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """How each worker spent the steady seconds, in the order in which they began."""
        begin, end = self._begin_seconds, self.wall_seconds
        spans = [span for span in self.spans if span.end_seconds > begin]
        workers = dict.fromkeys(span.worker for span in spans)
        return tuple(_lane(worker, spans, self.waits, begin, end) for worker in workers)

    @property
    def stages(self) -> tuple[StageRow, ...]:
        """Seconds and frames of each stage, in the order in which the stages first ran."""
        pieces: dict[str, list[Span]] = {}
        for span in self.spans:
            pieces.setdefault(span.stage, []).append(span)
        return tuple(_row(name, spans) for name, spans in pieces.items())

    @property
    def fps(self) -> float:
        """Frames a second of the whole, wall time."""
        return self.num_frames / self.wall_seconds if self.wall_seconds > 0 else 0.0

    @property
    def steady_fps(self) -> float:
        """Frames a second of the steady work, without opening and warm-up."""
        return self.num_frames / self.steady_seconds if self.steady_seconds > 0 else 0.0

    @property
    def speed_text(self) -> str:
        """Both speeds, each with what it counts."""
        return f"with opening {self.fps:.1f} FPS, without {self.steady_fps:.1f} FPS"

    def ms_per_frame(self, stage: str) -> float:
        """Milliseconds a frame of one stage's own work; 0 where it did not run."""
        return next((row.ms_per_frame for row in self.stages if row.stage == stage), 0.0)

    def __str__(self) -> str:
        return str(self.table)

    @property
    def table(self) -> Table:
        """A row for each stage, for the steady work and for the whole."""
        rows = [*self.stages]
        if self.num_frames:
            rows.append(StageRow("steady", self.steady_seconds, self.num_frames))
        rows.append(StageRow("whole", self.wall_seconds, self.num_frames))

        def figure(name: str, places: int = 2) -> Callable[[StageRow], object]:
            return lambda row: f"{getattr(row, name):.{places}f}" if row.frames else ""

        def percentile(name: str) -> Callable[[StageRow], object]:
            return lambda row: f"{getattr(row, name):.2f}" if row.p50_ms else ""

        return Table.of(
            [
                Column("stage", lambda row: row.stage, is_text=True),
                Column("seconds", lambda row: f"{row.seconds:.2f}"),
                Column("ms/frame", figure("ms_per_frame")),
                Column("p50 ms", percentile("p50_ms")),
                Column("p95 ms", percentile("p95_ms")),
                Column("FPS", figure("fps", 1)),
            ],
            rows,
        )

    def to_dict(self) -> dict[str, Any]:
        """Stages, spans and totals as plain numbers and texts."""
        return {
            "num_frames": self.num_frames,
            "wall_seconds": self.wall_seconds,
            "begin_seconds": self._begin_seconds,
            "stages": [
                {**asdict(row), "ms_per_frame": row.ms_per_frame, "fps": row.fps}
                for row in self.stages
            ],
            "lanes": [asdict(lane) for lane in self.lanes],
            "spans": [asdict(span) for span in self.spans],
            "waits": [asdict(span) for span in self.waits],
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=1)

    def to_csv(self) -> str:
        """The stage table as CSV text with a head line."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["stage", "seconds", "frames", "ms_per_frame", "p50_ms", "p95_ms", "fps"])
        for row in self.stages:
            figures = [row.seconds, row.frames, row.ms_per_frame, row.p50_ms, row.p95_ms, row.fps]
            writer.writerow([row.stage, *(round(figure, 6) for figure in figures)])
        return text.getvalue()

    def to_chrome_trace(self) -> str:
        """The timeline as a trace for ``chrome://tracing`` or Perfetto (Trace Event Format)."""
        workers = list(dict.fromkeys(span.worker for span in self.spans))
        names = [
            {"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": {"name": worker}}
            for tid, worker in enumerate(workers)
        ]
        events = [
            {
                "ph": "X",
                "pid": 1,
                "tid": workers.index(span.worker),
                "name": span.stage,
                "ts": round(1e6 * span.start_seconds, 1),
                "dur": round(1e6 * span.seconds, 1),
                "args": {"frames": span.frames},
            }
            for span in self.spans
        ]
        return json.dumps({"traceEvents": [*names, *events], "displayTimeUnit": "ms"})


def _lane(
    worker: str, spans: Sequence[Span], waits: Sequence[Span], begin: float, end: float
) -> Lane:
    """A worker's share of the time; before its first and after its last work it waits too."""
    own = [span for span in spans if span.worker == worker]
    busy = sum(_within(span, begin, end) for span in own)
    first, last = own[0].start_seconds, max(span.end_seconds for span in own)
    between = [wait for wait in waits if wait.worker == worker]
    waiting = sum(_within(wait, max(begin, first), last) for wait in between)
    waiting += max(0.0, first - begin) + max(0.0, end - last)
    return Lane(worker, end - begin, busy, waiting)


def _within(span: Span, begin: float, end: float) -> float:
    return max(0.0, min(span.end_seconds, end) - max(span.start_seconds, begin))


def _row(name: str, spans: Sequence[Span]) -> StageRow:
    seconds, frames = _covered(spans), sum(span.frames for span in spans)
    pieces = [span for span in spans if span.frames]
    if not pieces:
        return StageRow(name, seconds, frames)
    scale = 1000 / len({span.worker for span in pieces})
    each = np.repeat([scale * s.seconds / s.frames for s in pieces], [s.frames for s in pieces])
    p50, p95 = np.percentile(each, [50, 95]).tolist()
    return StageRow(name, seconds, frames, p50, p95)


def _covered(spans: Sequence[Span]) -> float:
    """Seconds in which at least one of the spans ran."""
    total, end = 0.0, float("-inf")
    for span in sorted(spans, key=lambda span: span.start_seconds):
        total += max(0.0, span.end_seconds - max(span.start_seconds, end))
        end = max(end, span.end_seconds)
    return total
