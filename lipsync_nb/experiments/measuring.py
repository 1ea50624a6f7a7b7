"""One render, measured: its stages, its workers, its memory, the network alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.config.thread_plan import available_cores, plan_threads
from lipsync_nb.network.inference import Generator, audio_encoder
from lipsync_nb.pipeline.audio_features import speech_features
from lipsync_nb.pipeline.batches import iter_batches, template_order
from lipsync_nb.pipeline.render import FrameStream, render
from lipsync_nb.pipeline.timing import Lane, StageRow, Timings
from lipsync_nb.system.outputs import scratch_folder
from lipsync_nb.types.records import Progress, ProgressCallback, Speech

from .baselines import ORIGIN_STAGES, render_origin
from .environment import PeakMemory
from .results import check_range

BARE_NETWORK, BARE_BATCH = "onnxruntime", 4
_SHORTEST_SECONDS, _MOST_BYTES = 1e-9, 1e15
_Measured = tuple[Timings, float, float, str, int]
RunProgress = Callable[[str, Progress], None]


@dataclass(frozen=True)
class Run:
    """One render of one configuration.

    Attributes:
        name: of the configuration.
        repeat: 0 is the first render, which fills the caches; it counts as warm-up.
        num_frames: output frames.
        seconds: of the steady work, from the first batch until the file is closed.
        warmup_seconds: of opening, features and trial runs before it.
        inference_seconds: of the network alone, on all frames, with nothing beside it.
        rss_bytes: largest resident memory of the process during the render.
        provider: execution provider that was bound.
        threads: of the network.
        stages: seconds, frames, p50 and p95 of each stage.
        lanes: how each worker spent the steady seconds: at work, waiting, on the rest.

    Raises:
        BenchmarkError: a figure is negative, not finite, or 0 where it is divided by.
    """

    name: str
    repeat: int
    num_frames: int
    seconds: float
    warmup_seconds: float
    inference_seconds: float
    rss_bytes: int
    provider: str
    threads: int
    stages: tuple[StageRow, ...]
    lanes: tuple[Lane, ...] = ()

    def __post_init__(self) -> None:
        check_range("repeat", self.repeat, 0)
        check_range("num_frames", self.num_frames, 1)
        for name in ("seconds", "inference_seconds"):
            check_range(name, getattr(self, name), _SHORTEST_SECONDS)
        for name in ("warmup_seconds", "rss_bytes", "threads"):
            check_range(name, getattr(self, name), 0, _MOST_BYTES)
        _check_rows("stages", self.stages)
        _check_rows("lanes", self.lanes)

    @property
    def fps(self) -> float:
        return self.num_frames / self.seconds

    @property
    def inference_fps(self) -> float:
        return self.num_frames / self.inference_seconds


def _check_rows(place: str, rows: Sequence[StageRow | Lane]) -> None:
    for number, row in enumerate(rows):
        for option in fields(row):
            value = getattr(row, option.name)
            if not isinstance(value, str):
                check_range(f"{place}[{number}].{option.name}", value, 0)


@dataclass(frozen=True)
class Spread:
    """Median and range of a figure over the repeats.

    Two spreads that overlap are a tie.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Spread of one figure or more."""
        return cls(statistics.median(values), min(values), max(values))

    def ties_with(self, other: Spread) -> bool:
        """Whether the difference is smaller than the spread."""
        return self.low <= other.high and other.low <= self.high

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(frozen=True)
class Meter:
    """Renders once and notes what it took; outputs go to a temporary folder.

    Attributes:
        speech: what is rendered.
        max_frames: frames of each render, 0: as the configuration says.
        measure_inference: also run the network of each configuration alone.
        progress: called with a text and a `Progress` as frames are made.
        again: whether an avatar is rendered more than once, so that every frame recurs: then
            features are kept where the configuration leaves that open.
    """

    speech: Speech
    max_frames: int
    measure_inference: bool
    progress: RunProgress | None
    again: bool = True

    def run(self, avatar: Avatar, name: str, config: RenderConfig | None, repeat: int) -> Run:
        """Render once.

        Args:
            name: of the configuration; with ``config`` None one of the origin's programs, or
                ``onnxruntime``.
            repeat: its number; 0 is the first, which fills the caches.
        """
        with scratch_folder() as folder, PeakMemory() as peak:
            if config is not None:
                measured = self._render(avatar, config, folder, self._report(name, repeat))
            elif name in ORIGIN_STAGES:
                measured = self._origin(avatar, name, folder, self._report(name, repeat))
            else:
                measured = self._bare(avatar, self._report(name, repeat))
        timings, seconds, alone, provider, threads = measured
        return Run(
            name=name,
            repeat=repeat,
            num_frames=timings.num_frames,
            seconds=seconds,
            warmup_seconds=timings.begin_seconds,
            inference_seconds=alone,
            rss_bytes=peak.bytes,
            provider=provider,
            threads=threads,
            stages=timings.stages,
            lanes=timings.lanes,
        )

    def _report(self, name: str, repeat: int) -> ProgressCallback | None:
        progress = self.progress
        if progress is None:
            return None
        label = f"{name}, repeat {repeat}" if repeat else f"{name}, first run"
        return lambda done: progress(label, done)

    def _origin(
        self, avatar: Avatar, name: str, folder: Path, report: ProgressCallback | None
    ) -> _Measured:
        frames = folder / "frames"
        result = render_origin(
            avatar, self.speech, frames, name, max_frames=self.max_frames, progress=report
        )
        timings = result.timings
        alone = _stage_seconds(timings, "inference")
        return timings, timings.steady_seconds, alone, result.provider, available_cores()

    def _render(
        self, avatar: Avatar, config: RenderConfig, folder: Path, report: ProgressCallback | None
    ) -> _Measured:
        config = replace(config, max_frames=self.max_frames or config.max_frames)
        if self.again and config.feature_cache == "auto":
            config = replace(config, feature_cache="on")
        result = render(avatar, self.speech, folder / "video.mp4", config, report)
        timings = result.timings
        alone = _stage_seconds(timings, "inference")
        if self.measure_inference and config.overlap:
            alone = _inference_alone(avatar, self.speech, config)
        threads = plan_threads(config).cores or available_cores()
        return timings, timings.steady_seconds, alone, result.provider, threads

    def _bare(self, avatar: Avatar, report: ProgressCallback | None) -> _Measured:
        """Only the network's own runs count, on batches of 4 that are made between them."""
        timings = Timings()
        path = avatar.require_generator()
        with timings.stage("open"):
            template = avatar.open_template("memory", "bgr")
            generator = Generator(path, avatar.spec, num_threads=available_cores())
            encoder = None
            if self.speech.features is None and avatar.audio_encoder is not None:
                encoder = audio_encoder(avatar.audio_encoder)
            track = speech_features(self.speech, encoder)
        count = min(self.max_frames or len(track), len(track))
        order = template_order(len(template), count)
        trial = next(iter_batches(template, track, order, BARE_BATCH))
        generator.network(trial.visual, trial.audio)
        timings.begin()
        start = time.perf_counter()
        for batch in iter_batches(template, track, order, BARE_BATCH):
            with timings.stage("inference", len(batch)):
                generator.network(batch.visual, batch.audio)
            if report is not None:
                done = int(batch.frame_indices[-1]) + 1
                report(Progress(done, count, time.perf_counter() - start))
        timings.finish(count)
        alone = _stage_seconds(timings, "inference")
        return timings, alone, alone, generator.network.provider, available_cores()


def _stage_seconds(timings: Timings, stage: str) -> float:
    return sum(row.seconds for row in timings.stages if row.stage == stage)


def _inference_alone(avatar: Avatar, speech: Speech, config: RenderConfig) -> float:
    """Seconds that the network of a configuration takes for all frames, with nothing beside it."""
    stream = FrameStream(avatar, speech, config, for_video=True)
    stream.warm_up()
    start = time.perf_counter()
    for _ in stream.predictions():
        pass
    return time.perf_counter() - start
