"""A picture to check boxes by: frames from all of a clip with their boxes, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from lipsync_nb.media.imaging import outlined, resize, shrunk
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Box

_COLUMNS, _WIDTH, _GAP = 4, 300, 4
_GREEN, _RED = (80, 220, 80), (60, 60, 230)


def chosen_frames(count: int, missing: Sequence[int] = (), most: int = 12) -> list[int]:
    """Frames from the first to the last, evenly spread, and some of those without a face."""
    even = {round(place) for place in np.linspace(0, count - 1, min(most, count))}
    lost = {missing[i] for i in range(0, len(missing), max(1, -(-len(missing) // _COLUMNS)))}
    return sorted(even | lost)


def filmstrip(
    read: Callable[[int], ImageArray], boxes: Mapping[int, Box], missing: Sequence[int] = ()
) -> ImageArray:
    """Frames around the face with their boxes and numbers, four in a row, uint8 ``[h, w, 3]`` BGR.

    Args:
        read: gives a frame, uint8 ``[H, W, 3]`` BGR.
        boxes: by frame, one or more.
        missing: frames without a face of their own: their boxes are red.
    """
    size = max(box.width for box in boxes.values())
    lost = set(missing)
    tiles = [
        _tile(read(i), box, size, i, _RED if i in lost else _GREEN) for i, box in boxes.items()
    ]
    height = max(tile.shape[0] for tile in tiles)
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    width = max(tile.shape[1] for tile in tiles)
    sheet = np.full((rows * (height + _GAP), columns * (width + _GAP), 3), 255, np.uint8)
    for place, tile in enumerate(tiles):
        y, x = (place // columns) * (height + _GAP), (place % columns) * (width + _GAP)
        sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return sheet[: -_GAP or None, : -_GAP or None]


def _tile(
    image: ImageArray, box: Box, size: int, number: int, colour: tuple[int, int, int]
) -> ImageArray:
    """The box with its surroundings, twice its size as far as the picture goes."""
    height, width = image.shape[:2]
    side = min(2 * size, height, width)
    x = int(np.clip((box.x1 + box.x2) // 2 - side // 2, 0, width - side))
    y = int(np.clip((box.y1 + box.y2) // 2 - side * 5 // 8, 0, height - side))
    shown = outlined(image, box.corners, colour, round(_WIDTH * width / side))
    tile = shown[y : y + side, x : x + side]
    tile = shrunk(tile, _WIDTH) if side > _WIDTH else resize(tile, _WIDTH, _WIDTH, "linear")
    tile = np.ascontiguousarray(tile)
    for thickness, ink in ((4, (0, 0, 0)), (1, (255, 255, 255))):
        place = (8, 24)
        cv2.putText(tile, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, ink, thickness)
    return tile
