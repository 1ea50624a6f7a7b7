"""Which points of a face make its box, in each known layout of landmarks."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
NUM_LANDMARKS = 110

# Left side, right side, upper side: the means of these points' x, x and y.
# Its sides lie as high as the published ones, just below the eyes: lower points have the same x on
# an upright head, and shift the box of a tilted one.
_MESH = ((127, 234), (356, 454), (195,))
LAYOUTS: dict[int, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    # The published script's own, as `box_from_landmarks` takes them.
    NUM_LANDMARKS: ((1,), (31,), (52,)),
    # iBUG's, of dlib and face_alignment: half as many points on the contour.
    68: ((0, 1), (15, 16), (29,)),
    468: _MESH,
    478: _MESH,
}


BoxRule = Literal["square", "outline"]
# The published script of Wav2Lip widens a detected face below, by so many pixels.
_BELOW = 10


def boxes_of_points(points: Values, rule: BoxRule = "square") -> Values:
    """Face boxes of landmarks.

    Args:
        points: float64 ``[n, k, 2]``, k one of ``LAYOUTS``.
        rule: ``square``, SyncTalk_2D's: from side to side, down from the nose's bridge;
            ``outline``: round all points, as face detectors have it, and 10 pixels more below,
            for Wav2Lip.

    Returns:
        float64 ``[n, 4]``: x1, y1, x2, y2.
    """
    if rule == "outline":
        low, high = points.min(axis=1), points.max(axis=1)
        return np.concatenate([low, high + np.array([0, _BELOW])], axis=1)
    left, right, top = (list(chosen) for chosen in LAYOUTS[points.shape[1]])
    x1, x2 = points[:, left, 0].mean(axis=1), points[:, right, 0].mean(axis=1)
    y1 = points[:, top, 1].mean(axis=1)
    return np.stack([x1, y1, x2, y1 + x2 - x1], axis=1)
