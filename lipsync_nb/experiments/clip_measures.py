"""The measures of a clip, from the figures of its frames and its sound."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from lipsync_nb.types.records import Box

from .clip_figures import FrameFigures
from .clip_sound import (
    SPEECH_DB,
    DoubleArray,
    Sync,
    at_frames,
    measure_sync,
    pauses,
    sound_lag_seconds,
)
from .quality import pearson
from .quality_reports import MOST_VALUES, Measure, QualityThresholds, Track

_LEAST_PAUSE_SECONDS, _LEAST_TRUTH_SECONDS = 0.2, 1.0
# A picture repeats the one before where it changes by less than this share of what the recording
# does, if that moves at all (levels). An encoder goes on refining what stands still.
_STILL, _MOVES = 0.15, 0.08
# Of 255: darker is black where the recording has more light than the second.
_BLACK, _LIT = 6.0, 16.0


@dataclass(frozen=True)
class ClipFigures:
    """All that is known of a clip, a value a frame.

    Attributes:
        times: seconds at which each frame appears, from 0.
        frames: of each `FrameFigures`, by field; ``skin`` is ``[n, 3]``.
        boxes: the recording's, of the frames that the clip uses, in its order.
        levels: of the clip's sound, see `loudness`; empty without sound.
        sound_seconds: length of the clip's sound.
        speech_levels: of the speech that it was made from, where it is given.
        truth: the mouth's opening as it ought to be, where it is known.
    """

    times: DoubleArray
    frames: dict[str, DoubleArray]
    boxes: Sequence[Box]
    levels: DoubleArray
    sound_seconds: float
    speech_levels: DoubleArray | None = None
    truth: DoubleArray | None = None

    @property
    def frame_seconds(self) -> float:
        """How long a frame is shown."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0.04

    @property
    def picture_seconds(self) -> float:
        """Length of the pictures."""
        return float(self.times[-1]) + self.frame_seconds

    @property
    def loud(self) -> DoubleArray:
        """Level of the sound at each frame, dB under the loud parts."""
        return at_frames(self.levels, self.times, self.frame_seconds)


def columns_of(figures: Sequence[FrameFigures]) -> dict[str, DoubleArray]:
    """Figures of frames as an array for each field."""
    names = [option.name for option in fields(FrameFigures)]
    return {name: np.array([getattr(f, name) for f in figures], float) for name in names}


@dataclass(frozen=True)
class Found:
    """A measure, and what is shown of it.

    Attributes:
        scores: how bad each frame is: more is worse, 0 is fine.
        tracks: lines to draw.
        values: of each frame, in the measure's unit.
    """

    measure: Measure
    scores: DoubleArray | None = None
    tracks: tuple[Track, ...] = ()
    values: DoubleArray | None = None


def measures_of(clip: ClipFigures, limits: QualityThresholds) -> list[Found]:
    """Every measure of a clip, in the order of the report's table."""
    black = _black(clip, limits)
    clip = _without(clip, _is_black(clip))
    sync = measure_sync(clip.frames["opening"], clip.levels, clip.times)
    found = [_offset(clip, sync, limits), _confidence(sync, limits)]
    if clip.truth is not None:
        found.append(_truth(clip, clip.truth, limits))
    if clip.speech_levels is not None:
        found.append(_sound_offset(clip, clip.speech_levels, limits))
    makers: tuple[Callable[[ClipFigures, QualityThresholds], Found], ...] = (
        _sound_length, _seam, _jitter, _flicker, _silence, _sharpness, _frozen,
    )  # fmt: skip
    return [*found, *(make(clip, limits) for make in makers), black]


def _is_black(clip: ClipFigures) -> npt.NDArray[np.bool_]:
    return (clip.frames["light"] < _BLACK) & (clip.frames["recorded_light"] > _LIT)


