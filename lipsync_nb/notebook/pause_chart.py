"""Where a speech pauses, drawn over its waveform, so that the threshold can be set by eye."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import ConfigError, SpeechError
from lipsync_nb.pipeline.row_sound import Seconds
from lipsync_nb.pipeline.silence import Pauses
from lipsync_nb.pipeline.voice import Scores, open_detector, speech_level
from lipsync_nb.types.arrays import FloatArray
from lipsync_nb.types.records import SAMPLE_RATE, Speech

from .charts import WIDTH, dim, heading
from .images import Shown
from .markup import Markup, element, joined

MOST_ROWS = 20
_LEFT, _WAVE, _SCORES, _AXIS, _GAP = 52, 72, 64, 18, 8
_PLOT = WIDTH - _LEFT - 8
_SPEECH, _SOUND, _LINE = "#7cb342", "#5b8def", "#ef8354"
# Of the lower chart: dB of full scale, and probabilities.
_RANGES = {"level": (-75.0, -5.0), "silero": (0.0, 1.0)}


def show_pauses(
    speech: Speech, config: RenderConfig | None = None, *, row_seconds: float = 20.0
) -> Shown:
    """What is taken for speech, over the waveform; below it what the detector says, and its limits.

    Green is what is painted, with the margin and the fades; the rest are pauses. Speech begins
    where the lower curve reaches the orange line, and ends below the dashed one.

    Args:
        speech: sound.
        config: its ``silence_`` fields are used.
        row_seconds: of a row; `MOST_ROWS` are shown at most.

    Raises:
        SpeechError: it is a feature track.
        ConfigError: ``row_seconds`` is not above 0.
        MissingLibraryError: Silero's detector was asked for and is not there.

    Example:
        >>> show_pauses(lnb.load_speech("hello.mp3"), lnb.RenderConfig(silence_threshold_db=-30))
        speech in 1 span: 5.1 s of 6.4 s; found by Silero's voice detector, at 0.50
    """
    if not row_seconds > 0:
        raise ConfigError(f"row_seconds: found {row_seconds}, expected more than 0.")
    if speech.samples is None:
        raise SpeechError("found a feature track, expected sound to find pauses in.")
    config = config or RenderConfig()
    chart = _Chart(speech.samples, config)
    seconds = speech.duration_seconds
    starts = np.arange(0, seconds, row_seconds)[:MOST_ROWS]
    rows = [chart.row(float(start), min(row_seconds, seconds)) for start in starts]
    parts = [heading(chart.text), *rows]
    if len(starts) * row_seconds < seconds:
        parts.append(dim(f"The first {len(starts) * row_seconds / 60:.0f} minutes are shown."))
    return Shown(chart.text, parts)


class _Chart:
    """A speech with its detector's scores, and what they come to."""

    def __init__(self, samples: FloatArray, config: RenderConfig) -> None:
        name, threshold = config.silence_detector, config.silence_threshold_db
        self._samples = samples
        self._scores = open_detector(name, samples, threshold)
        self._values = np.concatenate(list(self._scores.blocks))
        self.pauses = Pauses.of(Speech(samples=samples), config)

    @property
    def text(self) -> str:
        """The whole in a line."""
        spans = self.pauses.spans()
        spoken = sum(end - start for start, end in spans)
        count = f"{len(spans)} span{'s' * (len(spans) != 1)}"
        whole = self.pauses.duration_seconds
        found = f"found by {self._scores.what}"
        return f"speech in {count}: {spoken:.1f} s of {whole:.1f} s; {found}"

    def row(self, start: float, seconds: float) -> Markup:
        """So much of it, from there on."""
        columns = _PLOT
        edges = start + np.arange(columns + 1) * seconds / columns
        parts = [self._painted(edges), self._wave(edges), self._limits(), self._curve(edges)]
        parts.append(_axis(start, seconds))
        height = _WAVE + _GAP + _SCORES + _AXIS
        says, box = "speech and pauses", f"0 0 {WIDTH} {height}"
        return element("svg", *parts, viewBox=box, role="img", aria_label=says)

    def _painted(self, edges: Seconds) -> Markup:
        """An area behind both charts, as high as predictions are painted."""
        strengths = self.pauses.strengths(edges[:-1], edges[1:])
        strengths[edges[:-1] >= self.pauses.duration_seconds] = 0
        bottom = _WAVE + _GAP + _SCORES
        points = [(_LEFT + i, bottom - value * bottom) for i, value in enumerate(strengths)]
        points = [(_LEFT, bottom), *points, (_LEFT + len(points), bottom)]
        return _shape("polygon", points, fill=_SPEECH, opacity=".22")

    def _wave(self, edges: Seconds) -> Markup:
        """The lowest and highest sample of each column; the loudest fills the chart."""
        bounds = np.round(edges * SAMPLE_RATE).astype(int).clip(0, len(self._samples))
        loudest = max(float(np.abs(self._samples).max()), 1e-4)
        middle, scale = _WAVE / 2, (_WAVE / 2 - 2) / loudest
        upper, lower = [], []
        for i, (first, last) in enumerate(pairwise(bounds)):
            part = self._samples[first : max(last, first + 1)]
            if len(part):
                upper.append((_LEFT + i, middle - float(part.max()) * scale))
                lower.append((_LEFT + i, middle - float(part.min()) * scale))
        return _shape("polygon", [*upper, *lower[::-1]], fill=_SOUND)

    def _height(self, score: float) -> float:
        low, high = _RANGES[self._scores.name]
        share = (min(max(score, low), high) - low) / (high - low)
        return _WAVE + _GAP + _SCORES * (1 - share)

    def _curve(self, edges: Seconds) -> Markup:
        """The largest score of each column."""
        places = (edges * SAMPLE_RATE / self._scores.hop).astype(int)
        points = []
        for i, (first, last) in enumerate(pairwise(places)):
            part = self._values[first : max(last, first + 1)]
            if len(part):
                points.append((_LEFT + i, self._height(float(part.max()))))
        return _shape("polyline", points, fill="none", stroke="currentColor", stroke_width="1")

    def _limits(self) -> Markup:
        """Where speech begins and ends, and the level of the speech itself."""
        scores, lines = self._scores, []
        if scores.name == "level":
            level = speech_level(self._values)
            lines.append(_level_line(self._height(level), "speech", stroke=_SPEECH))
        lines.append(_level_line(self._height(scores.on), _limit_text(scores), stroke=_LINE))
        dashed = {"stroke": _LINE, "stroke_dasharray": "5 4"}
        lines.append(_level_line(self._height(scores.off), "", **dashed))
        return joined(lines)


