"""How measurements show themselves in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lipsync_nb.experiments.ablations import Ablation, AblationStep
from lipsync_nb.experiments.golden import FactTable, FrameComparison
from lipsync_nb.experiments.memory import MemoryTable
from lipsync_nb.experiments.precision import PrecisionComparison, PrecisionRow
from lipsync_nb.experiments.profiling import NetworkProfile, OperatorRow
from lipsync_nb.experiments.quality import IDENTICAL_DB, mouth_of
from lipsync_nb.experiments.runs import Benchmark
from lipsync_nb.experiments.sweeps import Sweep, SweepRow
from lipsync_nb.experiments.tuning import Tuned
from lipsync_nb.types.arrays import ImageArray

from . import charts
from .displays import grid_html, html_of, picture_html
from .markup import Markup, element, joined

__all__ = ["html_of"]

_GAIN = 8


@html_of.register
def _(result: Benchmark) -> Markup:
    speeds = {n: (s.median, s.low, s.high) for n in result.names for s in [result.fps(n)]}
    rows = [
        [
            name,
            f"{result.fps(name).median:.2f}",
            f"{result.fps(name).low:.1f}-{result.fps(name).high:.1f}",
            f"{result.first(name).fps:.2f}",
            f"{result.inference_fps(name).median:.2f}",
            f"{np.median([run.warmup_seconds for run in result.steady(name)]):.2f} s",
            f"{max(run.rss_bytes for run in result.steady(name)) / 1e6:.0f} MB",
        ]
        for name in result.names
    ]
    columns = ["configuration", "FPS", "low-high", "first", "inference", "warm-up", "RSS"]
    where = ", ".join(f"{key} {value}" for key, value in result.environment.items())
    return charts.page(
        charts.heading(
            f"{result.runs[0].num_frames} frames a run, median of "
            f"{len(result.steady(result.names[0]))} repeats"
        ),
        charts.figure_bars(speeds, "FPS"),
        charts.table(columns, rows),
        charts.heading("Work per frame, by stage"),
        charts.stage_bars({name: result.stage_rows(name) for name in result.names}),
        charts.dim(where),
    )


@html_of.register
def _(result: Sweep) -> Markup:
    how = "first runs counted" if result.warmup == "included" else "first runs apart"
    head = charts.heading(result.verdict)
    repeats = max((len(row.runs) for row in result.rows), default=0)
    rows = [_sweep_cells(result, row) for row in result.rows]
    columns = [*result.names, "FPS", "low-high", "network ms", "composite ms", "encode ms", ""]
    note = charts.dim(f"Median of {repeats} repeats, {how}.")
    return charts.page(head, _sweep_chart(result), charts.table(columns, rows), note)


def _sweep_cells(result: Sweep, row: SweepRow) -> list[str]:
    values = [str(value) for value in row.values.values()]
    fps = row.fps
    if fps is None:
        return [*values, "", "", "", "", "", row.reason]
    stages = [f"{row.ms_per_frame(stage):.2f}" for stage in ("inference", "composite", "encode")]
    mark = "best" if row is result.best else "tie" if row in result.ties else ""
    return [*values, f"{fps.median:.2f}", f"{fps.low:.1f}-{fps.high:.1f}", *stages, mark]


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
    columns = ["step", "FPS", "over the one before", "over the first", "origin", "what it adds"]
    return charts.page(
        charts.heading(result.verdict),
        charts.figure_bars(speeds, "FPS"),
        charts.table(columns, [_ablation_cells(step) for step in steps]),
        charts.heading("Work per frame, by stage"),
        charts.stage_bars(stages),
        charts.dim(
            "Origin: FPS that the origin measured on an RTX 4090 with start-up costs inside. "
            "Overlapped stages work at the same time: their bar is longer than a frame takes."
        ),
    )


def _ablation_cells(step: AblationStep) -> list[str]:
    gain = "tie" if step.tie else f"{step.over_before.median:.2f}"
    origin = f"{step.origin.fps:.2f}" if step.origin else ""
    figures = [f"{step.fps.median:.2f}", gain, f"{step.over_first.median:.2f}", origin]
    return [step.name, *figures, step.text]


@html_of.register
def _(result: PrecisionComparison) -> Markup:
    columns = ["precision", "MB", "FPS", "network ms", "PSNR dB", "SSIM", "largest", "r", ""]
    rows = [_precision_cells(result, row) for row in result.rows]
    return charts.page(
        charts.heading(result.verdict),
        charts.table(columns, rows),
        charts.dim(
            "PSNR, SSIM and the largest difference (of 255): the mouth region against "
            f"{result.rows[0].precision}. r: the opening shown against the drawn truth."
            + "".join(f" {note}" for note in result.notes)
        ),
        *_pictures(result),
    )


def _precision_cells(result: PrecisionComparison, row: PrecisionRow) -> list[str]:
    like, fps = row.likeness, row.fps
    if like is None or fps is None:
        return [row.precision, *[""] * 7, row.reason]
    return [
        row.precision,
        f"{row.size_bytes / 1e6:.1f}",
        f"{fps.median:.2f}",
        f"{row.inference_ms:.2f}",
        f"{like.psnr_db:.1f}",
        like.ssim_text,
        str(like.largest),
        "" if row.r is None else f"{row.r:.3f}",
        "best" if row is result.best else "",
    ]


def _pictures(result: PrecisionComparison) -> Iterable[Markup]:
    """Mouths of each arithmetic under each other, with the difference to the first."""
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
        yield grid_html(figures, f"repeat({2 * len(result.shown_frames)},1fr)")


def _gained(pictures: ImageArray, reference: ImageArray) -> ImageArray:
    difference = np.abs(pictures.astype(np.int16) - reference) * _GAIN
    return np.asarray(np.clip(difference, 0, 255), np.uint8)


@html_of.register
def _(result: Tuned) -> Markup:
    speeds = {name: (s.median, s.low, s.high) for name, s in result.speeds.items()}
    how = f"Found in {result.seconds:.0f} s." if result.seconds else "Remembered."
    config = result.config
    head = charts.heading(f"Best here: batch_size={config.batch_size}, n_jobs={config.n_jobs}")
    return charts.page(head, charts.figure_bars(speeds, "FPS"), charts.dim(how))


@html_of.register
def _(result: NetworkProfile) -> Markup:
    head = charts.heading(result.head)
    kinds = {row.kind: row.ms_per_frame for row in result.kinds[:10]}
    columns = ["the ten longest nodes", "operator", "output", "ms a frame", "share"]
    return charts.page(
        head,
        charts.figure_bars({kind: (ms, ms, ms) for kind, ms in kinds.items()}, "ms"),
        charts.table(columns, [_operator_cells(row) for row in result.nodes[:10]]),
    )


def _operator_cells(row: OperatorRow) -> list[str]:
    figures = [f"{row.ms_per_frame:.2f}", f"{100 * row.share:.1f} %"]
    return [row.name[-48:], row.kind, row.output, *figures]


@html_of.register
def _(result: MemoryTable) -> Markup:
    columns = ["template frames", "pixels", "estimate MB", "measured MB", "the origin MB"]
    rows = [
        [
            str(row.num_frames),
            row.pixels,
            f"{row.estimate_bytes / 1e6:.0f}",
            "-" if row.measured_bytes is None else f"{row.measured_bytes / 1e6:.0f}",
            f"{row.origin_bytes / 1e6:.0f}",
        ]
        for row in result.rows
    ]
    return charts.page(charts.heading("Templates in RAM"), charts.table(columns, rows))


@html_of.register
def _(result: FrameComparison) -> Markup:
    reference, name = result.names
    shown = result.shown
    columns = ["frame", "largest", "mean", "PSNR dB", ""]
    rows = [
        [
            str(entry.frame),
            str(entry.largest),
            f"{entry.mean:.2f}",
            _decibel(entry.psnr_db),
            _state(not entry.problems(result.limits)),
        ]
        for entry in shown
    ]
    count = len(result.differences)
    few = f", the {len(shown)} that differ most" if len(shown) < count else ""
    head = charts.heading(f"{name} against {reference}: {count} pictures{few}")
    together = charts.dim(
        f"All together: PSNR {_decibel(result.psnr_db)} dB, "
        f"largest difference {result.largest} of 255."
    )
    return charts.page(
        head, _problems(result.problems), charts.table(columns, rows), together, _pairs(result)
    )


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
    return grid_html(figures, f"repeat({len(frames)},1fr)")


def _decibel(value: float) -> str:
    return f"{value:.1f}" if value < IDENTICAL_DB else "over 100"


def _state(fine: bool) -> Markup:
    return Markup() if fine else element("b", "fails")


def _problems(problems: Sequence[str]) -> Markup:
    if not problems:
        return element("p", "All within the limits.")
    return joined(element("p", element("b", problem)) for problem in problems)


@html_of.register
def _(result: FactTable) -> Markup:
    rows = [
        [
            fact.name,
            fact.found_text,
            fact.expectation,
            _state(fact.holds),
        ]
        for fact in result.facts
    ]
    columns = ["", "found", "expected", ""]
    return charts.page(_problems(result.problems), charts.table(columns, rows, "text"))
