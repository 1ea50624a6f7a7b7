"""How an inspection shows itself: what to do first, then the pictures, then all that was found.

Its own styles are inline and its pictures are images, so that it can be read where scripts and
style sheets are taken out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lipsync_nb.inspection.findings import (
    Finding,
    Inspection,
    Severity,
    SoundPicture,
    Topic,
)
from lipsync_nb.media.imaging import encode_picture, outlined, shrunk
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Box

from . import charts
from .markup import Markup, data_uri, element, joined

_THUMBNAIL, _CROP = 420, 328
# Seen on light and on dark pages; the words beside them say the same.
_COLOURS: dict[Severity, str] = {"problem": "#d64545", "hint": "#d98a00", "ok": "#3d9a50"}
_LABELS: dict[Severity, str] = {"problem": "Problem", "hint": "Hint", "ok": "ok"}
_BLUE, _RED, _GREY = "#5b8def", "#d64545", "#8a8a8a"
_WIDTH = 760
_GRID = "display:grid;grid-template-columns:repeat(auto-fill,minmax({}px,1fr));gap:{}px"
_FLEX = "display:flex;flex-wrap:wrap;gap:18px;align-items:flex-start"


def html_of(inspection: Inspection) -> Markup:
    """HTML of an inspection."""
    return charts.page(
        _head(inspection),
        _to_do(inspection),
        *_pictures(inspection),
        element(
            "div",
            *(_topic(inspection, topic) for topic in inspection.topics),
            style="columns:2 370px;column-gap:28px;margin-top:10px",
        ),
    )


def _head(inspection: Inspection) -> Markup:
    name = inspection.path.name or str(inspection.path)
    title = element("h3", f"{name}: {inspection.kind}", style="margin:4px 0;font-size:18px")
    count = element("b", f"{inspection.count_text[0].upper()}{inspection.count_text[1:]}.")
    line = element("p", count, " ", inspection.verdict, style="margin:2px 0 10px;font-size:14px")
    return joined([title, line])


def _to_do(inspection: Inspection) -> Markup:
    """Problems first, then hints."""
    found = [*inspection.problems, *inspection.hints]
    if not found:
        return _card("ok", "Nothing to mend", "", "")
    return joined(
        _card(f.severity, _LABELS[f.severity], f"{f.topic}: {f.found}.", f.advice) for f in found
    )


def _card(severity: Severity, label: str, found: str, advice: str) -> Markup:
    colour = _COLOURS[severity]
    tag = element("b", label, style=f"color:{colour};flex:0 0 66px" if found else f"color:{colour}")
    what = element("div", advice, style="margin-top:2px;opacity:.8") if advice else ""
    text = element("div", found, what, style="flex:1 1 260px;overflow-wrap:anywhere")
    style = (
        f"border-left:4px solid {colour};background:rgba(128,128,128,.08);padding:6px 12px;"
        "margin:5px 0;display:flex;flex-wrap:wrap;gap:2px 10px;border-radius:0 4px 4px 0"
    )
    return element("div", tag, text if found else "", style=style)


def _pictures(inspection: Inspection) -> list[Markup]:
    evidence = inspection.evidence
    parts = []
    if evidence.frames:
        parts += [charts.heading(_strip_title(evidence.frames)), _strip(evidence.frames)]
    beside = []
    if evidence.crop is not None:
        size = evidence.crop.shape[0]
        caption = f"The face as the network gets it, {size}x{size}"
        beside.append(_figure(evidence.crop, caption, "flex:0 1 240px", _CROP))
    if len(evidence.widths) > 1:
        beside.append(_widths(evidence.widths))
    if beside:
        parts.append(element("div", *beside, style=f"{_FLEX};margin:12px 0"))
    if evidence.sound is not None:
        parts += [charts.heading("The speech"), _sound(evidence.sound)]
    return parts


def _strip_title(frames: Sequence[tuple[int, ImageArray, Box | None]]) -> str:
    boxed = any(box is not None for _, _, box in frames)
    return "Frames, with the face box" if boxed else "Frames; their face boxes are not known"


def _strip(frames: Sequence[tuple[int, ImageArray, Box | None]]) -> Markup:
    figures = []
    for number, image, box in frames:
        if box is not None:
            image = outlined(image, box.corners, shown_width=_THUMBNAIL)
        figures.append(_figure(image, f"frame {number}", "", _THUMBNAIL))
    return element("div", *figures, style=_GRID.format(220, 8))


def _figure(image: ImageArray, caption: str, style: str, width: int) -> Markup:
    source = data_uri(encode_picture(shrunk(image, width)), "image/jpeg")
    picture = element("img", src=source, alt=caption, style="width:100%;display:block")
    return element(
        "figure", picture, element("figcaption", caption), style=f"margin:0;{style}".rstrip(";")
    )


def _widths(widths: Sequence[int]) -> Markup:
    """The face box's width over the frames, from nothing to the largest."""
    height, top = 150, max(widths)
    low, high = min(widths), top
    step = _WIDTH / max(1, len(widths) - 1)
    # A box that hardly changes is drawn as that: the scale spans a tenth of its width or more.
    span = max(high - low, 0.1 * high)
    base = (low + high) / 2 - span / 2
    points = " ".join(
        f"{i * step:.1f},{height - 8 - (w - base) / span * (height - 16):.1f}"
        for i, w in enumerate(widths)
    )
    line = _svg(
        height,
        f'<polyline points="{points}" fill="none" stroke="{_BLUE}" stroke-width="2.5"/>',
    )
    caption = f"Width of the face box in {len(widths)} frames: {low} to {high} px"
    return _drawn(line, caption, "flex:1 1 320px;min-width:0")


