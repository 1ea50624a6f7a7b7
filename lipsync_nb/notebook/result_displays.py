"""How measurements show themselves in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lipsync_nb.avatar.session import SessionMemory
from lipsync_nb.experiments.ablations import Ablation
from lipsync_nb.experiments.clips import FirstClips
from lipsync_nb.experiments.golden import FAILS, FactTable, FrameComparison
from lipsync_nb.experiments.latencies import StreamLatency
from lipsync_nb.experiments.memory import MemoryTable
from lipsync_nb.experiments.precision import PrecisionComparison
from lipsync_nb.experiments.profiling import NetworkProfile
from lipsync_nb.experiments.quality import decibel_text, mouth_of
from lipsync_nb.experiments.runs import Benchmark
from lipsync_nb.experiments.sweeps import Sweep, SweepRow
from lipsync_nb.experiments.tuned import Tuned
from lipsync_nb.many.results import BatchResult
from lipsync_nb.types.arrays import ImageArray

from . import charts, quality_display
from .displays import grid_html, html_of, picture_html
from .line_charts import line_chart
from .markup import Markup, element, joined

__all__ = ["html_of", "quality_display"]

_GAIN = 8


@html_of.register
def _(result: Benchmark) -> Markup:
    speeds = {n: (s.median, s.low, s.high) for n in result.names for s in [result.fps(n)]}
    where = ", ".join(f"{key} {value}" for key, value in result.environment.items())
    return charts.page(
        charts.heading(result.head),
        charts.figure_bars(speeds, "FPS"),
        charts.table_html(result.table),
        *charts.stage_work({name: result.stage_rows(name) for name in result.names}),
        charts.dim(where),
    )


@html_of.register
def _(result: SessionMemory) -> Markup:
    heading = charts.heading(f"{result.ram_bytes / 1e6:,.0f} MB held in RAM")
    return charts.page(heading, charts.table_html(result.table))


@html_of.register
def _(result: FirstClips) -> Markup:
    where = ", ".join(f"{key} {value}" for key, value in result.environment.items())
    return charts.page(
        charts.heading(f"From the command to the finished file: {result.head}"),
        _first_clip_bars(result, "wall_seconds"),
        charts.heading("From the command to the first frame"),
        _first_clip_bars(result, "first_frame_seconds"),
        charts.table_html(result.table),
        charts.dim(where),
    )


def _first_clip_bars(result: FirstClips, figure: str) -> Markup:
    spreads = {name: result.spread(name, figure) for name in result.names}
    return charts.figure_bars({n: (s.median, s.low, s.high) for n, s in spreads.items()}, "s")


@html_of.register
def _(result: StreamLatency) -> Markup:
    slowest = (
        f"Sound came in chunks of {result.chunk_ms} ms, at most {result.chunks_late_ms:.0f} ms "
        f"too late; {result.given_fps:.1f} frames a second were given."
    )
    if result.falls_behind:
        slowest += " That is slower than the video: each frame comes later than the one before."
    return charts.page(
        charts.heading(result.head),
        line_chart([result.track], height=130, limit_name="the floor"),
        charts.table_html(result.table),
        charts.dim(slowest),
    )


@html_of.register
def _(result: Sweep) -> Markup:
    how = "first runs counted" if result.warmup == "included" else "first runs apart"
    head = charts.heading(result.verdict)
    repeats = max((len(row.runs) for row in result.rows), default=0)
    note = charts.dim(f"Median of {repeats} repeats, {how}.")
    return charts.page(head, _sweep_chart(result), charts.table_html(result.table), note)


def _sweep_chart(result: Sweep) -> Markup:
    """A heat map over the first two fields, one for each choice of the others; else bars."""
    if len(result.names) < 2:
        found = {row.name: row.fps for row in result.rows if row.fps is not None}
        speeds = {name: (fps.median, fps.low, fps.high) for name, fps in found.items()}
        return charts.figure_bars(speeds, "FPS")
    down, across = result.names[:2]
    maps: dict[str, list[SweepRow]] = {}
    for row in result.rows:
        rest = ", ".join(f"{k}={v}" for k, v in row.values.items() if k not in (down, across))
        maps.setdefault(rest, []).append(row)
    top = result.best.fps.median if result.measured and result.best.fps else 0.0
    parts = []
    for rest, rows in maps.items():
        cells = {
            (str(row.values[down]), str(row.values[across])): row.fps.median if row.fps else None
            for row in rows
        }
        caption = element("p", rest) if rest else ""
        parts.append(joined([caption, charts.heat_map(cells, down, across, top)]))
    return joined(parts)


@html_of.register
def _(result: Ablation) -> Markup:
    steps = result.steps
    speeds = {s.name: (s.fps.median, s.fps.low, s.fps.high) for s in steps}
    stages = {s.name: result.benchmark.stage_rows(s.name) for s in steps}
    return charts.page(
        charts.heading(result.verdict),
        charts.figure_bars(speeds, "FPS"),
        charts.table_html(result.table),
        charts.dim("Origin: FPS that it measured on an RTX 4090 with start-up costs inside."),
        *charts.stage_work(stages),
    )


@html_of.register
def _(result: PrecisionComparison) -> Markup:
    return charts.page(
        charts.heading(result.verdict),
        charts.table_html(result.table),
        charts.dim(
            "PSNR, SSIM and the largest difference (of 255): the mouth region against "
            f"{result.rows[0].precision}. r: the opening shown against the drawn truth."
            + "".join(f" {note}" for note in result.notes)
        ),
        *_pictures(result),
    )


def _pictures(result: PrecisionComparison) -> Iterable[Markup]:
    """Mouths of each precision under each other, with the difference to the first."""
    reference = result.rows[0].pictures
    if reference is None:
        return
    for row in result.rows:
        if row.pictures is None:
            continue
        first = row is result.rows[0]
        kinds = [row.pictures] if first else [row.pictures, _gained(row.pictures, reference)]
        figures = [
            picture_html(mouth, f"frame {frame}{note}")
            for pictures, note in zip(kinds, ("", f", difference x{_GAIN}"), strict=False)
            for frame, mouth in zip(result.shown_frames, mouth_of(pictures), strict=True)
        ]
        yield charts.heading(row.precision)
        yield grid_html(figures, " ".join(["1fr"] * 2 * len(result.shown_frames)))


def _gained(pictures: ImageArray, reference: ImageArray) -> ImageArray:
    difference = np.abs(pictures.astype(np.int16) - reference) * _GAIN
    return np.asarray(np.clip(difference, 0, 255), np.uint8)


@html_of.register
def _(result: Tuned) -> Markup:
    figures = {name: (s.median, s.low, s.high) for name, s in result.figures.items()}
    return charts.page(
        charts.heading(result.head),
        *map(charts.dim, result.notes),
        charts.figure_bars(figures, result.unit),
        charts.table_html(result.table),
    )


@html_of.register
def _(result: NetworkProfile) -> Markup:
    head = charts.heading(result.head)
    kinds = {row.kind: row.ms_per_frame for row in result.kinds[:10]}
    return charts.page(
        head,
        charts.figure_bars({kind: (ms, ms, ms) for kind, ms in kinds.items()}, "ms"),
        charts.table_html(result.kind_table),
        charts.table_html(result.node_table),
    )


@html_of.register
def _(result: BatchResult) -> Markup:
    head = charts.heading(result.head)
    notes = (charts.dim(note) for note in (*result.notes, f"Manifest: {result.manifest}"))
    return charts.page(head, *notes, charts.table_html(result.table))


@html_of.register
def _(result: MemoryTable) -> Markup:
    return charts.page(charts.heading("Templates in RAM"), charts.table_html(result.table))


@html_of.register
def _(result: FrameComparison) -> Markup:
    reference, name = result.names
    shown = result.shown
    count = len(result.differences)
    few = f", the {len(shown)} that differ most" if len(shown) < count else ""
    head = charts.heading(f"{name} against {reference}: {count} pictures{few}")
    together = charts.dim(
        f"All together: PSNR {decibel_text(result.psnr_db)} dB, "
        f"largest difference {result.largest} of 255."
    )
    table = charts.table_html(result.table, _bold)
    return charts.page(head, _problems(result.problems), table, together, _pairs(result))


def _pairs(result: FrameComparison) -> Markup:
    """References, pictures and differences under each other, a column each frame."""
    frames = [entry.frame for entry in result.shown]
    one = [result.references[frame] for frame in frames]
    other = [result.pictures[frame] for frame in frames]
    differences = [_gained(a, b) for a, b in zip(other, one, strict=True)]
    named = zip((*result.names, f"difference x{_GAIN}"), (one, other, differences), strict=True)
    figures = [
        picture_html(picture, f"{name}, frame {frame}")
        for name, pictures in named
        for frame, picture in zip(frames, pictures, strict=True)
    ]
    return grid_html(figures, " ".join(["1fr"] * len(frames)))


def _bold(column: str, text: str) -> object:
    return element("b", text) if text == FAILS and not column else text


def _problems(problems: Sequence[str]) -> Markup:
    if not problems:
        return element("p", "All within the limits.")
    return joined(element("p", element("b", problem)) for problem in problems)


@html_of.register
def _(result: FactTable) -> Markup:
    return charts.page(_problems(result.problems), charts.table_html(result.table, _bold))
