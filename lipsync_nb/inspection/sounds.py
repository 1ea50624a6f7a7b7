"""A speech: its level, clipping, noise, pauses and format, whatever its language."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from lipsync_nb.media.sound import Decoded
from lipsync_nb.types.arrays import FloatArray
from lipsync_nb.types.records import SAMPLE_RATE, Speech

from .findings import Fact, Finding, Part, SoundPicture

FRAME_SECONDS = 0.02
# What the limits were measured on: the demo's mouth on its clip "hello" (-19 dBFS, 59 dB over the
# noise), changed so, against the mouth as it is; in levels of 255. A frame late makes 2.2, any
# order of frames 8.9. Level: -36 dBFS 0.6, -50 dBFS 1.3, -59 dBFS 3.1.
QUIET_HINT, QUIET_PROBLEM = -40.0, -55.0
# Share of the native samples that stand at full scale beside one that does. Measured as above:
# 0.2 % 0.4, 3.8 % 0.8, 14 % 1.5, 33 % 2.1; it is heard before it is seen.
CLIPPED_HINT, CLIPPED_PROBLEM = 1e-4, 1e-2
CLIPPING_LEVEL = 0.985
# Decibels of the speech over white noise. Measured as above: 30 dB 0.4, 20 dB 0.6, 15 dB 0.7, 10 dB
# 1.1, 5 dB 1.3, 0 dB 1.8.
SNR_HINT, SNR_PROBLEM = 15.0, 5.0
NOISE_FLOOR = -90.0
SHORTEST_PAUSE_SECONDS = 0.3
LONGEST_EDGE_SECONDS = 1.0
LOWEST_RATE = 16_000
LARGEST_OFFSET = 0.02
_COLUMNS = 600


@dataclass
class NativeSound:
    """What the file itself holds, before it is made 16 kHz mono.

    Attributes:
        rates, channels: of its blocks.
        peak: largest sample, about 0..1.
        num_samples, num_clipped: of all channels.
        clipped: stretches in seconds.
    """

    rates: set[int] = field(default_factory=set)
    channels: set[int] = field(default_factory=set)
    peak: float = 0.0
    num_samples: int = 0
    num_clipped: int = 0
    clipped: list[tuple[float, float]] = field(default_factory=list)


def look_at_speech(speech: Speech) -> tuple[Part, SoundPicture | None]:
    """What a speech is like; a picture of its waveform, where it is sound."""
    if speech.samples is None:
        return _features(speech), None
    native = _native(speech)
    levels = frame_levels(speech.samples)
    quiet, loud, threshold = _levels(levels)
    pauses = _stretches(np.asarray(levels < threshold), FRAME_SECONDS, SHORTEST_PAUSE_SECONDS)
    seconds = speech.duration_seconds
    facts = (
        Fact("speech", "length", f"{seconds:.1f} s"),
        Fact("speech", "sound", _format(native)),
        Fact("speech", "level", f"{loud:.0f} dBFS, peak {_decibel(native.peak):.1f} dBFS"),
        Fact("speech", "noise floor", _noise_text(quiet, loud)),
        Fact("speech", "pauses", _pauses_text(pauses)),
    )  # fmt: skip
    findings = [
        _level(loud), _clipping(native), _noise(quiet, loud), _edges(pauses, seconds),
        *_rate(native), *_offset(speech.samples),
        *(Finding("speech", "hint", note.rstrip("."), "Copy or export the file anew.")
          for note in speech.notes),
    ]  # fmt: skip
    picture = SoundPicture(_peaks(speech.samples), seconds, tuple(native.clipped), tuple(pauses))
    return Part(facts, tuple(findings)), picture


def _features(speech: Speech) -> Part:
    rows = len(speech.features) if speech.features is not None else 0
    text = f"{rows} rows, {speech.duration_seconds:.1f} s"
    found = Finding("speech", "ok", "a feature track: it speaks without an audio encoder")
    return Part((Fact("speech", "features", text),), (found,))


def _native(speech: Speech) -> NativeSound:
    """The file's own samples; those of the speech where there is no file."""
    found = NativeSound()
    if speech.sound is None or speech.samples is None:
        samples = np.zeros(0, np.float32) if speech.samples is None else speech.samples
        _add(found, samples[None], SAMPLE_RATE, 0.0)
        return found
    at = 0.0
    for block in Decoded(speech.sound):
        _add(found, block.samples, block.rate, at)
        at += block.samples.shape[1] / block.rate
    return found


def _add(found: NativeSound, samples: FloatArray, rate: int, at: float) -> None:
    found.rates.add(rate)
    found.channels.add(len(samples))
    found.num_samples += samples.size
    if not samples.size:
        return
    size = np.abs(samples)
    found.peak = max(found.peak, float(size.max()))
    # A lone sample at full scale is a peak; two together are a flat top.
    high = size >= CLIPPING_LEVEL
    flat = high.copy()
    flat[:, 1:] &= high[:, :-1]
    flat[:, :-1] |= flat[:, 1:]
    found.num_clipped += int(flat.sum())
    places = _stretches(np.asarray(flat.any(axis=0)), 1 / rate, 0.0)
    found.clipped += [(at + start, at + end) for start, end in places]


