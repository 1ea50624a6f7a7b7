"""What a speech is known to be: phonemes and the opening of the mouth, drawn over its waveform."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lipsync_nb.errors import SpeechError
from lipsync_nb.types.arrays import FloatArray
from lipsync_nb.types.records import SAMPLE_RATE, SYNCTALK_328, Speech

from . import charts
from .images import Shown
from .markup import Markup, element, joined
from .playable import peaks

_LINE_SECONDS = 2.4
_HEIGHT, _LINE = 76, 132
_SOUND, _MOUTH = "#5b8def", "#d9480f"


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth of a speech, from the file ``NAME.truth.npz`` beside it.

    Attributes:
        opening: of the mouth, float32 ``[frames]``, 0 shut to 1 wide open; 25 a second.
        phonemes: each with the second in which it begins; without a name it is a pause.
    """

    opening: FloatArray
    phonemes: tuple[tuple[str, float], ...]


def read_truth(speech: Speech) -> Truth:
    """The truth of a speech that has one, as the demo's have.

    Raises:
        SpeechError: there is no such file beside the speech, or it is damaged.
    """
    if speech.path is None or not speech.path.with_suffix(".truth.npz").is_file():
        name = "the speech" if speech.path is None else str(speech.path)
        raise SpeechError(f"{name}: found no truth, expected a file NAME.truth.npz beside it.")
    file = speech.path.with_suffix(".truth.npz")
    try:
        with np.load(file, allow_pickle=False) as stored:
            opening = stored["mouth"][:, 0].astype(np.float32)
            names = [str(name) for name in stored["phonemes"]]
            seconds = stored["phoneme_seconds"].astype(float).tolist()
        if not (np.isfinite(opening).all() and np.isfinite(seconds).all()):
            raise ValueError("it is not finite")
        return Truth(opening, tuple(zip(names, seconds, strict=True)))
    # NumPy and zipfile have an error of their own for each part that can be damaged.
    except Exception as error:
        expected = "arrays mouth, phonemes and phoneme_seconds"
        raise SpeechError(f"{file}: found no truth ({error}), expected {expected}.") from error


def show_truth(speech: Speech) -> Shown:
    """Phonemes (IPA) and the opening of the mouth over the waveform, in lines of 2 to 3 seconds.

    Raises:
        SpeechError: the speech has no sound, or no truth; see `read_truth`.

    Example:
        >>> show_truth(load_speech(demo_speeches()["hello"]))
        truth of hello.flac: 85 phonemes, mouth opening of 234 frames
    """
    truth = read_truth(speech)
    if speech.samples is None or speech.path is None:
        raise SpeechError(f"{speech.path}: found features, expected sound.")
    lines = max(1, round(speech.duration_seconds / _LINE_SECONDS))
    each = speech.duration_seconds / lines
    parts = [_line(speech.samples, truth, i * each, each, i * _LINE) for i in range(lines)]
    spoken = sum(bool(name) for name, _ in truth.phonemes)
    says = f"phonemes and mouth opening over the waveform of {speech.path.name}"
    drawing = charts.drawing(lines * _LINE + 6, [*parts, _keys(lines * _LINE)], says)
    text = f"truth of {speech.path.name}: {spoken} phonemes, mouth opening of"
    head = charts.heading(f"What is said in {speech.path.name}, and how far the mouth is open")
    return Shown(f"{text} {len(truth.opening)} frames", [head, drawing])


def _line(samples: FloatArray, truth: Truth, start: float, seconds: float, y: int) -> Markup:
    """A part of the speech in one line, its axis and phonemes below."""
    scale = charts.WIDTH / seconds
    part = samples[int(start * SAMPLE_RATE) : int((start + seconds) * SAMPLE_RATE)]
    middle, half = y + _HEIGHT / 2, _HEIGHT / 2
    columns = peaks(part)
    step = charts.WIDTH / max(1, len(columns))
    upper = [f"{i * step:.1f},{middle - high * half:.1f}" for i, (_, high) in enumerate(columns)]
    lower = [f"{i * step:.1f},{middle - low * half:.1f}" for i, (low, _) in enumerate(columns)]
    sound = element("polygon", points=" ".join([*upper, *lower[::-1]]), fill=_SOUND, opacity=".55")
    return joined([
        sound,
        _opening(truth.opening, start, seconds, y),
        *_phonemes(truth, start, seconds, scale, y + _HEIGHT),
        *_seconds(start, seconds, scale, y + _HEIGHT + 38),
    ])  # fmt: skip


def _opening(opening: FloatArray, start: float, seconds: float, y: int) -> Markup:
    """The mouth's opening from the line's bottom, shut, to its top, wide open."""
    fps = SYNCTALK_328.fps
    times = (np.arange(len(opening)) + 0.5) / fps
    end = min(start + seconds, float(times[-1]))
    inside = times[(times > start) & (times < end)]
    moments = np.array([start, *inside, end])
    shown = np.interp(moments, times, opening)
    points = [
        f"{(t - start) / seconds * charts.WIDTH:.1f},{y + _HEIGHT * (1 - o):.1f}"
        for t, o in zip(moments, shown, strict=True)
    ]
    return element(
        "polyline", points=" ".join(points), fill="none", stroke=_MOUTH, stroke_width="2",
        stroke_linejoin="round",
    )  # fmt: skip


def _phonemes(truth: Truth, start: float, seconds: float, scale: float, y: int) -> list[Markup]:
    """Each phoneme's name in the middle of its time, and a tick where it begins."""
    parts, end = [], start + seconds
    starts = [*truth.phonemes, ("", end)]
    for (name, begin), (_, following) in pairwise(starts):
        middle = (begin + following) / 2
        if not name or not start <= middle < end:
            continue
        left = max(0.0, (begin - start) * scale)
        tick = {"x1": f"{left:.1f}", "x2": f"{left:.1f}", "y1": y + 2, "y2": y + 10}
        parts.append(element("line", **tick, stroke="currentColor", opacity=".3"))
        place = {"x": f"{(middle - start) * scale:.1f}", "y": y + 17}
        parts.append(element("text", name, **place, text_anchor="middle"))
    return parts


def _seconds(start: float, seconds: float, scale: float, y: int) -> list[Markup]:
    """Half seconds, in paler letters."""
    moments = [0.5 * i for i in range(int(2 * (start + seconds)) + 1) if 0.5 * i >= start]
    return [
        element(
            "text", f"{moment:g} s", x=f"{(moment - start) * scale:.1f}", y=y, opacity=".55",
            text_anchor="start" if moment - start < 0.1 else "middle",
        )
        for moment in moments
        if start + seconds - moment > 0.1
    ]  # fmt: skip


def _keys(y: int) -> Markup:
    """What is drawn in which colour."""
    parts = []
    for x, colour, name in ((0, _SOUND, "sound"), (90, _MOUTH, "mouth opening, shut to wide")):
        parts.append(element("rect", x=x, y=y - 8, width=10, height=10, fill=colour, rx="1.5"))
        parts.append(element("text", name, x=x + 16, y=y + 1))
    return joined(parts)
