"""Named configurations measured side by side: alternating, repeated, warmed up, written down."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .audio import speech_features
from .avatar import Avatar
from .batching import iter_batches, template_order
from .errors import BenchmarkError, ConfigError, NetworkError
from .inference import Generator, audio_encoder
from .machine import PeakMemory, environment
from .origin import ORIGIN_STAGES, render_origin
from .pipeline import FrameStream, render
from .presets import PRESETS, preset
from .records import Progress, ProgressCallback, RenderConfig, Speech
from .rich import Rich
from .threads import available_cores, plan_threads
from .timing import StageRow, Timings

FORMAT_VERSION = 1
BARE_NETWORK, BARE_BATCH = "onnxruntime", 4
_Measured = tuple[Timings, float, float, str, int]


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

    @property
    def fps(self) -> float:
        return self.num_frames / self.seconds

    @property
    def inference_fps(self) -> float:
        return self.num_frames / self.inference_seconds


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
class Benchmark(Rich):
    """The runs of a benchmark, and where they were made.

    Attributes:
        runs: in the order in which they ran.
        environment: machine, versions and date, as texts.
    """

    runs: tuple[Run, ...]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The configurations, in the order in which they were asked for."""
        return tuple(dict.fromkeys(run.name for run in self.runs))

    def steady(self, name: str) -> list[Run]:
        """The runs of a configuration after its first, in order.

        Raises:
            BenchmarkError: it was not measured.
        """
        found = [run for run in self.runs if run.name == name and run.repeat]
        if not found:
            raise BenchmarkError(f"found no runs of {name!r}, expected {', '.join(self.names)}.")
        return found

    def first(self, name: str) -> Run:
        """The first run of a configuration, which filled the caches."""
        return next(run for run in self.runs if run.name == name)

    def fps(self, name: str) -> Spread:
        """Frames a second of the steady work."""
        return Spread.of([run.fps for run in self.steady(name)])

    def inference_fps(self, name: str) -> Spread:
        """Frames a second of the network alone."""
        return Spread.of([run.inference_fps for run in self.steady(name)])

    def ratio(self, name: str, over: str) -> Spread:
        """How many times as fast one configuration was as another, repeat by repeat."""
        pairs = zip(self.steady(name), self.steady(over), strict=True)
        return Spread.of([one.fps / other.fps for one, other in pairs])

    def overlap_ratio(self, name: str) -> Spread:
        """FPS of the whole over FPS of its slowest stage alone, the network, repeat by repeat."""
        return Spread.of([run.fps / run.inference_fps for run in self.steady(name)])

    def stage_rows(self, name: str) -> list[StageRow]:
        """The stages of the median run of a configuration."""
        runs = sorted(self.steady(name), key=lambda run: run.fps)
        return list(runs[len(runs) // 2].stages)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain numbers and texts."""
        runs = [asdict(run) for run in self.runs]
        return {"version": FORMAT_VERSION, "environment": self.environment, "runs": runs}

    def save(self, path: str | Path) -> Path:
        """Write `to_dict` as JSON; the file appears when it is complete."""
        path = Path(path)
        partial = path.with_name(f".partial-{path.name}")
        partial.write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")
        partial.replace(path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Benchmark:
        """Read what `save` wrote.

        Raises:
            BenchmarkError: it is not such a file, or from another version.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            found = data["version"]
            if found != FORMAT_VERSION:
                raise BenchmarkError(f"{path}: is of version {found}, expected {FORMAT_VERSION}.")
            runs = tuple(_run_of(entry) for entry in data["runs"])
            return cls(runs, data["environment"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, BenchmarkError):
                raise
            raise BenchmarkError(f"{path}: not a benchmark's file ({error}).") from error

    def __str__(self) -> str:
        return "\n".join([*_head(self), *(_line(self, name) for name in self.names), *_foot(self)])


def _run_of(entry: dict[str, Any]) -> Run:
    stages = tuple(StageRow(**row) for row in entry.pop("stages"))
    return Run(**entry, stages=stages)


def _head(result: Benchmark) -> list[str]:
    repeats = max(run.repeat for run in result.runs)
    what = f"{result.runs[0].num_frames} frames, {repeats} repeats after a first run"
    columns = ("FPS", "low-high", "first", "inference", "warm-up", "RSS")
    names = f"{'configuration':<17}" + "".join(f"{column:>12}" for column in columns)
    return [what, names]


def _line(result: Benchmark, name: str) -> str:
    fps, first = result.fps(name), result.first(name)
    runs = result.steady(name)
    figures = (
        f"{fps.median:.2f}",
        f"{fps.low:.1f}-{fps.high:.1f}",
        f"{first.fps:.2f}",
        f"{result.inference_fps(name).median:.2f}",
        f"{statistics.median(run.warmup_seconds for run in runs):.2f} s",
        f"{max(run.rss_bytes for run in runs) / 1e6:.0f} MB",
    )
    return f"{name:<17}" + "".join(f"{figure:>12}" for figure in figures)


def _foot(result: Benchmark) -> list[str]:
    lines = [
        "",
        f"{'ms a frame':<17}" + "".join(f"{c:>12}" for c in ("stage", "mean", "p50", "p95")),
    ]
    for name in result.names:
        for row in result.stage_rows(name):
            if row.frames and row.stage != "features":
                figures = f"{row.ms_per_frame:>12.2f}{row.p50_ms:>12.2f}{row.p95_ms:>12.2f}"
                lines.append(f"{name:<17}{row.stage:>12}{figures}")
    run = result.runs[-1]
    where = ", ".join(f"{key} {value}" for key, value in result.environment.items())
    return [*lines, "", f"{run.provider}, {run.threads} threads; {where}"]


def benchmark(
    avatar: Avatar,
    speech: Speech,
    configs: Sequence[str] | Mapping[str, RenderConfig] | None = None,
    *,
    repeats: int = 3,
    max_frames: int = 300,
    measure_inference: bool = True,
    progress: Callable[[str, Progress], None] | None = None,
) -> Benchmark:
    """Measure configurations on one avatar and speech, turn by turn.

    Every configuration renders once to fill the caches; then each repeat renders all of them
    one after the other, so that a machine that slows down slows all. Outputs go to a temporary
    folder.

    Args:
        configs: names of presets, of the origin's programs (``origin-baseline``,
            ``origin-cached``, ``origin-parallel``) or ``onnxruntime`` (the network's file alone,
            batches of 4, nothing composited or written); or configurations by name. Default:
            the origin's programs, the bare network, and the presets.
        repeats: after the first render.
        max_frames: frames of each render, 0: the whole speech.
        measure_inference: also run the network of each configuration alone.
        progress: called with a text and a `Progress` as frames are made.

    Raises:
        BenchmarkError: no configuration, or ``repeats`` below 1.
        ConfigError: an unknown name.

    Example:
        >>> result = benchmark(avatar, speech, ["origin-parallel", "engine"])
        >>> print(result.ratio("engine", over="origin-parallel"))
    """
    if configs is None:
        configs = [*ORIGIN_STAGES, BARE_NETWORK, *(p.name for p in PRESETS)]
    if not len(configs) or repeats < 1:
        raise BenchmarkError(
            f"found {len(configs)} configurations and {repeats} repeats, expected 1 or more."
        )
    contenders = [
        _contender(name, configs[name] if isinstance(configs, Mapping) else None)
        for name in configs
    ]
    bench = _Bench(speech, max_frames, measure_inference, progress)
    # Each has an avatar of its own, so that none finds or drives out the caches of another.
    avatars = {name: replace(avatar) for name, _ in contenders}
    runs = [
        bench.run(avatars[name], name, config, repeat)
        for repeat in range(repeats + 1)
        for name, config in contenders
    ]
    return Benchmark(tuple(runs), environment())


def _contender(name: str, config: RenderConfig | None) -> tuple[str, RenderConfig | None]:
    if config is not None or name in ORIGIN_STAGES or name == BARE_NETWORK:
        return name, config
    try:
        return name, preset(name)
    except ConfigError as error:
        known = [*ORIGIN_STAGES, BARE_NETWORK, *(p.name for p in PRESETS)]
        text = f"configuration: found {name!r}, expected one of {', '.join(known)}."
        raise ConfigError(text) from error


@dataclass(frozen=True)
class _Bench:
    speech: Speech
    max_frames: int
    measure_inference: bool
    progress: Callable[[str, Progress], None] | None

    def run(self, avatar: Avatar, name: str, config: RenderConfig | None, repeat: int) -> Run:
        """Render once."""
        with tempfile.TemporaryDirectory(prefix="lipsync_nb-") as folder, PeakMemory() as peak:
            if config is not None:
                measured = self._render(avatar, config, Path(folder), self._report(name, repeat))
            elif name in ORIGIN_STAGES:
                measured = self._origin(avatar, name, Path(folder), self._report(name, repeat))
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
        result = render(avatar, self.speech, folder / "video.mp4", config, report)
        timings = result.timings
        alone = _stage_seconds(timings, "inference")
        if self.measure_inference and config.overlap:
            alone = _inference_alone(avatar, self.speech, config)
        threads = plan_threads(config).network or available_cores()
        return timings, timings.steady_seconds, alone, result.provider, threads

    def _bare(self, avatar: Avatar, report: ProgressCallback | None) -> _Measured:
        """Only the network's own runs count, on batches of 4 that are made between them."""
        timings = Timings()
        if avatar.generator is None:
            raise NetworkError(f"{avatar.path}: found no generator network.")
        with timings.stage("open"):
            template = avatar.open_template("memory", "bgr")
            generator = Generator(avatar.generator, avatar.spec, num_threads=available_cores())
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
    return sum(span.seconds for span in timings.spans if span.stage == stage)


def _inference_alone(avatar: Avatar, speech: Speech, config: RenderConfig) -> float:
    """Seconds that the network of a configuration takes for all frames, with nothing beside it."""
    stream = FrameStream(avatar, speech, config, for_video=True)
    stream.warm_up()
    start = time.perf_counter()
    for _ in stream.predictions():
        pass
    return time.perf_counter() - start
