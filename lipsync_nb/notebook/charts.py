"""Charts and tables as HTML: readable on light and dark pages, without a live kernel.

Charts are drawn as SVG; `page` makes pictures of them. What a reader needs of a style stands with
the elements themselves, as the common style is stripped where a notebook is not trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, repeat

from lipsync_nb.pipeline.timing import Span, StageRow, Timings
from lipsync_nb.types.table import Table

from .markup import Markup, element, joined
from .pictures import pictured

STAGE_COLOURS = {
    "open": "#8d99ae",
    "features": "#e0a100",
    "warm-up": "#b39ddb",
    "batch": "#26a69a",
    "inference": "#5b8def",
    "composite": "#ef8354",
    "encode": "#7cb342",
    "close": "#a1887f",
}
OTHER_COLOUR = "#90a4ae"
STEADY_STAGES = ("batch", "inference", "composite", "encode")
WIDTH = 760
# Who calls `render`: the script's own thread, or the studio's.
_MAIN = ("MainThread", "render")
_LANES = ("speech", "inference", "composite")
_LANE, _LEFT, _LONGEST_NAME, _KEYS = 26, 110, 40, 22

_CELL = "padding:2px 12px 2px 0;border:0;border-bottom:1px solid rgba(128,128,128,0.25)"
_WHOLE = ";white-space:nowrap"
_HEAT_CELL = "padding:8px 18px;border:0;text-align:center"

STYLE = Markup(
    """<style>
.lsnb { color: var(--jp-ui-font-color1, inherit); font: 13px/1.45 system-ui, sans-serif;
  max-width: 860px; }
