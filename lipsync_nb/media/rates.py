"""Frame rates as exact fractions: as they are asked for, and as a video's time stamps tell them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from statistics import median_low

from lipsync_nb.errors import ConfigError
from lipsync_nb.types.records import shown

DEFAULT_RATE = Fraction(25)
SLOWEST_RATE, FASTEST_RATE = Fraction(1), Fraction(240)
# Slower recordings are slides: they are taken at the default rate.
_SLOWEST_RECORDING = 10
_LARGEST_TERM = 1_000_000
_LONGEST_TEXT, _LARGE_POWER = 100, re.compile(r"e[+-]?[\d_]{3}", re.IGNORECASE)
# NTSC's rates have names of two or three digits: 29.97 is 30000/1001.
_NTSC = tuple(Fraction(1000 * rate, 1001) for rate in (15, 24, 30, 48, 60, 120))
_NAMED_WITHIN = Fraction(1, 200)
# Parts of a rate. Few stamps tell the mean badly, so that rates not very near are tried too.
_NEAR, _THE_SAME = Fraction(1, 10), Fraction(1, 200)
_LITTLE_OF_A_FRAME = Fraction(1, 4)
COMMON_RATES = (
    *(Fraction(rate) for rate in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)),
    *_NTSC,
)

Rate = Fraction | int | float | str


def rate_of(value: Rate, name: str = "fps") -> Fraction:
    """A frame rate as it is asked for, exactly.

    Args:
        value: ``25``, ``"30000/1001"``, or ``29.97``, which stands for the former.
        name: for messages.

    Raises:
        ConfigError: it is no number, or not within 1 to 240.

    Example:
        >>> rate_of(23.976), rate_of("30000/1001"), rate_of(12.5)
        (Fraction(24000, 1001), Fraction(30000, 1001), Fraction(25, 2))
    """
    expected = "expected frames a second from 1 to 240, as 25, 29.97 or '30000/1001'"
    try:
        if isinstance(value, bool) or not isinstance(value, Fraction | int | float | str):
            raise ValueError(f"a {type(value).__name__}")
        text = str(value) if isinstance(value, float | str) else ""
        # A fraction writes a power of ten out, whatever it takes.
        if len(text) > _LONGEST_TEXT or _LARGE_POWER.search(text):
            raise ValueError("a number of very many digits")
        rate = Fraction(text or value)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise ConfigError(f"{name}: found {shown(value)}, {expected}.") from error
    is_decimal = isinstance(value, float) or (isinstance(value, str) and "/" not in value)
    if is_decimal and rate.denominator != 1:
        rate = next((n for n in _NTSC if abs(n - rate) < _NAMED_WITHIN), rate)
    if not SLOWEST_RATE <= rate <= FASTEST_RATE or not _is_short(rate):
        raise ConfigError(f"{name}: found {shown(value)}, {expected}.")
    return rate


def _is_short(rate: Fraction) -> bool:
    """Whether ffmpeg's pairs of 32 bits hold it, with room for a time base."""
    return max(rate.numerator, rate.denominator) <= _LARGEST_TERM


def rate_text(rate: Fraction) -> str:
    """A rate as one says it: ``25``, ``29.97``."""
    return f"{float(rate):.5g}"


def recorded_rate(times: Sequence[int], time_base: Fraction) -> tuple[Fraction, bool]:
    """The rate of a recording by its time stamps, and whether it is constant.

    A constant rate is told exactly where it is a common one, though stamps be rounded to the
    time base. A variable one is the common rate nearest to that of the median frame; or to the
    mean, where stamps are uneven about a common rate and no frames are missing.

    Args:
        times: strictly increasing, in units of ``time_base`` seconds.

    Example:
        >>> recorded_rate([0, 33, 67, 100, 133, 167], Fraction(1, 1000))
        (Fraction(30, 1), True)
    """
    if len(times) < 2:
        return DEFAULT_RATE, True
    steps = [b - a for a, b in pairwise(times)]
    middle = 1 / (median_low(steps) * time_base)
    is_even = min(steps) == max(steps)
    if is_even and middle in COMMON_RATES:
        return middle, True
    mean = (len(times) - 1) / ((times[-1] - times[0]) * time_base)
    fitting = _fitting_rate(times, time_base, mean)
    if fitting is not None:
        return fitting, True
    if is_even and _SLOWEST_RECORDING <= middle <= FASTEST_RATE and _is_short(middle):
        return middle, True
    if middle < _SLOWEST_RECORDING:
        return DEFAULT_RATE, is_even
    nearest = _nearest(mean)
    is_whole = abs(mean - middle) < _NEAR * mean and abs(nearest - mean) < _THE_SAME * mean
    is_whole = is_whole and abs(_nearest(middle) - middle) >= _THE_SAME * middle
    return nearest if is_whole else _nearest(middle), False


def _nearest(rate: Fraction) -> Fraction:
    """The common rate that is the fewest times faster or slower."""
    return min(COMMON_RATES, key=lambda common: max(common / rate, rate / common))


def _fitting_rate(times: Sequence[int], time_base: Fraction, mean: Fraction) -> Fraction | None:
    """The common rate that all stamps are within a tick of, where that is little of a frame."""
    near = [rate for rate in COMMON_RATES if abs(rate - mean) < mean * _NEAR]
    errors = [(_largest_error(times, rate * time_base), rate) for rate in near]
    off, best = min(errors, default=(Fraction(2), DEFAULT_RATE))
    return best if off <= 1 and off * time_base * best <= _LITTLE_OF_A_FRAME else None


def _largest_error(times: Sequence[int], frames_a_tick: Fraction) -> Fraction:
    """How far a stamp is from where a steady rate has it, in ticks."""
    up, down, first = frames_a_tick.numerator, frames_a_tick.denominator, times[0]
    return Fraction(max(abs((t - first) * up - i * down) for i, t in enumerate(times)), up)