def _sound(sound: SoundPicture) -> Markup:
    """The waveform; clipped stretches in red above it, pauses in grey behind it."""
    height, middle = 110, 60.0
    scale, second = 46.0, _WIDTH / sound.seconds
    step = _WIDTH / max(1, len(sound.peaks))
    peaks = [(max(-1.0, low), min(1.0, high)) for low, high in sound.peaks]
    upper = [f"{i * step:.1f},{middle - high * scale:.1f}" for i, (_, high) in enumerate(peaks)]
    lower = [f"{i * step:.1f},{middle - low * scale:.1f}" for i, (low, _) in enumerate(peaks)]
    shapes = [
        *_spans(sound.pauses, second, 14, height - 14, f'fill="{_GREY}" opacity=".3"'),
        f'<polygon points="{" ".join([*upper, *lower[::-1]])}" fill="{_BLUE}"/>',
        *_spans(sound.clipped, second, 0, 8, f'fill="{_RED}"'),
    ]
    words = [f"{sound.seconds:.1f} s"]
    words += ["pauses grey"] if sound.pauses else []
    words += ["clipped places red, above"] if sound.clipped else []
    return _drawn(_svg(height, "".join(shapes)), "; ".join(words), "")


def _spans(
    spans: Iterable[tuple[float, float]], second: float, y: int, height: int, look: str
) -> list[str]:
    return [
        f'<rect x="{start * second:.1f}" y="{y}" width="{max(1.5, (end - start) * second):.1f}" '
        f'height="{height}" {look}/>'
        for start, end in _merged(spans, 1.5 / second)
    ]


def _merged(spans: Iterable[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    """Spans that lie closer than a line on the screen, as one."""
    found: list[tuple[float, float]] = []
    for start, end in spans:
        if found and start - found[-1][1] < gap:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def _svg(height: int, shapes: str) -> str:
    """A drawing of figures alone; it stretches to the width that it is given."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" preserveAspectRatio="none">{shapes}</svg>'
    )


def _drawn(svg: str, caption: str, style: str) -> Markup:
    source = data_uri(svg.encode(), "image/svg+xml")
    look = "width:100%;height:130px;display:block;background:rgba(128,128,128,.08)"
    picture = element("img", src=source, alt=caption, style=look)
    return element(
        "figure", picture, element("figcaption", caption), style=f"margin:0;{style}".rstrip(";")
    )


def _topic(inspection: Inspection, topic: Topic) -> Markup:
    lines = [_line(finding) for finding in inspection.findings_of(topic)]
    return element(
        "section",
        charts.heading(f"{topic[0].upper()}{topic[1:]}"),
        _facts(inspection, topic),
        *lines,
        style="break-inside:avoid;margin:0;padding:4px 0 12px;overflow-wrap:anywhere",
    )


def _facts(inspection: Inspection, topic: Topic) -> Markup:
    """A table of names and values; notebooks have styles of their own for it, so all is said."""
    both = "border:0;text-align:left;vertical-align:top;font-size:12.5px;background:none"
    name, value = (
        f"{both};padding:1px 14px 1px 0;opacity:.7;white-space:nowrap",
        f"{both};padding:1px 0",
    )
    rows = (
        element(
            "tr",
            element("td", fact.name.strip(), style=name),
            element("td", fact.value, style=f"{value};overflow-wrap:anywhere"),
        )
        for fact in inspection.facts_of(topic)
    )
    return element("table", element("tbody", *rows), style="margin:4px 0 6px;border:0")


def _line(finding: Finding) -> Markup:
    label = element("b", _LABELS[finding.severity], style=f"color:{_COLOURS[finding.severity]}")
    return element("p", label, " ", finding.found, style="margin:2px 0")