.lsnb h4 { margin: 10px 0 4px; font-size: 13px; font-weight: 600; }
.lsnb p { margin: 4px 0; }
.lsnb a { color: var(--jp-content-link-color, #1976d2); text-decoration: underline; }
.lsnb .dim { opacity: .7; }
.lsnb table { border-collapse: collapse; margin: 6px 0; font-variant-numeric: tabular-nums; }
.lsnb th, .lsnb td { background: none; color: inherit; font-size: 12px; }
.lsnb table tbody tr:nth-child(n) { background: none; }
.lsnb .heat th { font-weight: 400; }
.lsnb img { border-radius: 4px; }
.lsnb img.chart { display: block; }
body[data-jp-theme-light="false"] .lsnb img.chart, body.vscode-dark .lsnb img.chart,
html[theme="dark"] .lsnb img.chart { filter: invert(.9) hue-rotate(180deg); }
body[data-jp-theme-light="false"] .lsnb .key, body.vscode-dark .lsnb .key,
html[theme="dark"] .lsnb .key { filter: invert(.9) hue-rotate(180deg); }
.lsnb video { max-width: 100%; border-radius: 6px; background: #000; }
.lsnb figcaption { font-size: 11px; opacity: .7; }
</style>"""
)


def page(*parts: object) -> Markup:
    """Parts in one block with the style that they share; what is not markup is text.

    What is drawn within it becomes pictures.
    """
    block = element("div", *parts, class_="lsnb", style="max-width:860px")
    return joined([STYLE, pictured(block)])


def heading(*parts: object) -> Markup:
    """A line above what follows."""
    return element("h4", *parts)


def dim(*parts: object) -> Markup:
    """A paragraph in paler letters."""
    return element("p", *parts, class_="dim")


def note(*lines: object, is_error: bool = False) -> Markup:
    """Lines of text for a widget, in the theme's colours."""
    colour = "var(--jp-error-color1, #d32f2f)" if is_error else "var(--jp-ui-font-color1, inherit)"
    broken = [part for line in lines for part in (element("br"), line)][1:]
    return element("div", *broken, style=f"color:{colour};line-height:1.4;padding:4px 0")


def stage_colour(stage: str) -> str:
    """Colour of a stage in every chart."""
    return STAGE_COLOURS.get(stage, OTHER_COLOUR)


def table(head: Sequence[object], rows: Iterable[Sequence[object]], kind: str = "") -> Markup:
    """An HTML table; cells are text, or markup. Without any name in it, the head is left out."""

    def sides() -> Iterable[bool]:
        return repeat(True) if kind == "text" else chain([True], repeat(False))

    names = element("thead", _row(head, sides(), "th")) if any(head) else Markup()
    body = element("tbody", *(_row(row, sides()) for row in rows))
    return element("table", names, body, class_=kind or None)


def table_html(shown: Table, mark: Callable[[str, str], object] | None = None) -> Markup:
    """A table as HTML; words stand on the left.

    Args:
        mark: what is shown in place of a cell, from the column's name and the text.
    """
    body = (
        _row(
            [mark(n, c) if mark else c for n, c in zip(shown.names, row, strict=True)],
            shown.are_texts,
        )
        for row in shown.rows
    )
    head = element("thead", _row(shown.names, shown.are_texts, "th"))
    return element("table", head, element("tbody", *body))


def _row(cells: Iterable[object], are_texts: Iterable[bool], kind: str = "td") -> Markup:
    """A line of a table; words stand on the left, figures on the right."""
    # A figure and its unit stay in one line.
    figure = f"right{_WHOLE}" if kind == "td" else "right"
    sides = ("left" if is_text else figure for is_text in are_texts)
    return element(
        "tr",
        *(
            element(kind, cell, style=f"text-align:{side};{_CELL}")
            for cell, side in zip(cells, sides, strict=False)
        ),
    )


def stage_table(timings: Timings) -> Markup:
    """Seconds, ms a frame, percentiles and FPS of each stage, and of the whole."""

    def with_key(column: str, text: str) -> object:
        is_stage = column == "stage" and text in STAGE_COLOURS
        if not is_stage:
            return text
        key = colour_key(stage_colour(text))
        return element("span", key, text, style="white-space:nowrap")

    return table_html(timings.table, with_key)


def colour_key(colour: str) -> Markup:
    """A square of a colour, before what it stands for."""
    # A letter, not a box with a background: it is seen where styles are stripped, and on paper.
    return element("span", "\u25a0 ", class_="key", style=f"color:{colour}")


def stage_work(rows: Mapping[str, Sequence[StageRow]]) -> list[Markup]:
    """`stage_bars` under their heading, with what is to be known of their length."""
    note = "Overlapped stages work at the same time: their bar is longer than a frame takes."
    return [heading("Work per frame, by stage"), stage_bars(rows), dim(note)]


def stage_bars(rows: Mapping[str, Sequence[StageRow]]) -> Markup:
    """One stacked bar a run: milliseconds of each stage's own work a frame.

    Args:
        rows: stage rows by the run's name.
    """
    steady = {
        name: [row for row in stages if row.stage in STEADY_STAGES and row.frames]
        for name, stages in rows.items()
    }
    longest = max((sum(r.ms_per_frame for r in stages) for stages in steady.values()), default=0)
    left = _margin(steady)
    scale = (WIDTH - left - 90) / longest if longest else 0
    parts = []
    for lane, (name, stages) in enumerate(steady.items()):
        parts.append(_bar(name, stages, lane * _LANE, left, scale))
    height = _LANE * len(steady) + 4
    used = [s for s in STEADY_STAGES if any(r.stage == s for rs in steady.values() for r in rs)]
    return drawing(height + _KEYS, [*parts, _keys(used, height)], "milliseconds a frame by stage")


def _margin(names: Iterable[str]) -> int:
    """Room for names on the left of bars: a letter takes about 7 px."""
    return max([_LEFT, *(min(_LONGEST_NAME, len(name)) * 7 + 16 for name in names)])


def _bar(name: str, stages: Sequence[StageRow], y: int, left: int, scale: float) -> Markup:
    x, parts = float(left), [_label(name, y, left)]
    for row in stages:
        width = row.ms_per_frame * scale
        title = f"{row.stage}: {row.ms_per_frame:.2f} ms a frame"
        parts.append(_rect(x, y + 4, width, _LANE - 8, stage_colour(row.stage), title))
        x += width
    total = sum(row.ms_per_frame for row in stages)
    parts.append(element("text", f"{total:.1f} ms", x=f"{x + 6:.1f}", y=y + 17))
    return joined(parts)


def _keys(stages: Iterable[str], y: int) -> Markup:
    """Colour keys of stages, beside each other below a chart."""
    x, parts = 0, []
    for stage in stages:
        parts.append(_rect(x, y + 8, 10, 10, stage_colour(stage), stage))
        parts.append(element("text", stage, x=x + 16, y=y + 17))
        x += 38 + 7 * len(stage)
    return joined(parts)


def figure_bars(figures: Mapping[str, tuple[float, float, float]], unit: str) -> Markup:
    """One bar a name with its median, and a line from the lowest to the highest.

    Args:
        figures: median, low and high by name.
        unit: of the figures, for the labels.
    """
    largest = max((high for _, _, high in figures.values()), default=0)
    left = _margin(figures)
    scale = (WIDTH - left - 120) / largest if largest else 0
    parts = []
    for lane, (name, (median, low, high)) in enumerate(figures.items()):
        y = lane * _LANE
        title = f"{name}: {median:.2f} {unit} ({low:.2f}-{high:.2f})"
        parts.append(_label(name, y, left))
        parts.append(_rect(left, y + 4, median * scale, _LANE - 8, "#5b8def", title))
        x1, x2, middle = left + low * scale, left + high * scale, y + _LANE / 2
        parts.append(_line((x1, middle), (x2, middle), stroke_width="1.5", opacity=".7"))
        parts.append(element("text", f"{median:.1f} {unit}", x=f"{x2 + 6:.1f}", y=y + 17))
    return drawing(_LANE * len(figures) + 4, parts, f"bars, {unit}".rstrip(", "))


def heat_map(
    cells: Mapping[tuple[str, str], float | None], down: str, across: str, top: float
) -> Markup:
    """A table of figures with the deeper colour for the larger, the largest of all outlined.

    Args:
        cells: by row and column; None where there is no figure.
        down, across: names of rows and columns.
        top: the largest figure of all maps that are shown together.
    """
    rows = list(dict.fromkeys(row for row, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells))

    def named(text: str = "") -> Markup:
        return element("th", text, style=_HEAT_CELL)

    head = element("tr", named(), *(named(f"{across}={name}") for name in columns))
    body = (
        element(
            "tr",
            named(f"{down}={row}"),
            *(_heat_cell(cells.get((row, column)), top) for column in columns),
        )
        for row in rows
    )
    return element("table", head, *body, class_="heat")


def _heat_cell(figure: float | None, top: float) -> Markup:
    if figure is None:
        return element("td", "-", style=_HEAT_CELL)
    depth = 0.08 + 0.72 * (figure / top if top else 0) ** 3
    outline = ";border:2px solid #ef8354" if figure == top else ""
    colour = f";background-color:rgba(91,141,239,{depth:.2f})"
    return element("td", f"{figure:.1f}", style=f"{_HEAT_CELL}{colour}{outline}")


def timeline(timings: Timings, seconds: float = 3.0) -> Markup:
    """When which worker did which stage: a lane for each, from the first frame's start.

    Args:
        seconds: how much of it is shown.
    """
    start = timings.begin_seconds
    spans = [
        s for s in timings.spans if s.end_seconds > start and s.start_seconds < start + seconds
    ]
    if not spans:
        return dim("No work was timed.")
    shown = min(seconds, max(span.end_seconds for span in spans) - start)
    workers = sorted(dict.fromkeys(span.worker for span in spans), key=_worker_place)
    scale = (WIDTH - _LEFT - 20) / shown
    parts = [_label(_worker_name(worker), lane * _LANE) for lane, worker in enumerate(workers)]
    for span in _joined(spans, 0.7 / scale):
        left = max(0.0, span.start_seconds - start)
        width = min(shown, span.end_seconds - start) - left
        y = workers.index(span.worker) * _LANE + 4
        title = f"{span.stage}: {1000 * span.seconds:.1f} ms, {span.frames} frames"
        colour = stage_colour(span.stage)
        parts.append(_rect(_LEFT + left * scale, y, max(0.8, width * scale), 18, colour, title))
    parts.append(_axis(shown, scale, len(workers) * _LANE))
    used = sorted({span.stage for span in spans}, key=_stage_place)
    height = len(workers) * _LANE + 24
    return drawing(height + _KEYS, [*parts, _keys(used, height)], "which worker was busy when")


def _worker_name(name: str) -> str:
    return "main" if name in _MAIN else name


def _worker_place(name: str) -> tuple[bool, int, int, str]:
    """Lanes in the order of the data: speech, inference, compositing, and who encodes at last."""
    kind, _, number = name.partition(" ")
    place = _LANES.index(kind) if kind in _LANES else len(_LANES)
    return name in _MAIN, place, int(number) if number.isdecimal() else 0, name


def _stage_place(stage: str) -> tuple[int, str]:
    """Keys in the order of the stages."""
    known = list(STAGE_COLOURS)
    return known.index(stage) if stage in known else len(known), stage


def _joined(spans: Sequence[Span], gap_seconds: float) -> list[Span]:
    """Spans of one worker and stage that lie closer than a line on the screen, as one."""
    last: dict[str, Span] = {}
    done: list[Span] = []
    for span in sorted(spans, key=lambda s: s.start_seconds):
        before = last.get(span.worker)
        close = before is not None and span.start_seconds - before.end_seconds < gap_seconds
        short = before is not None and before.seconds < 2 * gap_seconds
        if before is not None and close and short and before.stage == span.stage:
            frames = before.frames + span.frames
            joined = Span(span.stage, span.worker, before.start_seconds, span.end_seconds, frames)
            last[span.worker] = joined
            continue
        if before is not None:
            done.append(before)
        last[span.worker] = span
    return [*done, *last.values()]


def _axis(shown: float, scale: float, y: int) -> Markup:
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1e9) if shown / s <= 8)
    marks = []
    for number in range(int(shown / step) + 1):
        x, text = _LEFT + number * step * scale, f"{number * step:g} s"
        marks.append(_line((x, 0), (x, y), opacity=".15"))
        marks.append(_pale(text, f"{x:.1f}", y + 16, "middle"))
    return joined(marks)


def _pale(text: str, x: object, y: int, anchor: str) -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor, opacity=".7")