def _without(clip: ClipFigures, frames: npt.NDArray[np.bool_]) -> ClipFigures:
    """A clip whose figures go straight across some frames, which say nothing of the others."""
    if not frames.any() or frames.all():
        return clip
    kept, places = np.flatnonzero(~frames), np.arange(len(frames))
    columns = {}
    for name, values in clip.frames.items():
        each = values.reshape(len(values), -1)[kept].T
        columns[name] = np.array([np.interp(places, kept, row) for row in each]).T
        columns[name] = columns[name].reshape(values.shape)
    return replace(clip, frames=columns)


def _offset(clip: ClipFigures, sync: Sync | None, limits: QualityThresholds) -> Found:
    title = "sound after the mouth"
    if sync is None:
        note = "no sound" if not len(clip.levels) else "mouth or sound never change, or under 1 s"
        return Found(Measure("sync_offset", title, None, "ms", note=note))
    offset = 1000 * sync.offset_seconds
    is_sure = sync.confidence > sync.chance
    note = f"r {sync.correlations.max():.2f} there" if is_sure else "not sure: see confidence"
    measure = Measure("sync_offset", title, offset, "ms", "within", limits.sync_offset_ms, note)
    opening, loud = clip.frames["opening"], clip.loud
    tracks = (
        _track(clip, "sync_offset", "mouth opening", opening),
        _track(clip, "sync_offset", "loudness of speech", loud),
        _lag_track(sync),
    )
    return Found(measure, _mismatch(opening, loud), tracks)


def _lag_track(sync: Sync) -> Track:
    values = tuple(float(r) for r in sync.correlations)
    span = float(sync.lags[-1] - sync.lags[0])
    title = "r of mouth and loudness, by how much later the sound is"
    return Track("sync_confidence", title, span, values, float(sync.lags[0]))


def _mismatch(one: DoubleArray, other: DoubleArray) -> DoubleArray:
    """How far apart two curves are, each by its own spread, over three frames."""
    apart = np.abs(_standard(one) - _standard(other))
    return np.convolve(np.pad(apart, 1, mode="edge"), np.ones(3) / 3, "valid")


def _standard(values: DoubleArray) -> DoubleArray:
    spread = float(values.std())
    return np.clip((values - values.mean()) / spread, -2, 2) if spread else np.zeros(len(values))


def _confidence(sync: Sync | None, limits: QualityThresholds) -> Found:
    title = "confidence of that"
    if sync is None:
        return Found(Measure("sync_confidence", title, None, note="no offset was found"))
    floor = limits.sync_confidence
    floor = None if floor is None else max(floor, sync.chance)
    note = f"noise of this length reaches {sync.chance:.2f} once in 20 times"
    if sync.confidence <= sync.chance:
        note = f"the mouth does not follow the sound: {note}"
    return Found(Measure("sync_confidence", title, sync.confidence, "", "at least", floor, note))


def _truth(clip: ClipFigures, truth: DoubleArray, limits: QualityThresholds) -> Found:
    opening = clip.frames["opening"]
    count = min(len(opening), len(truth))
    if count * clip.frame_seconds < _LEAST_TRUTH_SECONDS:
        return Found(Measure("truth_r", "opening as the truth", None, note="under 1 s"))
    r = pearson(opening[:count], truth[:count])
    note = f"Pearson's r over {count} frames"
    measure = Measure("truth_r", "opening as the truth", r, "", "at least", limits.truth_r, note)
    scores = np.zeros(len(opening))
    scores[:count] = _mismatch(opening[:count], truth[:count])
    known = np.pad(truth[:count], (0, len(opening) - count), mode="edge")
    lines = (("mouth opening", opening), ("truth", known))
    return Found(measure, scores, tuple(_track(clip, "truth_r", *line) for line in lines))


