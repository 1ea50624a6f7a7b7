"""Predictions, joined into the windows that are composited at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from lipsync_nb.types.patches import FinishedPatches
from lipsync_nb.types.records import Predictions

FIRST_WINDOW = 4


def gather(predictions: Iterable[Predictions], size: int) -> Iterator[Predictions]:
    """Join predictions into windows of at least ``size`` frames; the last may be smaller.

    The first windows are smaller too, so that the receiver gets to work early.
    """
    waiting: list[Predictions] = []
    wanted = min(size, FIRST_WINDOW)
    for prediction in predictions:
        waiting.append(prediction)
        if sum(len(p) for p in waiting) >= wanted:
            yield _join(waiting)
            waiting = []
            wanted = min(size, 2 * wanted)
    if waiting:
        yield _join(waiting)


def _join(parts: list[Predictions]) -> Predictions:
    """One window of several batches; patches, whose memory is used again, are copied."""
    first = parts[0]
    if len(parts) == 1:
        return first
    joined = Predictions(
        np.concatenate([p.frame_indices for p in parts]),
        np.concatenate([p.template_indices for p in parts]),
        np.concatenate([p.images for p in parts]),
    )
    if not isinstance(first, FinishedPatches):
        return joined
    for part in parts:
        if isinstance(part, FinishedPatches):
            part.release()
    return FinishedPatches(**vars(joined), layout=first.layout, release=lambda: None)