def _line(start: tuple[float, float], end: tuple[float, float], **style: str) -> Markup:
    places = {"x1": start[0], "x2": end[0], "y1": start[1], "y2": end[1]}
    rounded = {name: f"{place:.1f}" for name, place in places.items()}
    return element("line", **{**rounded, "stroke": "currentColor", **style})


def _label(text: str, y: int, left: int = _LEFT) -> Markup:
    shown: list[object] = [text]
    if len(text) > _LONGEST_NAME:
        shown = [f"{text[: _LONGEST_NAME - 1]}…", element("title", text)]
    return element("text", *shown, x=left - 8, y=y + 17, text_anchor="end")


def _rect(x: float, y: float, width: float, height: float, colour: str, title: str) -> Markup:
    place = {"x": f"{x:.1f}", "y": y, "width": f"{max(0.0, width):.1f}", "height": height}
    return element("rect", element("title", title), **place, fill=colour, rx="1.5")


def drawing(height: int, parts: Iterable[Markup], says: str = "chart") -> Markup:
    """A drawing; what it says goes before the texts within it where it becomes a picture."""
    box = f"0 0 {WIDTH} {height}"
    picture = element("svg", *parts, viewBox=box, role="img", aria_label=says)
    return element("div", picture, style="overflow-x:auto;margin:4px 0")


