"""Which recorded frame is on screen at each tick of another rate."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from lipsync_nb.errors import AvatarError

_MOST_SLOTS, _LARGEST_NUMBER = 10_000_000, 2**62


def frames_on_screen(times: Sequence[int], time_base: Fraction, fps: Fraction | int) -> list[int]:
    """Recorded frame of every slot of 1 / ``fps`` seconds, counted from the first frame.

    Slot k takes the last frame that is shown before the slot's middle, (k + 1/2) / fps: the rule
    of ffmpeg's ``fps`` filter. So a recording at ``fps`` keeps each of its frames, though its
    stamps be up to half a slot early or late. The last frame lasts as long as the median one.

    Args:
        times: strictly increasing, in units of ``time_base`` seconds.

    Raises:
        AvatarError: the times span more than ten million slots, or their unit is too small.

    Example:
        >>> frames_on_screen([0, 1, 2, 3, 4, 5], Fraction(1, 30), 25)
        [0, 1, 2, 4, 5]
    """
    if len(times) < 2:
        return list(range(len(times)))
    span = times[-1] - times[0] + int(np.median(np.diff(times)))
    half_slots = Fraction(2 * fps * time_base)
    count = max(1, int(span * half_slots + 1) // 2)
    if count > _MOST_SLOTS:
        raise AvatarError(f"its time stamps span {float(span * time_base) / 3600:.0f} hours.")
    if 2 * (count + 1) * half_slots.denominator > _LARGEST_NUMBER:
        raise AvatarError(f"its time stamps count {1 / time_base} a second, expected fewer.")
    ticks = [(time - times[0]) * half_slots.numerator for time in times]
    middles = (2 * np.arange(count, dtype=np.int64) + 1) * half_slots.denominator
    chosen = np.searchsorted(np.array(ticks, np.int64), middles, side="left") - 1
    return [int(frame) for frame in chosen]


def mean_rate(times: Sequence[int], time_base: Fraction) -> float:
    """Frames a second between the first and the last time."""
    return float((len(times) - 1) / ((times[-1] - times[0]) * time_base))