def _sound_offset(clip: ClipFigures, speech: DoubleArray, limits: QualityThresholds) -> Found:
    title = "sound after the speech file's"
    lag = sound_lag_seconds(clip.levels, speech)
    if lag is None:
        return Found(Measure("sound_offset", title, None, "ms", note="silent, or under 1 s"))
    limit = limits.sound_offset_ms
    return Found(Measure("sound_offset", title, 1000 * lag, "ms", "within", limit))


def _sound_length(clip: ClipFigures, limits: QualityThresholds) -> Found:
    value = 1000 * (clip.sound_seconds - clip.picture_seconds)
    note = f"{clip.sound_seconds:.2f} s of sound, {clip.picture_seconds:.2f} s of pictures"
    limit = limits.sound_length_ms
    title = "sound longer than pictures"
    return Found(Measure("sound_length", title, value, "ms", "within", limit, note))


def _seam(clip: ClipFigures, limits: QualityThresholds) -> Found:
    every = clip.frames["seam"]
    has_edge = np.isfinite(every)
    if not has_edge.any():
        note = "the prediction fills the picture: there is no edge"
        return Found(Measure("seam", "seam", None, "x", note=note))
    step, recorded = every[has_edge], clip.frames["recorded_seam"][has_edge]
    value = step.mean() / max(recorded.mean(), 1e-3)
    note = f"a step of {step.mean():.1f} of 255, recorded {recorded.mean():.1f}"
    measure = Measure("seam", "seam", float(value), "x", "at most", limits.seam, note)
    ratio = np.ones_like(every)
    ratio[has_edge] = step / np.maximum(recorded, 1e-3)
    track = _track(clip, "seam", "step across the edge by the recording's", ratio, limits.seam)
    return Found(measure, ratio, (track,), ratio)


def _jitter(clip: ClipFigures, limits: QualityThresholds) -> Found:
    """Second differences of centre and width, root mean square; not where the order turns."""
    boxes = np.array([[b.x1 + b.x2, b.y1 + b.y2, 2 * b.width] for b in clip.boxes]) / 2
    title = "jitter of the face box"
    if len(boxes) < 3:
        return Found(Measure("jitter", title, None, "%", note="fewer than three boxes"))
    seconds = np.diff(boxes, 2, axis=0)
    width = boxes[:, 2].mean()
    sizes = np.pad(np.sqrt((seconds**2).mean(axis=1)), 1)
    # Where the recording turns back, its way bends by twice its speed: that is no jitter.
    turns = np.pad(np.all(boxes[:-2] == boxes[2:], axis=1), 1)
    sizes[turns] = 0
    kept = sizes[1:-1][~turns[1:-1]]
    pixels = float(np.sqrt((kept**2).mean())) if kept.size else 0.0
    note = f"{pixels:.2f} px of {width:.0f}, second difference"
    value = float(100 * pixels / width)
    measure = Measure("jitter", title, value, "%", "at most", limits.jitter, note)
    percent = 100 * sizes / width
    track = _track(clip, "jitter", "second difference, %", percent, limits.jitter)
    return Found(measure, percent, (track,), percent)


def _flicker(clip: ClipFigures, limits: QualityThresholds) -> Found:
    changes = np.diff(clip.frames["skin"], axis=0, prepend=clip.frames["skin"][:1])
    sizes = np.sqrt((changes**2).mean(axis=1))
    value = float(np.sqrt((sizes**2).mean()))
    note = "painted skin from frame to frame, of 255"
    measure = Measure("flicker", "flicker", value, "levels", "at most", limits.flicker, note)
    track = _track(clip, "flicker", "change of the painted skin, levels", sizes, limits.flicker)
    return Found(measure, sizes, (track,), sizes)


