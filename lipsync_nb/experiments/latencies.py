"""How late the frames of a speech are that is streamed as fast as it is spoken."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import BenchmarkError, SpeechError
from lipsync_nb.pipeline.render import count_frames
from lipsync_nb.pipeline.streaming import stream
from lipsync_nb.types.arrays import FloatArray
from lipsync_nb.types.records import SAMPLE_RATE, Speech
from lipsync_nb.types.rich import RichResult
from lipsync_nb.types.table import Column, Table

from .clip_measures import drawn_values
from .quality_reports import Track

MOST_SECONDS = 3600.0
# Of the video's rate: who is within it keeps up, as the first frame and the last differ by chance.
_KEEPS_UP = 0.97
_OWN, _LAST = "the frame's own time", "the last sample it needs"


@dataclass(frozen=True)
class StreamLatency(RichResult):
    """When the frames of a streamed speech were handed over.

    Attributes:
        chunk_ms: of sound in each chunk.
        fps: frames of video a second of speech.
        total_ms: for each frame, from its own time, when its sound came, to the frame.
        work_ms: for each frame, from the chunk that holds the last sample that it needs, where
            that came in time.
        floor_ms: how long after a frame's own time that sample is spoken, at the most: no machine
            is below.
        chunks_late_ms: the latest chunk was given so much too late.
        given_fps: frames a second, from the first one to the last.
    """

    chunk_ms: int
    fps: float
    total_ms: tuple[float, ...]
    work_ms: tuple[float, ...]
    floor_ms: float
    chunks_late_ms: float
    given_fps: float

    def __str__(self) -> str:
        return f"{self.head}\n{self.table}"

    @property
    def head(self) -> str:
        """The latency of most frames, in a line."""
        p95 = np.percentile(self.total_ms, 95)
        return (
            f"95 % of the frames were there {p95:.0f} ms after their own time; "
            f"{self.floor_ms:.0f} ms of these the sound takes that a frame needs"
        )

    @property
    def falls_behind(self) -> bool:
        """Whether frames came slower than they are shown."""
        return self.given_fps < _KEEPS_UP * self.fps

    @property
    def track(self) -> Track:
        """The latency from a frame's own time, over the speech, and the floor as its limit."""
        seconds = (len(self.total_ms) - 1) / self.fps
        title = "ms from a frame's own time to the frame"
        values = drawn_values(np.asarray(self.total_ms))
        return Track("latency", title, seconds, values, limit=self.floor_ms)

    @property
    def table(self) -> Table:
        """A row for each moment that latency is counted from."""
        return Table.of(
            [
                Column("latency from", lambda row: row[0], is_text=True),
                Column("frames", lambda row: len(row[1])),
                Column("p50 ms", lambda row: f"{np.percentile(row[1], 50):.0f}"),
                Column("p95 ms", lambda row: f"{np.percentile(row[1], 95):.0f}"),
                Column("worst ms", lambda row: f"{max(row[1]):.0f}"),
            ],
            [(_OWN, self.total_ms), (_LAST, self.work_ms)],
        )


class RealTime:
    """Chunks of a speech, each at the moment at which its last sample would have been spoken.

    Args:
        samples: float32, mono, 16,000 a second.
        chunk_ms: of each chunk.

    Attributes:
        start: when the first sample was spoken, by `time.perf_counter`; known once the first chunk
            was asked for.
        late_ms: the latest chunk so far was given so much too late.
    """

    def __init__(self, samples: FloatArray, chunk_ms: int) -> None:
        self._samples, self._size = samples, chunk_ms * SAMPLE_RATE // 1000
        self.start = 0.0
        self.late_ms = 0.0

    def __iter__(self) -> Iterator[FloatArray]:
        self.start = time.perf_counter()
        for first in range(0, len(self._samples), self._size):
            chunk = self._samples[first : first + self._size]
            due = self.start + (first + len(chunk)) / SAMPLE_RATE
            time.sleep(max(0.0, due - time.perf_counter()))
            self.late_ms = max(self.late_ms, 1000 * (time.perf_counter() - due))
            yield chunk

    def arrival(self, samples: int) -> float:
        """When so many samples had come, where their chunk was given in time."""
        chunks = -(-min(samples, len(self._samples)) // self._size)
        return self.start + min(chunks * self._size, len(self._samples)) / SAMPLE_RATE


def stream_latency(
    avatar: Avatar,
    speech: Speech,
    config: RenderConfig | None = None,
    *,
    seconds: float | None = None,
    chunk_ms: int = 20,
    as_fragments: bool = False,
) -> StreamLatency:
    """Stream a speech in real time, and note when each of its frames comes.

    It takes as long as the speech, and the second that opening takes, which is not counted.

    Args:
        seconds: of sound; a shorter speech is said again. Default: the speech once.
        chunk_ms: of sound in each chunk, 1 to 1000.
        as_fragments: frames count as given with the piece of video that they are in.

    Raises:
        BenchmarkError: ``chunk_ms`` or ``seconds`` is out of range.
        SpeechError: the speech is a feature track.
        ConfigError: what cannot be streamed, see `stream`.

    Example:
        >>> print(stream_latency(load_avatar("demo"), load_speech("hello.mp3"), seconds=10))
    """
    if speech.samples is None:
        raise SpeechError("found a feature track, expected sound to stream.")
    if not 1 <= chunk_ms <= 1000:
        raise BenchmarkError(f"chunk_ms: found {chunk_ms}, expected 1 to 1000.")
    if seconds is not None and not 0.1 <= seconds <= MOST_SECONDS:
        raise BenchmarkError(f"seconds: found {seconds}, expected 0.1 to {MOST_SECONDS:.0f}.")
    samples = _said_for(speech.samples, seconds)
    chunks, config = RealTime(samples, chunk_ms), config or RenderConfig()
    if as_fragments:
        count = count_frames(avatar, Speech(samples=samples), config)
        # The first piece holds no picture, the others one each, and the last may be sound alone.
        pieces = stream(avatar, chunks, config, as_fragments=True)
        with pieces:
            given = [time.perf_counter() for _ in pieces][1 : 1 + count]
        return _latency(avatar, chunks, chunk_ms, given, pieces.lookahead_seconds,
                        pieces.needed_samples)  # fmt: skip
    given = []
    with stream(avatar, chunks, config) as frames:
        for frame in frames:
            given.append(time.perf_counter())
            frames.recycle(frame)
    return _latency(avatar, chunks, chunk_ms, given, frames.lookahead_seconds,
                    frames.needed_samples)  # fmt: skip


def _said_for(samples: FloatArray, seconds: float | None) -> FloatArray:
    if seconds is None:
        return samples
    wanted = round(seconds * SAMPLE_RATE)
    return np.tile(samples, -(-wanted // len(samples)))[:wanted]


def _latency(
    avatar: Avatar,
    chunks: RealTime,
    chunk_ms: int,
    given: list[float],
    floor_seconds: float,
    needed_samples: Callable[[int], int],
) -> StreamLatency:
    if not given:
        raise SpeechError("found too little sound for a frame, expected more.")
    own = [chunks.start + float(i / avatar.fps) for i in range(len(given))]
    last = [chunks.arrival(needed_samples(i)) for i in range(len(given))]
    total, work = (tuple((np.subtract(given, begin) * 1000).tolist()) for begin in (own, last))
    between = max(given[-1] - given[0], 1e-9)
    speed = (len(given) - 1) / between
    return StreamLatency(
        chunk_ms, float(avatar.fps), total, work, 1000 * floor_seconds, chunks.late_ms, speed
    )