def frame_levels(samples: FloatArray) -> np.ndarray:
    """Level of each 20 ms in dBFS (RMS; a full-scale square wave has 0), at least -120."""
    length = round(FRAME_SECONDS * SAMPLE_RATE)
    count = max(1, len(samples) // length)
    frames = np.resize(samples, (1, length)) if len(samples) < length else samples[: count * length]
    power = np.mean(frames.reshape(count, length).astype(np.float64) ** 2, axis=1)
    return np.asarray(10 * np.log10(np.maximum(power, 1e-12)))


def _levels(levels: np.ndarray) -> tuple[float, float, float]:
    """Level of the noise, of the speech, and what parts pauses from words, in dBFS.

    Speech is the upper quarter of the frames, noise the lowest twentieth; the threshold lies a
    third of the way up, and no lower than 35 dB below the speech.
    """
    loud = float(np.percentile(levels, 75)) if len(levels) > 3 else float(levels.max())
    quiet = float(np.percentile(levels, 5))
    loud = max(loud, float(levels.max()) - 20)
    return quiet, loud, max(loud - 35, quiet + (loud - quiet) / 3)


def _stretches(
    marks: np.ndarray, step_seconds: float, shortest: float
) -> list[tuple[float, float]]:
    """Where marks are set, as ``(start, end)`` in seconds."""
    padded = np.concatenate([[False], marks, [False]]).astype(np.int8)
    starts, ends = np.flatnonzero(np.diff(padded) == 1), np.flatnonzero(np.diff(padded) == -1)
    pairs = zip((starts * step_seconds).tolist(), (ends * step_seconds).tolist(), strict=True)
    return [(start, end) for start, end in pairs if end - start >= shortest]


def _decibel(value: float) -> float:
    # Rounded here, so that full scale is 0 and not -0.
    return round(float(20 * np.log10(max(value, 1e-6))), 1) + 0.0


def _format(native: NativeSound) -> str:
    rates = " and ".join(f"{rate / 1000:g} kHz" for rate in sorted(native.rates))
    channels = " and ".join({1: "mono", 2: "stereo"}.get(n, f"{n} channels")
                            for n in sorted(native.channels))  # fmt: skip
    return f"{rates}, {channels}"


def _pauses_text(pauses: Iterable[tuple[float, float]]) -> str:
    lengths = [end - start for start, end in pauses]
    if not lengths:
        return f"none of {SHORTEST_PAUSE_SECONDS} s or more"
    return f"{len(lengths)}, {sum(lengths):.1f} s in all, the longest {max(lengths):.1f} s"


def _level(loud: float) -> Finding:
    if loud >= QUIET_HINT:
        return Finding("speech", "ok", f"its level of {loud:.0f} dBFS is right")
    text = (
        f"it is quiet ({loud:.0f} dBFS, expected {QUIET_HINT:.0f} or more): mouths follow it less"
    )
    advice = "Raise it to about -20 dBFS, for example: ffmpeg -i IN -af loudnorm OUT.wav"
    return Finding("speech", "problem" if loud < QUIET_PROBLEM else "hint", text, advice)


def _clipping(native: NativeSound) -> Finding:
    share = native.num_clipped / max(1, native.num_samples)
    if share < CLIPPED_HINT:
        return Finding("speech", "ok", "it is not clipped")
    text = f"it is clipped: {share:.2%} of its samples stand at full scale, which is heard"
    advice = "Record with 10 dB of room to full scale: turning it down later mends nothing."
    return Finding("speech", "problem" if share > CLIPPED_PROBLEM else "hint", text, advice)


def _noise_text(quiet: float, loud: float) -> str:
    if quiet <= NOISE_FLOOR:
        return "digital silence"
    return f"{quiet:.0f} dBFS, {loud - quiet:.0f} dB below the speech"


def _noise(quiet: float, loud: float) -> Finding:
    ratio = loud - quiet
    if quiet <= NOISE_FLOOR:
        return Finding("speech", "ok", "there is no noise between its words")
    if ratio >= SNR_HINT:
        return Finding("speech", "ok", f"it stands {ratio:.0f} dB above the noise")
    text = f"it stands {ratio:.0f} dB above the quietest moments: noise, music, or no pauses"
    advice = "Record in a quiet room near the microphone, or take the noise off before."
    return Finding("speech", "problem" if ratio < SNR_PROBLEM else "hint", text, advice)


def _edges(pauses: list[tuple[float, float]], seconds: float) -> Finding:
    first = pauses[0][1] if pauses and pauses[0][0] < FRAME_SECONDS else 0.0
    last = 0.0
    if pauses and pauses[-1][1] > seconds - 2 * FRAME_SECONDS:
        last = seconds - pauses[-1][0]
    text = f"silence of {first:.1f} s before and {last:.1f} s after it"
    if max(first, last) <= LONGEST_EDGE_SECONDS:
        return Finding("speech", "ok", text)
    advice = "Cut it off, unless it is meant: the person stands there silently."
    return Finding("speech", "hint", text, advice)


def _rate(native: NativeSound) -> list[Finding]:
    lowest = min(native.rates, default=LOWEST_RATE)
    if lowest >= LOWEST_RATE:
        return []
    text = f"its {lowest / 1000:g} kHz hold nothing above {lowest / 2000:g} kHz: s and f are lost"
    return [Finding("speech", "hint", text, "Use a recording of 16 kHz or more.")]


def _offset(samples: FloatArray) -> list[Finding]:
    offset = float(samples.mean(dtype=np.float64))
    if abs(offset) <= LARGEST_OFFSET:
        return []
    text = f"its mean is {offset:+.2f}, not 0: pauses are not silent"
    return [Finding("speech", "hint", text, "Take it off: ffmpeg -i IN -af highpass=f=20 OUT.wav")]


def _peaks(samples: FloatArray) -> tuple[tuple[float, float], ...]:
    edges = np.linspace(0, len(samples), _COLUMNS + 1).astype(int)
    pieces = (samples[a:b] for a, b in itertools.pairwise(edges) if b > a)
    return tuple((float(piece.min()), float(piece.max())) for piece in pieces)