def waveform(
    peaks: Sequence[tuple[float, float]],
    seconds: float,
    height: int = 90,
    mark: tuple[float, float, float] | None = None,
) -> Markup:
    """A waveform from the lowest and highest sample (-1..1) of each of its columns.

    Args:
        mark: start, end and moment in seconds of a window that is marked.
    """
    middle, scale = height / 2, height / 2 - 2
    step = WIDTH / max(1, len(peaks))
    upper = [f"{i * step:.1f},{middle - high * scale:.1f}" for i, (_, high) in enumerate(peaks)]
    lower = [f"{i * step:.1f},{middle - low * scale:.1f}" for i, (low, _) in enumerate(peaks)]
    parts = [element("polygon", points=" ".join([*upper, *lower[::-1]]), fill="#5b8def")]
    if mark is not None:
        start, end, moment = (min(max(0.0, v / seconds * WIDTH), WIDTH) for v in mark)
        place = {"x": f"{start:.1f}", "y": 0, "width": f"{end - start:.1f}", "height": height}
        parts.append(element("rect", **place, fill="#ef8354", opacity=".35"))
        parts.append(_line((moment, 0), (moment, height), stroke="#ef8354", stroke_width="2"))
    parts.append(_pale(f"{seconds:.1f} s", WIDTH, height - 2, "end"))
    return drawing(height, parts, "waveform")
