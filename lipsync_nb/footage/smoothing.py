"""Paths of boxes over time: gaps bridged, jitter measured and smoothed without lag, rounded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
# Beyond so many standard deviations a neighbour does not count.
_REACH = 3
# A rounded value stays until the true one is farther away than this.
_STAYS_WITHIN = 0.75
# In widths of the box, in frames before and after, and against what is usual among these.
_JUMP, _JUMP_AROUND, _JUMP_OVER = 1 / 6, 8, 6.0


def jitter_px(paths: Values, shots: Sequence[range]) -> float:
    """Jitter of paths: root mean square of their second differences, in pixels.

    Steady motion has none. Where a shot ends, none is counted.

    Args:
        paths: float64 ``[n, c]``; rows of NaN are left out.

    Example:
        >>> round(jitter_px(np.array([[0.0], [1], [0], [1], [0]]), [range(5)]), 3)
        2.0
    """
    parts = [np.diff(paths[shot.start : shot.stop], 2, axis=0) for shot in shots]
    seconds = np.concatenate(parts) if parts else np.zeros((0, 1))
    seconds = seconds[np.isfinite(seconds)]
    return float(np.sqrt(np.mean(seconds**2))) if seconds.size else 0.0


def jumps(paths: Values) -> tuple[int, ...]:
    """Frames at which boxes jump, as where a part of a shot was cut out.

    By over a sixth of the box's width at once, and six times as far as usual around there.

    Args:
        paths: float64 ``[n, 4]``: x1, y1, x2, y2; rows of NaN are left out.
    """
    known = np.flatnonzero(np.isfinite(paths).all(axis=1))
    if len(known) < 3:
        return ()
    there = paths[known]
    middles = (there[:, :2] + there[:, 2:]) / 2
    ways = np.hypot(*np.diff(middles, axis=0).T)
    widths = there[1:, 2] - there[1:, 0]
    found = []
    for place in np.flatnonzero((ways > _JUMP * widths) & (np.diff(known) == 1)):
        around = ways[max(0, place - _JUMP_AROUND) : place + _JUMP_AROUND + 1]
        if ways[place] > _JUMP_OVER * np.median(around):
            found.append(int(known[place + 1]))
    return tuple(found)


def bridged(paths: Values, shots: Sequence[range]) -> Values:
    """Rows of NaN filled: straight between their neighbours of the same shot, else the nearest.

    Args:
        paths: float64 ``[n, c]``, a row or more of them known.
    """
    every = np.flatnonzero(np.isfinite(paths).all(axis=1))
    filled = paths.copy()
    for shot in shots:
        places = np.arange(shot.start, shot.stop)
        there = every[(every >= shot.start) & (every < shot.stop)]
        if there.size:
            for column in range(paths.shape[1]):
                filled[places, column] = np.interp(places, there, paths[there, column])
        else:
            filled[places] = paths[every[_nearest(every, places)]]
    return filled


def _nearest(known: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The index of the known number that is nearest to each place; the lower of two."""
    after = np.searchsorted(known, places).clip(1, max(1, len(known) - 1))
    before = after - 1
    after = after.clip(max=len(known) - 1)
    return np.where(known[after] - places < places - known[before], after, before)


def smoothed(paths: Values, shots: Sequence[range], sigma_frames: float) -> Values:
    """Paths smoothed by parabolas fitted around each frame, alike before and after it.

    A local regression (Savitzky and Golay, Anal. Chem. 36, 1964) under Gaussian weights: it has no
    lag, steady and evenly accelerated motion stay as they are, also at a shot's ends.

    Args:
        paths: float64 ``[n, c]``, finite.
        sigma_frames: standard deviation of the weights; up to a third of a frame leaves all as it
            is.
    """
    if _REACH * sigma_frames <= 1:
        # Neighbours count for nearly nothing, and none beyond them: no parabola is to be had.
        return paths.copy()
    parts = [_fitted(paths[shot.start : shot.stop], sigma_frames) for shot in shots]
    return np.concatenate(parts)


def _fitted(path: Values, sigma: float) -> Values:
    count = len(path)
    reach = int(np.ceil(_REACH * sigma))
    if count < 4:
        return path.copy()
    offsets = np.arange(-reach, reach + 1, dtype=np.float64)
    powers = offsets[:, None] ** np.arange(3)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    # Sums over the window of w, and of w x, for each frame; what is outside weighs nothing.
    inside = np.pad(np.ones(count), reach)
    values = np.pad(path, ((reach, reach), (0, 0)))
    moments = np.stack([weights * powers[:, i % 3] * powers[:, i // 3] for i in range(9)])
    left = np.stack([np.correlate(inside, m, "valid") for m in moments], axis=1).reshape(-1, 3, 3)
    right = np.stack(
        [
            np.stack([np.correlate(column, weights * p, "valid") for column in values.T], axis=1)
            for p in powers.T
        ],
        axis=1,
    )
    return np.asarray(np.linalg.solve(left, right)[:, 0], np.float64)


def rounded(paths: Values, shots: Sequence[range]) -> npt.NDArray[np.int64]:
    """Whole pixels; a value stays as it was until the true one is over 0.75 px away from it.

    So a head that is still has a still box, where rounding alone would change with each breath.
    """
    result = np.rint(paths).astype(np.int64)
    for shot in shots:
        for i in range(shot.start + 1, shot.stop):
            stays = np.abs(paths[i] - result[i - 1]) <= _STAYS_WITHIN
            result[i, stays] = result[i - 1, stays]
    return result
