"""Every combination of chosen fields, measured turn by turn, each run kept on disk at once."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.session import Session
from lipsync_nb.config.render_config import RenderConfig, kept_by
from lipsync_nb.errors import BenchmarkError, ConfigError, LipsyncError
from lipsync_nb.system.outputs import check_output_file
from lipsync_nb.types.records import Progress, Speech
from lipsync_nb.types.rich import RichResult
from lipsync_nb.types.table import Column, Table, csv_text

from .benchmarks import Meter, RunProgress
from .environment import environment
from .results import read_results, record_of, write_results
from .runs import Run, Spread
from .swept_values import check_swept

KIND = "sweep"
Warmup = Literal["apart", "included"]


@dataclass(frozen=True)
class SweepRow:
    """One configuration of a sweep.

    Attributes:
        values: of the fields that were swept.
        config: the whole configuration, ready for `render`.
        runs: its measured renders.
        reason: why it could not be measured, else empty.

    Raises:
        BenchmarkError: there are no values, or one is of no field or another one in ``config``.
        ConfigError: a value is out of range.
    """

    values: dict[str, bool | int | str]
    config: RenderConfig
    runs: tuple[Run, ...] = ()
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.values:
            raise BenchmarkError("values: found none, expected one or more.")
        known = asdict(self.config)
        for name, value in self.values.items():
            if name not in known:
                text = f"values: found {name[:60]!r}, expected a field of the configuration."
                raise BenchmarkError(text)
            option: dict[str, Any] = {name: value}
            RenderConfig(**option)
            # A row that cannot be measured has no configuration of its own.
            if not self.reason and value != known[name]:
                raise BenchmarkError(
                    f"values: found {name} {value!r}, expected {known[name]!r} as in config."
                )

    @property
    def name(self) -> str:
        """The values as text."""
        return ", ".join(f"{name}={value}" for name, value in self.values.items())

    @property
    def fps(self) -> Spread | None:
        """Frames a second over the runs; None where there are none."""
        return Spread.of([run.fps for run in self.runs]) if self.runs else None

    def ms_per_frame(self, stage: str) -> float:
        """Milliseconds a frame of a stage's own work, mean over the runs."""
        found = [s.ms_per_frame for run in self.runs for s in run.stages if s.stage == stage]
        return sum(found) / len(found) if found else 0.0


