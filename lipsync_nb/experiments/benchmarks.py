"""Configurations measured side by side: alternating, repeated, warmed up, written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.session import Session
from lipsync_nb.config.presets import PRESETS, preset
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import BenchmarkError, ConfigError
from lipsync_nb.pipeline.render import FrameStream, render
from lipsync_nb.pipeline.timing import Timings
from lipsync_nb.system.limits import available_cores
from lipsync_nb.system.outputs import scratch_folder
from lipsync_nb.types.records import Progress, ProgressCallback, Speech

from .baselines import ORIGIN_STAGES, render_origin, run_bare_network
from .environment import PeakMemory, environment
from .runs import BARE_NETWORK, Benchmark, Run

_Measured = tuple[Timings, float, float, str, int]
RunProgress = Callable[[str, Progress], None]


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
        threads = result.plan.cores or available_cores()
        return timings, timings.steady_seconds, alone, result.provider, threads

    def _bare(self, avatar: Avatar, report: ProgressCallback | None) -> _Measured:
        result = run_bare_network(avatar, self.speech, self.max_frames, report)
        alone = _stage_seconds(result.timings, "inference")
        return result.timings, alone, alone, result.provider, available_cores()


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


def benchmark(
    avatar: Avatar,
    speech: Speech,
    configs: Sequence[str] | Mapping[str, RenderConfig] | None = None,
    *,
    repeats: int = 3,
    max_frames: int = 300,
    measure_inference: bool = True,
    progress: RunProgress | None = None,
) -> Benchmark:
    """Measure configurations on one avatar and speech, turn by turn.

    Every configuration renders once to fill the caches; then each repeat renders all of them
    one after the other, so that a machine that slows down slows all. Outputs go to a temporary
    folder.

    Args:
        configs: names of presets, of the origin's programs (``origin-baseline``,
            ``origin-cached``, ``origin-parallel``) or ``onnxruntime`` (the network's file alone,
            batches of 4, nothing composited or written); or configurations by name; a name
            given twice counts once. Default: the origin's programs, the bare network, and the
            presets.
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
        for name in dict.fromkeys(configs)
    ]
    bench = Meter(speech, max_frames, measure_inference, progress)
    # Each has a session of its own, so that none finds or drives out what another holds.
    avatars = {name: replace(avatar, session=Session()) for name, _ in contenders}
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
