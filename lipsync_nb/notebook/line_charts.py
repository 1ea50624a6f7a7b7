"""Figures over time as lines: inline SVG for light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence

from lipsync_nb.experiments.quality_reports import Track

from .charts import WIDTH, colour_key
from .markup import Markup, element, joined

LINE_COLOURS = ("#5b8def", "#ef8354", "#26a69a")
LIMIT_COLOUR = "#e53935"
_LEFT, _RIGHT, _TOP, _AXIS = 44, 26, 8, 26


def line_chart(
    tracks: Sequence[Track],
    marks: Sequence[float] = (),
    height: int = 84,
    unit: str = "s",
    limit_name: str = "threshold",
) -> Markup:
    """Lines over the same time, each with its name; several are scaled to their own heights.

    Args:
        tracks: one or more, of equal times.
        marks: moments in the tracks' seconds that are pointed out.
        unit: of the axis, ``s`` or ``ms``.
        limit_name: of the line across, where there is one track and it has a limit.
    """
    first = tracks[0]
    limit = first.limit if len(tracks) == 1 else None
    place = _Place(first.start_seconds, max(first.seconds, 1e-6), height)
    parts = [place.axis(unit)]
    if len(tracks) == 1:
        bottom, top = _range(first.values, limit)
        parts.append(place.scale(bottom, top))
        parts += [place.across(limit, bottom, top)] if limit is not None else []
    for track, colour in zip(tracks, LINE_COLOURS, strict=False):
        spread = _range(track.values, limit)
        parts.append(place.line(track.values, *spread, colour))
    parts += [place.mark(moment) for moment in marks]
    picture = element(
        "svg", *parts, viewBox=f"0 0 {WIDTH} {height + _TOP + _AXIS}", role="img",
        aria_label=", ".join(track.title for track in tracks),
    )  # fmt: skip
    return joined([_legend(tracks, limit, limit_name), picture])


def _range(values: Sequence[float], limit: float | None) -> tuple[float, float]:
    """From 0 or the lowest value to the highest, or what is a little above the limit."""
    top = max(values, default=0.0)
    if limit is not None:
        top = max(top, 1.15 * limit)
    bottom = min(0.0, min(values, default=0.0))
    return bottom, top if top > bottom else bottom + 1.0


def _legend(tracks: Sequence[Track], limit: float | None, limit_name: str) -> Markup:
    names = [(track.title, colour) for track, colour in zip(tracks, LINE_COLOURS, strict=False)]
    if limit is not None:
        names.append((limit_name, LIMIT_COLOUR))
    keys: list[object] = []
    for name, colour in names:
        keys += [colour_key(colour), element("span", name, class_="dim")]
        keys.append("\u2003")
    return element("p", *keys)


def _short(value: float) -> str:
    """Three figures, without an exponent where a reader would have to count."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"


class _Place:
    """Where times and values lie in a chart."""

    def __init__(self, start: float, seconds: float, height: int) -> None:
        self._start, self._seconds, self._height = start, seconds, height
        self._scale = (WIDTH - _LEFT - _RIGHT) / seconds

    def _x(self, moment: float) -> float:
        return _LEFT + (moment - self._start) * self._scale

    def _y(self, value: float, bottom: float, top: float) -> float:
        return _TOP + self._height * (1 - (value - bottom) / (top - bottom))

    def line(self, values: Sequence[float], bottom: float, top: float, colour: str) -> Markup:
        last = max(1, len(values) - 1)
        points = (
            f"{self._x(self._start + self._seconds * i / last):.1f},{self._y(v, bottom, top):.1f}"
            for i, v in enumerate(values)
        )
        style = {"fill": "none", "stroke": colour, "stroke_width": "1.5"}
        return element("polyline", points=" ".join(points), stroke_linejoin="round", **style)

    def across(self, value: float, bottom: float, top: float) -> Markup:
        y = f"{self._y(value, bottom, top):.1f}"
        style = {"stroke": LIMIT_COLOUR, "stroke_dasharray": "5 4", "stroke_width": "1.2"}
        return element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, **style)

    def mark(self, moment: float) -> Markup:
        """A small triangle below the chart."""
        x, y = self._x(moment), _TOP + self._height
        points = f"{x:.1f},{y + 1:.1f} {x - 4:.1f},{y + 8:.1f} {x + 4:.1f},{y + 8:.1f}"
        return element("polygon", points=points, fill="currentColor", opacity=".75")

    def scale(self, bottom: float, top: float) -> Markup:
        """The lowest and the highest value, on the left."""
        return joined(
            element(
                "text", _short(value), x=_LEFT - 6, y=f"{y:.1f}", text_anchor="end", opacity=".7"
            )
            for value, y in ((top, _TOP + 9), (bottom, _TOP + self._height))
        )

    def axis(self, unit: str) -> Markup:
        """Lines and figures of time."""
        steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600, 1e9)
        step = next(s for s in steps if self._seconds / s <= 10)
        factor = 1000 if unit == "ms" else 1
        bottom, parts = _TOP + self._height, []
        number = -int(-self._start // step) if self._start else 0
        while number * step <= self._start + self._seconds + 1e-9:
            x, text = f"{self._x(number * step):.1f}", f"{number * step * factor:g} {unit}"
            lines = {"x1": x, "x2": x, "y1": _TOP, "y2": bottom, "stroke": "currentColor"}
            parts.append(element("line", **lines, opacity=".14"))
            parts.append(
                element("text", text, x=x, y=bottom + 22, text_anchor="middle", opacity=".7")
            )
            number += 1
        base = {"x1": _LEFT, "x2": WIDTH - _RIGHT, "y1": bottom, "y2": bottom}
        return joined([*parts, element("line", **base, stroke="currentColor", opacity=".35")])
