"""What templates and features of any length cost in RAM: reckoned, and measured."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import psutil

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.cache import PlanarFrames, Template, estimate_template, patch_of
from lipsync_nb.avatar.session import SessionMemory as SessionMemory
from lipsync_nb.avatar.session import session_memory as session_memory
from lipsync_nb.errors import ConfigError
from lipsync_nb.media.imaging import bgr_to_i420
from lipsync_nb.system.limits import free_memory_bytes, give_back_memory
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Box, Pixels, shown
from lipsync_nb.types.rich import RichResult
from lipsync_nb.types.table import Column, Table

# The origin: 353 MB for 100 frames of 1280x720.
MOST_FRAMES = 10**12
ORIGIN_BYTES_PER_PIXEL = 353e6 / 100 / (1280 * 720)


@dataclass(frozen=True)
class MemoryRow:
    """A template of some length in RAM.

    Attributes:
        num_frames: of the template.
        pixels: how they are kept.
        estimate_bytes: reckoned from sizes.
        measured_bytes: what the process grew by; None where there was no room to try.
        origin_bytes: the origin's memory for as many frames of this size.
    """

    num_frames: int
    pixels: Pixels
    estimate_bytes: int
    measured_bytes: int | None
    origin_bytes: int


@dataclass(frozen=True)
class MemoryTable(RichResult):
    """Templates of several lengths, a row for each way of keeping them."""

    rows: tuple[MemoryRow, ...]

    def __str__(self) -> str:
        return str(self.table)

    @property
    def table(self) -> Table:
        """A row for each length and way of keeping frames."""

        def megabytes(size: float | None, places: int = 1) -> str:
            return "-" if size is None else f"{size / 1e6:.{places}f}"

        return Table.of(
            [
                Column("template frames", lambda row: row.num_frames),
                Column("pixels", lambda row: row.pixels, is_text=True),
                Column("estimate MB", lambda row: megabytes(row.estimate_bytes)),
                Column("measured MB", lambda row: megabytes(row.measured_bytes)),
                Column("origin MB", lambda row: megabytes(row.origin_bytes)),
                Column("MB a frame", lambda r: megabytes(r.estimate_bytes / r.num_frames, 3)),
            ],
            self.rows,
        )


def memory_table(
    avatar: Avatar, frames: Sequence[int] = (100, 500, 1000), *, measure: bool = True
) -> MemoryTable:
    """What templates of this avatar's size cost in RAM, once every frame of them was used.

    For the measurement its frames are repeated to each length; what would take more than half
    of the free memory is reckoned alone.

    Raises:
        ConfigError: no length, or one that is not within 1 and `MOST_FRAMES`.

    Example:
        >>> print(memory_table(load_avatar("demo")))
    """
    if not frames or min(frames) < 1 or max(frames) > MOST_FRAMES:
        found = shown(list(frames))
        raise ConfigError(f"frames: found {found}, expected lengths of 1 to {MOST_FRAMES}.")
    rows = [_row(avatar, n, p, measure) for n in frames for p in ("bgr", "i420")]
    return MemoryTable(tuple(row for row in rows if row is not None))


def _row(avatar: Avatar, count: int, pixels: Pixels, measure: bool) -> MemoryRow | None:
    if avatar.choose_pixels("memory", pixels)[0] != pixels:
        return None
    rounds, rest = divmod(count, len(avatar))
    estimate = rounds * _estimate(avatar, len(avatar), pixels) + _estimate(avatar, rest, pixels)
    fits = estimate < free_memory_bytes() // 2
    measured = _measured(avatar, count, pixels) if measure and fits else None
    origin = round(ORIGIN_BYTES_PER_PIXEL * avatar.width * avatar.height * count)
    return MemoryRow(count, pixels, estimate, measured, origin)


def _estimate(avatar: Avatar, count: int, pixels: Pixels) -> int:
    """Bytes of a template of the avatar's first frames."""
    boxes, size = avatar.boxes[:count], (avatar.width, avatar.height)
    return estimate_template(*size, boxes, "memory", pixels, avatar.spec).total_bytes


def _measured(avatar: Avatar, count: int, pixels: Pixels) -> int:
    """Bytes that the process grows by when a template is opened and each of its frames used."""
    boxes = list(itertools.islice(itertools.cycle(avatar.boxes), count))
    gc.collect()
    give_back_memory()
    process = psutil.Process()
    before = process.memory_info().rss
    template = _template(avatar, boxes, pixels)
    for index in range(len(template)):
        template.crop(index)
        template.canvas(index)
    # The frames that were decoded for it and let go are not the template's.
    gc.collect()
    give_back_memory()
    return max(0, process.memory_info().rss - before)


def _template(avatar: Avatar, boxes: list[Box], pixels: Pixels) -> Template:
    """The avatar's frames again and again, each time in memory of their own."""
    source = list(avatar.source.frames()) if len(boxes) >= len(avatar) else []
    frames = (
        itertools.cycle(source) if source else itertools.islice(avatar.source.frames(), len(boxes))
    )
    pairs = zip(frames, boxes, strict=False)
    if pixels == "bgr":
        return Template([np.array(frame) for frame, _ in pairs], boxes, avatar.spec)
    pictures: list[ImageArray] = []
    patches: list[ImageArray] = []
    for frame, box in pairs:
        pictures.append(bgr_to_i420(frame))
        patches.append(patch_of(frame, box))
    return Template(PlanarFrames(pictures, patches, boxes), boxes, avatar.spec)
