"""From the plain way to the whole engine, a step at a time, beside the origin's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.presets import PRESETS
from lipsync_nb.errors import BenchmarkError
from lipsync_nb.types.records import Speech
from lipsync_nb.types.rich import RichResult
from lipsync_nb.types.table import Column, Table

from .benchmarks import RunProgress, benchmark
from .runs import Benchmark, Spread


@dataclass(frozen=True)
class OriginFigures:
    """What the origin measured at one of its stages: FPS, and milliseconds a frame.

    100 frames of 1280x720 saved as JPEG, on an RTX 4090, start-up costs inside.
    """

    fps: float
    frame_ms: float
    inference_ms: float
    composite_ms: float
    save_ms: float


ORIGIN_FIGURES = {
    "baseline": OriginFigures(2.50, 400, 54, 281, 65),
    "cached": OriginFigures(17.34, 58, 42, 4.6, 11),
    "parallel": OriginFigures(41.11, 24, 8.2, 1.7, 5),
}


@dataclass(frozen=True)
class AblationStep:
    """One step of the way.

    Attributes:
        name, text: of the preset, and what it adds to the one before.
        fps: over the repeats.
        over_before, over_first: how many times as fast, repeat by repeat; 1 for the first step.
        tie: whether the difference to the step before is smaller than the spread.
        stages_ms: milliseconds a frame of each stage's own work, in the median run.
        origin: what the origin measured at this step, where it has it.
    """

    name: str
    text: str
    fps: Spread
    over_before: Spread
    over_first: Spread
    tie: bool
    stages_ms: dict[str, float]
    origin: OriginFigures | None

    @property
    def gain_text(self) -> str:
        """How many times as fast as the step before, or that they tie."""
        return "tie" if self.tie else f"{self.over_before.median:.2f}"


@dataclass(frozen=True)
class Ablation(RichResult):
    """The steps from the plain way to the whole engine, measured in one benchmark.

    Attributes:
        benchmark: its runs.
    """

    benchmark: Benchmark

    @property
    def steps(self) -> list[AblationStep]:
        """The steps, in order."""
        names = self.benchmark.names
        pairs = zip(names, (names[0], *names), strict=False)
        return [self._step(name, before) for name, before in pairs]

    def _step(self, name: str, before: str) -> AblationStep:
        result = self.benchmark
        rows = result.stage_rows(name)
        return AblationStep(
            name=name,
            text=next((p.text for p in PRESETS if p.name == name), ""),
            fps=result.fps(name),
            over_before=result.ratio(name, before),
            over_first=result.ratio(name, result.names[0]),
            tie=name != before and result.fps(name).ties_with(result.fps(before)),
            stages_ms={r.stage: r.ms_per_frame for r in rows if r.frames and r.stage != "features"},
            origin=ORIGIN_FIGURES.get(name),
        )

    def save(self, path: str | Path) -> Path:
        """Write the benchmark as JSON, see `Benchmark.save`."""
        return self.benchmark.save(path)

    @classmethod
    def load(cls, path: str | Path) -> Ablation:
        """Read what `save` wrote, see `Benchmark.load`."""
        return cls(Benchmark.load(path))

    @property
    def verdict(self) -> str:
        """The whole way, and the step that gave most, in a sentence."""
        steps = self.steps
        last, gains = steps[-1], [step for step in steps[1:] if not step.tie]
        text = (
            f"{steps[0].fps.median:.1f} FPS became {last.fps.median:.1f}: "
            f"{last.over_first.median:.1f} times as fast."
        )
        if not gains:
            return text
        most = max(gains, key=lambda step: step.over_before.median)
        return f"{text} The largest step was {most.name}, {most.over_before.median:.2f} times."

    def __str__(self) -> str:
        return f"{self.table}\n\n{self.verdict}"

    @property
    def table(self) -> Table:
        """A row for each step."""
        return Table.of(
            [
                Column("step", lambda step: step.name, is_text=True),
                Column("FPS", lambda step: f"{step.fps.median:.2f}"),
                Column("low-high", lambda step: step.fps.range_text),
                Column("over before", lambda step: step.gain_text),
                Column("over first", lambda step: f"{step.over_first.median:.2f}"),
                Column("origin", lambda step: f"{step.origin.fps:.2f}" if step.origin else ""),
                Column("what it adds", lambda step: step.text, is_text=True),
            ],
            self.steps,
        )


def ablation(
    avatar: Avatar,
    speech: Speech,
    *,
    steps: Sequence[str] | None = None,
    repeats: int = 2,
    max_frames: int = 100,
    progress: RunProgress | None = None,
) -> Ablation:
    """Measure the steps from the plain way to the whole engine.

    Args:
        steps: names of presets, the first is what all are compared with. Default: all of them.
        repeats: after a first render that fills the caches.
        max_frames: frames of each render, 0: the whole speech.
        progress: called with a text and a `Progress` as frames are made.

    Raises:
        BenchmarkError: fewer than two steps, or ``repeats`` below 1.
        ConfigError: an unknown preset.

    Example:
        >>> print(ablation(load_avatar("demo"), load_speech("hello.mp3")))
    """
    names = list(dict.fromkeys(steps)) if steps is not None else [entry.name for entry in PRESETS]
    if len(names) < 2:
        raise BenchmarkError(f"found {len(names)} steps, expected two or more.")
    result = benchmark(
        avatar,
        speech,
        names,
        repeats=repeats,
        max_frames=max_frames,
        measure_inference=False,
        progress=progress,
    )
    return Ablation(result)
