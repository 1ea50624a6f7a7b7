"""Scene cuts: between which frames the picture becomes another one."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from lipsync_nb.types.arrays import ImageArray

_SIZE = (64, 36)
_BINS, _RECENT = 32, 12
# Of 255, of all pixels, and how much more than lately.
_LEAST_CHANGE, _LEAST_MOVED, _MORE_THAN_LATELY = 12.0, 0.2, 4.0
# The longest flash, in frames.
_FLASH = 6


class CutFinder:
    """Told the frames in order, it finds which begin a new shot.

    A cut changes the pixels of a small grey picture much more than lately, and moves more than a
    fifth of its brightness values: a head that moves does the first, a lamp's flicker neither.
    A flash or something before the lens, after which all is as it was, is no cut.

    Attributes:
        cuts: frames that begin a shot, so far.
    """

    def __init__(self) -> None:
        self._last: npt.NDArray[np.float32] | None = None
        self._before: npt.NDArray[np.float32] | None = None
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._frame = 0
        self.cuts: list[int] = []

    def begins_shot(self, image: ImageArray, count: int = 1) -> bool:
        """Whether this frame looks to be of another shot than the one before it.

        Args:
            image: uint8 ``[h, w, 3]`` BGR.
            count: it is shown for so many frames.
        """
        small = cv2.resize(image, _SIZE, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)
        before, self._last = self._last, grey
        frame, self._frame = self._frame, self._frame + count
        if before is None or not self._differs(before, grey):
            return False
        self._recent.clear()
        if self._is_back(frame, grey):
            self.cuts.pop()
        else:
            self.cuts.append(frame)
            self._before = before
        return True

    def _differs(self, before: npt.NDArray[np.float32], grey: npt.NDArray[np.float32]) -> bool:
        change = float(np.abs(grey - before).mean())
        usual = float(np.median(self._recent)) if self._recent else 0.0
        if (
            change > _LEAST_CHANGE
            and change > _MORE_THAN_LATELY * usual
            and _moved(before, grey) > _LEAST_MOVED
        ):
            return True
        self._recent.append(change)
        return False

    def _is_back(self, frame: int, grey: npt.NDArray[np.float32]) -> bool:
        """Whether the picture is again as it was before the last cut, a moment ago."""
        if not self.cuts or self._before is None or frame - self.cuts[-1] > _FLASH:
            return False
        return float(np.abs(grey - self._before).mean()) < _LEAST_CHANGE


def _moved(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """How much of the pixels' values lies elsewhere, 0..1: half the histograms' difference."""
    counts = [np.histogram(grey, _BINS, (0, 256))[0] / grey.size for grey in (one, other)]
    return float(np.abs(counts[0] - counts[1]).sum() / 2)


def shots_of(count: int, cuts: tuple[int, ...]) -> list[range]:
    """The frames of each shot.

    Example:
        >>> shots_of(5, (2,))
        [range(0, 2), range(2, 5)]
    """
    edges = [0, *cuts, count]
    return [range(start, stop) for start, stop in pairwise(edges)]