def _silence(clip: ClipFigures, limits: QualityThresholds) -> Found:
    title = "mouth moves in silence"
    motion = np.abs(np.diff(clip.frames["opening"], prepend=clip.frames["opening"][0]))
    if not len(clip.levels):
        return Found(Measure("silence_motion", title, None, "x", note="no sound"))
    quiet, spoken = pauses(clip.loud, clip.frame_seconds), clip.loud > SPEECH_DB
    seconds = quiet.sum() * clip.frame_seconds
    if seconds < _LEAST_PAUSE_SECONDS or not motion[spoken].any():
        note = "no pause of any length" if spoken.any() else "no speech"
        return Found(Measure("silence_motion", title, None, "x", note=note))
    value = float(motion[quiet].mean() / motion[spoken].mean())
    note = f"by its motion in speech, in {seconds:.1f} s of pauses"
    limit = limits.silence_motion
    measure = Measure("silence_motion", title, value, "x", "at most", limit, note)
    shown = np.where(quiet, motion, 0) / motion[spoken].mean()
    track = _track(clip, "silence_motion", "motion in pauses by that in speech", shown, limit)
    return Found(measure, shown, (track,), shown)


def _sharpness(clip: ClipFigures, limits: QualityThresholds) -> Found:
    """Root of the detail's ratio, by what the encoder left of it outside the face."""
    around = clip.frames["around"].mean() / max(clip.frames["recorded_around"].mean(), 1e-6)
    encoder = around if around > 0 else 1.0
    detail, recorded = clip.frames["detail"], clip.frames["recorded_detail"]
    value = float(np.sqrt(detail.mean() / max(recorded.mean(), 1e-6) / encoder))
    each = np.sqrt(detail / np.maximum(recorded, 1e-6) / encoder)
    note = f"by the recording's; beside the face {np.sqrt(around):.2f}"
    limit = limits.sharpness
    measure = Measure("sharpness", "sharpness of the mouth", value, "x", "at least", limit, note)
    track = _track(clip, "sharpness", "detail of the mouth by the recording's", each, limit)
    return Found(measure, 1 / np.maximum(each, 1e-3), (track,), each)


def _frozen(clip: ClipFigures, limits: QualityThresholds) -> Found:
    change, recorded = clip.frames["change"], clip.frames["recorded_change"]
    share = np.minimum(change / np.maximum(recorded, _MOVES), 2)
    frozen = (share < _STILL) & (recorded > _MOVES)
    frozen[0], share[0] = False, 1.0
    count, limit = float(frozen.sum()), limits.frozen_frames
    measure = Measure("frozen_frames", "frozen frames", count, "frames", "at most", limit)
    title = "change to the frame before by the recording's"
    return Found(measure, frozen.astype(float), (_track(clip, "frozen_frames", title, share),))


def _black(clip: ClipFigures, limits: QualityThresholds) -> Found:
    black = _is_black(clip)
    count, limit = float(black.sum()), limits.black_frames
    measure = Measure("black_frames", "black frames", count, "frames", "at most", limit)
    return Found(measure, black.astype(float))


def _track(
    clip: ClipFigures, name: str, title: str, values: DoubleArray, limit: float | None = None
) -> Track:
    """A line over the clip, of not too many values."""
    return Track(name, title, clip.picture_seconds, drawn_values(values), limit=limit)


def drawn_values(values: DoubleArray) -> tuple[float, ...]:
    """The values of a `Track`: the largest of each of not too many pieces."""
    return tuple(float(piece.max()) for piece in _pieces(values))


def _pieces(values: DoubleArray) -> Iterator[DoubleArray]:
    edges = np.linspace(0, len(values), min(len(values), MOST_VALUES) + 1).astype(int)
    return (values[a:b] for a, b in itertools.pairwise(edges))


def worst_frames(scores: DoubleArray, count: int, apart: int) -> list[int]:
    """The frames of the highest scores above 0, the worst first, none near another.

    Args:
        apart: frames between two of them at least.
    """
    left = scores.astype(float)
    found: list[int] = []
    while len(found) < count and left.max(initial=0) > 0:
        worst = int(left.argmax())
        found.append(worst)
        left[max(0, worst - apart) : worst + apart + 1] = 0
    return found