@dataclass(frozen=True)
class Sweep(RichResult):
    """The configurations of a sweep, measured.

    Attributes:
        rows: in the order of the grid.
        warmup: whether first runs were kept apart or counted.
        environment: machine, versions and date, as texts.

    Raises:
        BenchmarkError: there are no rows, or rows of other fields than the first.
    """

    rows: tuple[SweepRow, ...]
    warmup: Warmup = "apart"
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.rows:
            raise BenchmarkError("rows: found none, expected one or more.")
        for number, row in enumerate(self.rows):
            if tuple(row.values) != self.names:
                raise BenchmarkError(
                    f"rows[{number}].values: found {', '.join(row.values)}, "
                    f"expected {', '.join(self.names)} as in the first."
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that were swept."""
        return tuple(self.rows[0].values)

    @property
    def measured(self) -> list[SweepRow]:
        """The rows that were measured, the fastest first."""
        found = [(row.fps.median, row) for row in self.rows if row.fps is not None]
        return [row for _, row in sorted(found, key=lambda entry: -entry[0])]

    @property
    def best(self) -> SweepRow:
        """The fastest row; ``best.config`` is ready for `render`.

        Raises:
            BenchmarkError: none could be measured.
        """
        if not self.measured:
            reasons = sorted({row.reason for row in self.rows})
            raise BenchmarkError(f"found no configuration that runs: {' '.join(reasons)}")
        return self.measured[0]

    @property
    def ties(self) -> list[SweepRow]:
        """Rows whose difference to the best is smaller than the spread."""
        best = Spread.of([run.fps for run in self.best.runs])
        others = [row for row in self.measured if row is not self.best]
        return [row for row in others if row.fps is not None and best.ties_with(row.fps)]

    @property
    def choice(self) -> SweepRow:
        """The row to take: the best, or the smallest batch of those that tie with it.

        It takes less memory, and its first frame is there sooner; among equal batches it is the one
        with the fewest workers.

        Raises:
            BenchmarkError: none could be measured.
        """

        def size(row: SweepRow) -> tuple[float, float]:
            workers = row.config.n_jobs
            return row.config.batch_size, workers if workers > 0 else float("inf")

        return min([self.best, *self.ties], key=size)

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict a configuration: values, FPS, ms a frame of each stage, the reason."""
        stages = ("batch", "inference", "composite", "encode")
        rows = []
        for row in self.rows:
            fps = row.fps
            rows.append(
                {
                    **row.values,
                    "fps": fps.median if fps else None,
                    "fps_low": fps.low if fps else None,
                    "fps_high": fps.high if fps else None,
                    "repeats": len(row.runs),
                    **{f"{s}_ms": row.ms_per_frame(s) if fps else None for s in stages},
                    "rss_mb": max((run.rss_bytes / 1e6 for run in row.runs), default=None),
                    "reason": row.reason,
                }
            )
        return rows

    def to_csv(self) -> str:
        """`to_rows` as CSV text with a head line."""
        return csv_text(self.to_rows())

    def to_dataframe(self) -> Any:
        """`to_rows` as a pandas DataFrame.

        Raises:
            BenchmarkError: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            text = "pandas is not installed; to_rows() and to_csv() do without it."
            raise BenchmarkError(text) from error
        return pandas.DataFrame(self.to_rows())

    def save(self, path: str | Path) -> Path:
        """Write all of it as JSON; the file appears when it is complete.

        Raises:
            OutputError: it cannot be written.
        """
        return _save(path, self, {})

    @classmethod
    def load(cls, path: str | Path) -> Sweep:
        """Read what `save`, or `sweep` itself, wrote.

        Raises:
            NotFoundError: there is no such file.
            BenchmarkError: it is not such a file, or from another version.
        """
        return _read(path)[0]

    def __str__(self) -> str:
        return f"{self.table}\n\n{self.verdict}"

    @property
    def table(self) -> Table:
        """A row for each configuration; what could not be measured has its reason."""
        marks = {row.name: "best" for row in self.measured[:1]}
        marks |= {row.name: "tie" for row in self.ties} if marks else {}

        def value(name: str) -> Column[SweepRow]:
            return Column(name, lambda row: row.values[name], is_text=True)

        def stage(name: str) -> Column[SweepRow]:
            return Column(
                f"{name} ms", lambda row: f"{row.ms_per_frame(name):.2f}" if row.fps else ""
            )

        return Table.of(
            [
                *map(value, self.names),
                Column("FPS", lambda row: f"{row.fps.median:.2f}" if row.fps else ""),
                Column("low-high", lambda row: row.fps.range_text if row.fps else ""),
                *map(stage, ("inference", "composite", "encode")),
                Column("", lambda row: row.reason or marks.get(row.name, ""), is_text=True),
            ],
            self.rows,
        )

    @property
    def verdict(self) -> str:
        """The best configuration, and what ties with it, in a sentence."""
        if not self.measured:
            return "No configuration could be measured."
        fps = Spread.of([run.fps for run in self.best.runs])
        text = f"Best: {self.best.name} with {fps.median:.1f} FPS"
        ties = [row.name for row in self.ties]
        if not ties:
            return f"{text}."
        taken = "" if self.choice is self.best else f" The smallest of these is {self.choice.name}."
        return f"{text}; a tie with {'; '.join(ties)}.{taken}"


def _save(path: str | Path, result: Sweep, identity: dict[str, Any]) -> Path:
    rows = [asdict(row) for row in result.rows]
    data = {"warmup": result.warmup, "environment": result.environment, "rows": rows}
    return write_results(path, KIND, {**identity, **data})


def _read(path: str | Path) -> tuple[Sweep, Any]:
    """A sweep from its file, and the digest of what its runs have in common."""
    data = read_results(path, KIND)
    identity = data.pop("identity", None)
    return record_of(Sweep, data, path), identity


def sweep(
    avatar: Avatar,
    speech: Speech,
    *,
    base: RenderConfig | None = None,
    warmup: Warmup = "apart",
    repeats: int = 2,
    max_frames: int = 100,
    path: str | Path | None = None,
    progress: RunProgress | None = None,
    **values: Sequence[Any],
) -> Sweep:
    """Measure every combination of some fields' values.

    Each repeat renders all configurations one after the other, so that a machine that slows
    down slows all. A configuration that fails becomes a row with its reason.

    Args:
        base: the other fields. Default: `RenderConfig`.
        warmup: ``apart`` measures steady work: caches are filled and every network has run
            before. ``included`` starts each render cold and counts its first runs, and lets a
            last batch have a shape of its own, as the origin's measurements did.
        repeats: measured renders of each configuration.
        max_frames: frames of each render, 0: the whole speech.
        path: a JSON file that every run is added to. A sweep that finds runs there goes on after
            them, so that an interrupted one loses nothing.
        progress: called with a text and a `Progress` over all frames of the sweep.
        **values: lists of values by field of `RenderConfig`.

    Raises:
        ConfigError: an unknown field, or a value out of range.
        BenchmarkError: nothing to measure, or ``path`` is not a file of this sweep.
        OutputError: ``path`` cannot be written, told before the work.

    Example:
        >>> result = sweep(avatar, speech, batch_size=[1, 4, 8], n_jobs=[1, 2])
        >>> render(avatar, speech, "best.mp4", result.choice.config)
    """
    base = base or RenderConfig()
    check_swept(values, warmup, repeats)
    grid = _grid(base, values)
    count = len(grid)
    work = _Work(avatar, speech, warmup, repeats, max_frames, progress)
    identity = {"identity": _identity(avatar, speech, base, list(values), warmup, max_frames)}
    if path is not None and os.path.exists(check_output_file(path)):
        grid = _resumed(grid, Path(path), identity)
    return work.run(grid, count, path, identity)


def _grid(base: RenderConfig, values: dict[str, Sequence[Any]]) -> list[SweepRow]:
    """A row for each combination, in the order of the lists; a value given twice counts once."""
    rows = []
    for combination in itertools.product(*(dict.fromkeys(v) for v in values.values())):
        chosen = dict(zip(values, combination, strict=True))
        try:
            rows.append(SweepRow(chosen, replace(base, **chosen)))
        except ConfigError as error:
            rows.append(SweepRow(chosen, base, reason=str(error)))
    return rows


def _identity(
    avatar: Avatar,
    speech: Speech,
    base: RenderConfig,
    names: Sequence[str],
    warmup: str,
    max_frames: int,
) -> str:
    """Digest of everything that the runs of a sweep have in common."""
    digest = hashlib.sha256()
    for array in (speech.samples, speech.features):
        digest.update(b"-" if array is None else array.tobytes())
    digest.update(b"-" if avatar.generator is None else avatar.generator.read_bytes())
    machine = {key: text for key, text in environment().items() if key != "date"}
    rest = {k: v for k, v in asdict(base).items() if k not in names}
    digest.update(repr((avatar.fingerprint, rest, list(names), warmup, max_frames)).encode())
    digest.update(repr(machine).encode())
    return digest.hexdigest()[:24]


def _resumed(grid: list[SweepRow], path: Path, identity: dict[str, Any]) -> list[SweepRow]:
    """The grid with the runs that are on disk, and behind it what else is there."""
    found, digest = _read(path)
    if digest != identity["identity"]:
        raise BenchmarkError(
            f"{path}: found a sweep of another avatar, speech, machine or of other options; "
            "expected this one's, or no such file."
        )
    stored = {row.name: row for row in found.rows}
    # What failed is tried again: the reason may be gone.
    rows = [replace(row, runs=stored.pop(row.name, row).runs) for row in grid]
    return [*rows, *stored.values()]


@dataclass
class _Work:
    avatar: Avatar
    speech: Speech
    warmup: Warmup
    repeats: int
    max_frames: int
    progress: RunProgress | None
    _avatars: dict[tuple[object, ...], Avatar] = field(default_factory=dict)
    _done: int = 0

    def run(
        self,
        rows: list[SweepRow],
        num_wanted: int,
        path: str | Path | None,
        identity: dict[str, Any],
    ) -> Sweep:
        """Measure what is missing, repeat by repeat; each run is written down at once.

        Args:
            num_wanted: the first so many rows are asked for; the others were measured before.
        """
        start, where = time.perf_counter(), environment()
        missing = [
            (repeat, number)
            for repeat in range(1, self.repeats + 1)
            for number, row in enumerate(rows[:num_wanted])
            if not row.reason and len(row.runs) < repeat
        ]
        for repeat, number in missing:
            if not rows[number].reason:
                report = self._report(rows[number].name, len(missing), start)
                rows[number] = self._measured(rows[number], repeat, report)
            self._done += 1
            if path is not None:
                _save(path, Sweep(tuple(rows), self.warmup, where), identity)
        return Sweep(tuple(rows), self.warmup, where)

    def _measured(self, row: SweepRow, repeat: int, report: RunProgress | None) -> SweepRow:
        try:
            run = self._run(row, repeat, report)
        except LipsyncError as error:
            return replace(row, reason=str(error))
        except Exception as error:  # a failed configuration must not end the sweep
            return replace(row, reason=f"{type(error).__name__}: {error}")
        return replace(row, runs=(*row.runs, run))

    def _run(self, row: SweepRow, repeat: int, report: RunProgress | None) -> Run:
        cold = self.warmup == "included"
        meter = Meter(self.speech, self.max_frames, False, report, again=not cold)
        if cold:
            # What a run before it left in memory or wrote would make the first one alone cold.
            cold_avatar = replace(self.avatar, session=Session())
            config = replace(
                row.config, warmup="included", pad_last_batch=False, feature_files=False
            )
            return meter.run(cold_avatar, row.name, config, repeat)
        key = kept_by(row.config)
        if key not in self._avatars:
            self._avatars[key] = replace(self.avatar, session=Session())
            Meter(self.speech, self.max_frames, False, None).run(
                self._avatars[key], row.name, row.config, 0
            )
        return meter.run(self._avatars[key], row.name, row.config, repeat)

    def _report(self, name: str, runs: int, start: float) -> RunProgress | None:
        progress, done = self.progress, self._done
        if progress is None:
            return None

        def report(_: str, run: Progress) -> None:
            frames, elapsed = done * run.total + run.done, time.perf_counter() - start
            progress(name, Progress(frames, runs * run.total, elapsed, run.frame))

        return report
