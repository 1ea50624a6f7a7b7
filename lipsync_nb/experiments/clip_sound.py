"""The sound of a clip: how loud speech is over time, and how far the mouth is from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lipsync_nb.types.arrays import FloatArray
from lipsync_nb.types.records import SAMPLE_RATE

DoubleArray = npt.NDArray[np.float64]

LOUDNESS_RATE = 100
_HOP, _WINDOW, _FFT = SAMPLE_RATE // LOUDNESS_RATE, 400, 512
# Where vowels have their energy, which is when mouths are open; hum and hiss lie outside.
_BAND_HZ = (300.0, 3000.0)
_FLOOR_DB = -40.0
# Slower changes than these are posture and loudness of whole sentences.
_TREND_SECONDS = 1.0
MOST_LAG_SECONDS = 0.6
_LAG_STEP_SECONDS = 1 / LOUDNESS_RATE
# Confidence that noise reaches once in twenty times, by the square root of the frames: measured
# with mouths of one speech and the sound of another, of 50 to 200 frames (0.67 to 0.34).
_CHANCE = 4.8
_PAUSE_DB, SPEECH_DB = -30.0, -15.0
# Lips move before a sound is heard and after it.
_PAUSE_MARGIN_SECONDS = 0.12


@dataclass(frozen=True)
class Sync:
    """How far sound and mouth are apart.

    Attributes:
        offset_seconds: how much later than the mouth the sound is.
        confidence: the highest correlation over the median of all lags, as SyncNet's confidence
            is of its distances (Chung and Zisserman, "Out of time: automated lip sync in the
            wild", 2016).
        chance: confidence that noise of this length reaches once in twenty times.
        correlations: Pearson's r at each lag.
        lags: seconds.
    """

    offset_seconds: float
    confidence: float
    chance: float
    correlations: DoubleArray
    lags: DoubleArray


def loudness(blocks: Iterable[FloatArray]) -> DoubleArray:
    """Level of the voice's band in dB under the loud parts, `LOUDNESS_RATE` values a second.

    Args:
        blocks: sound in pieces, float32 ``[1, n]`` at 16 kHz each.

    Returns:
        float64 ``[n]``, -40..: value k is of the 25 ms around k / 100 s; 0 is the level that a
        twentieth of the time exceeds. Empty without sound.
    """
    levels, rest = [], np.zeros(_WINDOW // 2, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block[0]])
        count = max(0, (len(rest) - _WINDOW) // _HOP + 1)
        if count:
            levels.append(_levels(rest, count))
            rest = rest[count * _HOP :]
    last = np.concatenate([rest, np.zeros(_WINDOW // 2, np.float32)])
    count = max(0, (len(last) - _WINDOW) // _HOP + 1)
    if count:
        levels.append(_levels(last, count))
    if not levels:
        return np.zeros(0)
    decibels = np.concatenate(levels)
    return np.maximum(decibels - np.percentile(decibels, 95), _FLOOR_DB)


def _levels(samples: FloatArray, count: int) -> DoubleArray:
    """Decibels in the band of so many windows, a hop apart."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP][:count]
    spectra = np.fft.rfft(windows * np.hanning(_WINDOW), _FFT)
    low, high = (round(hertz * _FFT / SAMPLE_RATE) for hertz in _BAND_HZ)
    power = (np.abs(spectra[:, low : high + 1]) ** 2).sum(axis=1)
    return np.asarray(10 * np.log10(power + 1e-6))


def at_frames(levels: DoubleArray, times: DoubleArray, frame_seconds: float) -> DoubleArray:
    """Mean level while each frame is shown; the first or last level beyond the sound's ends.

    Args:
        times: seconds at which each frame appears.
    """
    sums = np.concatenate([[0.0], np.cumsum(levels)])
    edges = np.stack([times, times + frame_seconds]) * LOUDNESS_RATE
    places = np.arange(len(sums))
    inside = np.diff(np.interp(edges, places, sums), axis=0)[0]
    before = np.diff(np.minimum(edges, 0), axis=0)[0] * levels[0]
    after = np.diff(np.maximum(edges - len(levels), 0), axis=0)[0] * levels[-1]
    return np.asarray((inside + before + after) / (frame_seconds * LOUDNESS_RATE))


def measure_sync(opening: DoubleArray, levels: DoubleArray, times: DoubleArray) -> Sync | None:
    """The lag at which the mouth's opening follows the loudness of speech best.

    Both are taken against their mean of a second around. The lag is refined by a parabola through
    the highest correlation and its neighbours.

    Args:
        opening: of the mouth in each frame, in any unit.
        levels: from `loudness`.
        times: seconds at which each frame appears.

    Returns:
        None where the mouth or the sound never changes, or there is less than a second.
    """
    if len(times) < 2 or not len(levels) or times[-1] - times[0] < _TREND_SECONDS:
        return None
    frame_seconds = float(np.median(np.diff(times)))
    width = max(3, round(_TREND_SECONDS / frame_seconds) | 1)
    steps = round(MOST_LAG_SECONDS / _LAG_STEP_SECONDS)
    lags: DoubleArray = np.arange(-steps, steps + 1) * np.float64(_LAG_STEP_SECONDS)
    mouth = _against_trend(opening, width)
    voices = (_against_trend(at_frames(levels, times + lag, frame_seconds), width) for lag in lags)
    found = np.array([_correlation(mouth, voice) for voice in voices])
    if not found.any():
        return None
    chance = _CHANCE / np.sqrt(len(times))
    best = int(found.argmax())
    confidence = float(found[best] - np.median(found))
    offset = lags[best] + _LAG_STEP_SECONDS * _vertex(found, best)
    return Sync(float(offset), confidence, float(chance), found, lags)


def _against_trend(values: DoubleArray, width: int) -> DoubleArray:
    half = width // 2
    sums = np.cumsum(np.pad(values, (half + 1, half), mode="edge"))
    return np.asarray(values - (sums[width:] - sums[:-width]) / width)


def _correlation(one: DoubleArray, other: DoubleArray) -> float:
    one, other = one - one.mean(), other - other.mean()
    size = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / size if size > 1e-9 else 0.0


def _vertex(values: DoubleArray, best: int) -> float:
    """Where a parabola through three values is highest, -0.5..0.5 steps from the middle."""
    if not 0 < best < len(values) - 1:
        return 0.0
    before, middle, after = values[best - 1 : best + 2]
    bend = before - 2 * middle + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def sound_lag_seconds(clip: DoubleArray, speech: DoubleArray) -> float | None:
    """How much later a clip's sound is than the speech, from the loudness of both; None: silent."""
    # Of a clip that ends before the speech, what comes later is none of it.
    speech = speech[: len(clip)]
    steps = LOUDNESS_RATE * 2
    if len(speech) < LOUDNESS_RATE or not np.ptp(clip) or not np.ptp(speech):
        return None
    one, other = clip - clip.mean(), speech - speech.mean()
    size = 1 << (len(one) + len(other)).bit_length()
    product = np.fft.irfft(np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size)), size)
    scores = np.concatenate([product[-steps:], product[: steps + 1]])
    best = int(scores.argmax())
    return (best - steps + _vertex(scores, best)) / LOUDNESS_RATE


def pauses(loud: DoubleArray, frame_seconds: float) -> npt.NDArray[np.bool_]:
    """Frames well within a pause: quiet, and so are those around them.

    Args:
        loud: level at each frame in dB, from `at_frames`.
    """
    quiet = loud < _PAUSE_DB
    margin = round(_PAUSE_MARGIN_SECONDS / frame_seconds)
    width = 2 * margin + 1
    sums = np.cumsum(np.pad(quiet.astype(int), (margin + 1, margin), mode="edge"))
    return np.asarray(sums[width:] - sums[:-width] == width)
