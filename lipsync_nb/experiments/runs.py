"""What was measured: runs of configurations, their spread over repeats, and their file."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lipsync_nb.errors import BenchmarkError
from lipsync_nb.pipeline.timing import Lane, StageRow
from lipsync_nb.types.rich import RichResult
from lipsync_nb.types.table import Column, Table

from .results import check_range, read_results, record_of, write_results

BARE_NETWORK = "onnxruntime"
_SHORTEST_SECONDS, _MOST_BYTES = 1e-9, 1e15


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

    @property
    def range_text(self) -> str:
        """The lowest and the highest."""
        return f"{self.low:.1f}-{self.high:.1f}"

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


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

    @property
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

    @property
    def head(self) -> str:
        """How much was measured, in a line."""
        repeats = len(self.steady(self.names[0]))
        return f"{self.runs[0].num_frames} frames a run, {repeats} repeats after a first one"

    @property
    def table(self) -> Table:
        """A row for each configuration."""
        columns: list[Column[str]] = [
            Column("configuration", str, is_text=True),
            Column("FPS", lambda name: f"{self.fps(name).median:.2f}"),
            Column("low-high", lambda name: self.fps(name).range_text),
            Column("first", lambda name: f"{self.first(name).fps:.2f}"),
            Column("inference", lambda name: f"{self.inference_fps(name).median:.2f}"),
            Column("warm-up", lambda name: f"{self._warmup_seconds(name):.2f} s"),
            Column("RSS", lambda name: f"{self._rss_bytes(name) / 1e6:.0f} MB"),
        ]
        return Table.of(columns, self.names)

    def _warmup_seconds(self, name: str) -> float:
        return statistics.median(run.warmup_seconds for run in self.steady(name))

    def _rss_bytes(self, name: str) -> int:
        return max(run.rss_bytes for run in self.steady(name))

    @property
    def stage_table(self) -> Table:
        """A row for each stage of each configuration, in its median run."""
        rows = [
            (name, row)
            for name in self.names
            for row in self.stage_rows(name)
            if row.frames and row.stage != "features"
        ]
        return Table.of(
            [
                Column("ms a frame", lambda entry: entry[0], is_text=True),
                Column("stage", lambda entry: entry[1].stage, is_text=True),
                Column("mean", lambda entry: f"{entry[1].ms_per_frame:.2f}"),
                Column("p50", lambda entry: f"{entry[1].p50_ms:.2f}"),
                Column("p95", lambda entry: f"{entry[1].p95_ms:.2f}"),
            ],
            rows,
        )

    def __str__(self) -> str:
        run = self.runs[-1]
        where = ", ".join(f"{key} {value}" for key, value in self.environment.items())
        foot = f"{run.provider}, {run.threads} threads; {where}"
        ratios = "\n".join(_comparisons(self))
        return f"{self.head}\n{self.table}\n\n{self.stage_table}\n\n{ratios}\n\n{foot}"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:9])) + (" and more" if len(numbers) > 9 else "")


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
