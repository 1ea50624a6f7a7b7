"""How the quality report of a clip shows itself."""

from __future__ import annotations

from collections.abc import Iterator

from lipsync_nb.experiments.quality_reports import (
    FAILS,
    NOT_JUDGED,
    NOT_MEASURED,
    PASSES,
    Measure,
    Moment,
    QualityReport,
)

from . import charts
from .displays import grid_html, html_of
from .line_charts import line_chart
from .markup import Markup, element

# Dark enough on white, and bright enough on black.
_COLOURS = {PASSES: "#3f9a4a", FAILS: "#e53935"}
_MARKS = {PASSES: "\u2713", FAILS: "\u2717", NOT_MEASURED: "\u2013", NOT_JUDGED: "\u2013"}

_MOMENTS = (
    "Below, each measure over time. Its worst moments are marked, and shown in pairs, the worst "
    "first: the clip, and beside it the recording that it was made from."
)


@html_of.register
def _(report: QualityReport) -> Markup:
    return charts.page(
        charts.heading(report.head),
        charts.table_html(report.table, _marked),
        *map(charts.dim, report.notes),
        charts.dim(_MOMENTS) if report.moments else "",
        *_sections(report),
    )


def _marked(column: str, text: str) -> object:
    """A verdict with its mark and colour; other cells as they are."""
    if column == "" and text:
        return element("span", text, class_="dim")
    return _verdict(text) if column == "verdict" else text


def _verdict(verdict: str) -> Markup:
    weight = ";font-weight:700" if verdict == FAILS else ""
    colour = _COLOURS.get(verdict, "inherit")
    style = f"color:{colour};white-space:nowrap{weight}"
    return element("span", f"{_MARKS.get(verdict, '')} {verdict}", style=style)


def _sections(report: QualityReport) -> Iterator[Markup]:
    """A part for each measure that has something to show: lines over time, and worst moments."""
    for measure in report.measures:
        tracks = [track for track in report.tracks if track.name == measure.name]
        moments = report.worst(measure.name)
        if not tracks and not moments:
            continue
        parts: list[object] = [_title(measure)]
        if tracks:
            times = [moment.seconds for moment in moments]
            unit = "ms" if tracks[0].start_seconds < 0 else "s"
            parts.append(line_chart(tracks, times, unit=unit))
        if moments:
            parts.append(_pairs(measure, moments))
        yield element("div", *parts, style="margin:22px 0 0")


def _title(measure: Measure) -> Markup:
    limit = "" if measure.limit is None else f", {measure.limit_text}"
    figures = element("span", f"{measure.value_text}{limit} ", style="font-weight:400")
    return charts.heading(measure.title, ": ", figures, _verdict(measure.verdict))


def _pairs(measure: Measure, moments: tuple[Moment, ...]) -> Markup:
    """Each moment as the clip has it beside the recording's own; larger where it fails."""
    columns = 2 if measure.verdict == FAILS else 4
    figures = (_pair(measure, moment) for moment in moments)
    return grid_html(figures, f"repeat({columns},minmax(0,1fr))")


def _pair(measure: Measure, moment: Moment) -> Markup:
    value = "" if moment.value is None else f": {measure.text_of(moment.value)}"
    caption = f"{moment.seconds:.2f} s, frame {moment.frame}{value}"
    pictures = (
        element(
            "img",
            src=f"data:image/jpeg;base64,{data}",
            alt=f"{what}, {caption}",
            style="width:100%",
        )
        for what, data in (("clip", moment.picture), ("recording", moment.recording))
        if data
    )
    both = element("div", *pictures, style="display:grid;grid-template-columns:1fr 1fr;gap:2px")
    return element("figure", both, element("figcaption", caption), style="margin:0")
