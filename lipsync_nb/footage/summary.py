"""What was found in footage, in words, before an avatar is made of it."""

from __future__ import annotations

import numpy as np

from .box_paths import BoxPaths
from .preparation import Jitter, numbers_text
from .shots import shots_of
from .smoothing import bridged, jitter_px, smoothed


def words_of(
    found: BoxPaths, cuts: tuple[int, ...], fps: float, smoothing_seconds: float
) -> list[str]:
    """A sentence each: where the boxes come from, how they tremble, where no face is, the cuts.

    Args:
        found: boxes as they were found.
        cuts: frames that begin another shot.
        fps: frames a second.
        smoothing_seconds: standard deviation of the weights by which they will be smoothed.
    """
    known = np.asarray(np.isfinite(found.boxes).all(axis=1))
    if not known.any():
        return [f"Boxes by {found.origin}: found no face in any frame."]
    widths = (found.boxes[:, 2] - found.boxes[:, 0])[known]
    low, high = round(float(widths.min())), round(float(widths.max()))
    size = f"{low}" if low == high else f"{low} to {high}"
    shots = shots_of(len(known), cuts)
    whole = smoothed(bridged(found.boxes, shots), shots, smoothing_seconds * fps)
    jitter = jitter_px(found.boxes, shots), jitter_px(whole, shots)
    return [
        f"Boxes by {found.origin}, {size} px wide, in {known.sum()} of {len(known)} frames.",
        _jitter_text(*jitter),
        _missing_text(found.missing),
        _cuts_text(cuts),
    ]


def _jitter_text(before: float, after: float) -> str:
    return f"They tremble by {before:.2f} px as found, by {after:.2f} px once smoothed."


def _missing_text(missing: tuple[int, ...]) -> str:
    if not missing:
        return "Every frame shows the face."
    return f"No face in {numbers_text(missing)}: draw it there, or choose what becomes of them."


def _cuts_text(cuts: tuple[int, ...]) -> str:
    if not cuts:
        return "There is no scene cut."
    return f"Scene cuts at {numbers_text(cuts)}: an avatar is best one shot."


def written_words(
    jitter: Jitter, missing: tuple[int, ...], unpainted: tuple[int, ...], cuts: tuple[int, ...]
) -> list[str]:
    """The same of an avatar that was made."""
    lost = "Every frame shows the face."
    if missing:
        what = "stay as they were recorded" if unpainted else "have a box between their neighbours'"
        lost = f"Without a face, {numbers_text(missing)} {what}."
    return [_jitter_text(jitter.found, jitter.smoothed), lost, _cuts_text(cuts)]