def _limit_text(scores: Scores) -> str:
    return f"{scores.on:.0f} dB" if scores.name == "level" else f"{scores.on:.2f}"


def _level_line(y: float, text: str, **style: str) -> Markup:
    place = {"x1": _LEFT, "x2": _LEFT + _PLOT, "y1": f"{y:.1f}", "y2": f"{y:.1f}"}
    line = element("line", **place, stroke_width="1.5", **style)
    label = element("text", text, x=_LEFT - 6, y=f"{y + 4:.1f}", text_anchor="end", opacity=".8")
    return joined([line, label if text else Markup()])


def _shape(kind: str, points: Sequence[tuple[float, float]], **style: str) -> Markup:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return element(kind, points=places, **style)


def _axis(start: float, seconds: float) -> Markup:
    """Marks of whole seconds, not too many."""
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1e9) if seconds / s <= 12)
    bottom, marks = _WAVE + _GAP + _SCORES, []
    for number in range(int(np.ceil(start / step - 1e-9)), int((start + seconds) / step) + 1):
        x = f"{_LEFT + (number * step - start) / seconds * _PLOT:.1f}"
        line = {"x1": x, "x2": x, "y1": 0, "y2": bottom, "stroke": "currentColor"}
        marks.append(element("line", **line, opacity=".12"))
        text = {"x": x, "y": bottom + 14, "text_anchor": "middle", "opacity": ".7"}
        marks.append(element("text", f"{number * step:g} s", **text))
    return joined(marks)
