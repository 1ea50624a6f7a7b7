"""Named configurations measured side by side: alternating, repeated, warmed up, written down."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.presets import PRESETS, preset
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import BenchmarkError, ConfigError
from lipsync_nb.pipeline.timing import StageRow
from lipsync_nb.types.records import Speech
from lipsync_nb.types.rich import RichResult

from .baselines import ORIGIN_STAGES
from .environment import environment
from .measuring import BARE_NETWORK, Meter, Run, RunProgress, Spread
from .results import read_results, record_of, write_results


@dataclass(frozen=True)
class Benchmark(RichResult):
    """The runs of a benchmark, and where they were made.

    Attributes:
        runs: in the order in which they ran.
        environment: machine, versions and date, as texts.

    Raises:
        BenchmarkError: there are no runs, or not a first one and as many repeats of each.
    """

    runs: tuple[Run, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.runs:
            raise BenchmarkError("runs: found none, expected two or more.")
        expected = list(range(max(2, *map(len, self._runs.values()))))
        for name, runs in self._runs.items():
            found = [run.repeat for run in runs]
            if sorted(found) != expected:
                raise BenchmarkError(
                    f"runs: found repeats {_listed(found)} of {name[:60]!r}, "
                    f"expected {_listed(expected)}."
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The configurations, in the order in which they were asked for."""
        return tuple(self._runs)

    @cached_property
    def _runs(self) -> dict[str, list[Run]]:
        """The runs of each configuration, in order."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            found.setdefault(run.name, []).append(run)
        return found

    def steady(self, name: str) -> list[Run]:
        """The runs of a configuration after its first, in order.

        Raises:
            BenchmarkError: it was not measured.
        """
        found = [run for run in self._runs.get(name, ()) if run.repeat]
        if not found:
            raise BenchmarkError(f"found no runs of {name!r}, expected {', '.join(self.names)}.")
        return found

    def first(self, name: str) -> Run:
        """The first run of a configuration, which filled the caches."""
        return next(run for run in self._runs[name] if not run.repeat)

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
        return {"environment": self.environment, "runs": runs}

    def save(self, path: str | Path) -> Path:
        """Write `to_dict` as JSON; the file appears when it is complete.

        Raises:
            OutputError: it cannot be written.
        """
        return write_results(path, "benchmark", self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Benchmark:
        """Read what `save` wrote.

        Raises:
            NotFoundError: there is no such file.
            BenchmarkError: it is not such a file, or from another version.
        """
        return record_of(cls, read_results(path, "benchmark"), path)

    def __str__(self) -> str:
        return "\n".join([*_head(self), *(_line(self, name) for name in self.names), *_foot(self)])


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:9])) + (" and more" if len(numbers) > 9 else "")


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
    lines += ["", *_comparisons(result)]
    run = result.runs[-1]
    where = ", ".join(f"{key} {value}" for key, value in result.environment.items())
    return [*lines, "", f"{run.provider}, {run.threads} threads; {where}"]


def _comparisons(result: Benchmark) -> list[str]:
    """Ratios within each repeat: over the first configuration, and over the bare network."""
    references = dict.fromkeys([result.names[0], BARE_NETWORK])
    lines = [
        f"{name} over {reference}: {result.ratio(name, reference)}"
        for reference in references
        for name in result.names
        if reference in result.names and name not in references
    ]
    whole = [name for name in result.names if name != BARE_NETWORK]
    return [*lines, *(f"{n} over its network alone: {result.overlap_ratio(n)}" for n in whole)]


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
