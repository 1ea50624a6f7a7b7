"""A prediction's colours, moved to those of the recording around its masked part."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from lipsync_nb.media.imaging import multiplied, resize
from lipsync_nb.types.arrays import FLOAT32, FloatArray, ImageArray
from lipsync_nb.types.records import ModelSpec

# Colours are compared in so many cells across the network's picture, and down.
CELLS = 16
LARGEST_GAIN = 1.25
# Keeps logarithms of dark levels finite. Other content, a jaw that moved, is no other colour.
_DARK, _CONTENT, _ROUNDS = 8.0, 0.05, 4
# What holds the gain's slope across the picture back, in cells.
_STIFFNESS = 4.0

DoubleArray = npt.NDArray[np.float64]


def matched(prediction: ImageArray, face: ImageArray, spec: ModelSpec) -> ImageArray:
    """A prediction whose colours are moved to those of the recording around its masked part.

    What comes of it depends on this frame alone: frames may be made in any order.

    Args:
        prediction: uint8 ``[s, s, 3]`` BGR.
        face: the recording in the face box, uint8 ``[h, w, 3]`` BGR.

    Returns:
        uint8 ``[s, s, 3]`` BGR, each value by its gain of `gain_field`.
    """
    # Of a family of other colours it may be a view from the last channel to the first.
    prediction = np.ascontiguousarray(prediction)
    return multiplied(prediction, gain_field(prediction, face, spec))


def gain_field(prediction: ImageArray, face: ImageArray, spec: ModelSpec) -> FloatArray:
    """Gains that take a prediction to the recording's colours, float32 ``[CELLS, CELLS, 3]``.

    In the cells of `known_cells` the logarithm of recording by prediction is fitted by a plane in
    each channel, by iterated least squares with Cauchy's weights (P. J. Huber, Robust Statistics,
    1981, chapter 7), so that cells whose content differs count little. A cell also counts by the
    square of its level: what is left are differences in levels, and dark hair says little of skin.
    No gain is above `LARGEST_GAIN`, or below its inverse.
    """
    recorded = resize(inner_face(face, spec), CELLS, CELLS, "area").astype(np.float64)
    predicted = resize(prediction, CELLS, CELLS, "area").astype(np.float64)
    ratios = np.log((recorded + _DARK) / (predicted + _DARK))
    known = known_cells(spec)
    terms = _terms()
    planes = _fitted(ratios[known], terms[known], predicted[known] ** 2)
    limit = math.log(LARGEST_GAIN)
    return np.asarray(np.exp(np.clip(terms @ planes, -limit, limit)), FLOAT32)


def inner_face(face: ImageArray, spec: ModelSpec) -> ImageArray:
    """What the network's picture covers of a recording's face box, a view."""
    height, width = face.shape[:2]
    down, across = (round(size * spec.margin / spec.crop_size) for size in (height, width))
    if height <= 2 * down or width <= 2 * across:
        return face
    return face[down : height - down, across : width - across]


@cache
def known_cells(spec: ModelSpec) -> npt.NDArray[np.bool_]:
    """Cells in which recording and prediction ought to be alike, bool ``[CELLS, CELLS]``.

    Those that the mask does not cover, and the outermost: a mouth does not reach them.
    """
    edges = np.arange(CELLS + 1) * spec.input_size / CELLS
    inside = [
        (edges[:-1] >= part.start) & (edges[1:] <= part.stop)
        for part in (spec.mask_rows, spec.mask_columns)
    ]
    for cells in inside:
        cells[[0, -1]] = False
    return np.asarray(~np.logical_and.outer(*inside))


@cache
def _terms() -> DoubleArray:
    """Of a plane: 1, x and y of each cell, -1..1, float64 ``[CELLS, CELLS, 3]``."""
    place = (np.arange(CELLS) + 0.5) * 2 / CELLS - 1
    down, across = np.meshgrid(place, place, indexing="ij")
    return np.stack([np.ones_like(across), across, down], axis=-1)


def _fitted(values: DoubleArray, terms: DoubleArray, counts: DoubleArray) -> DoubleArray:
    """Planes through values ``[n, 3]`` at terms ``[n, 3]``: float64 ``[terms, channels]``.

    Args:
        counts: what each value counts for, ``[n, 3]``.
    """
    held = np.diag([0, _STIFFNESS, _STIFFNESS])
    planes = []
    for channel, count in zip(values.T, counts.T, strict=True):
        own = count / max(float(count.mean()), 1e-9) + 1e-6
        weights = own
        for _ in range(_ROUNDS):
            weighted = terms.T * weights
            plane = np.linalg.solve(weighted @ terms + held, weighted @ channel)
            weights = own / (1 + ((channel - terms @ plane) / _CONTENT) ** 2)
        planes.append(plane)
    return np.stack(planes, axis=1)
