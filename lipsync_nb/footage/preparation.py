"""What became of footage: the record that `prepare_avatar` gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from lipsync_nb.media.rates import rate_text
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Box
from lipsync_nb.types.rich import Rich
from lipsync_nb.types.table import Column, Table


@dataclass(frozen=True)
class Jitter:
    """Root mean square of the boxes' second differences in pixels; steady motion has none.

    Attributes:
        found: as the boxes were found.
        smoothed: once they were smoothed.
        written: in whole pixels, as files hold them.
    """

    found: float
    smoothed: float
    written: float

    def __str__(self) -> str:
        return (
            f"{self.found:.2f} px found, {self.smoothed:.2f} smoothed, {self.written:.2f} written"
        )


@dataclass(frozen=True, eq=False)
class Preparation(Rich):
    """An avatar's folder that was made of footage.

    Attributes:
        path: the folder, for `load_avatar`.
        source: the footage.
        fps: frames a second, exact.
        width, height: of the frames, in pixels.
        boxes: the face box of each frame.
        boxes_from: where they come from.
        jitter: of the boxes.
        missing: frames in which no face was found.
        unpainted: those of them that stay as they were recorded.
        cuts: frames that begin another shot.
        filmstrip: frames with their boxes, uint8 ``[h, w, 3]`` BGR.
        warnings: what to look at, a line each.
    """

    path: Path
    source: Path
    fps: Fraction
    width: int
    height: int
    boxes: tuple[Box, ...]
    boxes_from: str
    jitter: Jitter
    missing: tuple[int, ...]
    unpainted: tuple[int, ...]
    cuts: tuple[int, ...]
    warnings: tuple[str, ...]
    filmstrip: ImageArray = field(repr=False)

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        size = f"{self.width}x{self.height}"
        return f"Preparation({self.path.name!r}, {len(self)} frames of {size})"

    @property
    def head(self) -> str:
        """One line."""
        return (
            f"{self.path}: {len(self)} frames of {self.width}x{self.height} at "
            f"{rate_text(self.fps)} a second"
        )

    @property
    def table(self) -> Table:
        """What was found, a row each."""
        sizes = [box.width for box in self.boxes]
        bridged, whole = len(self.missing) - len(self.unpainted), self.fps.denominator == 1
        rows = [
            ("source", str(self.source)),
            ("frames", f"{len(self)}, {len(self) / float(self.fps):.2f} s"),
            ("size", f"{self.width}x{self.height}"),
            ("rate", rate_text(self.fps) + ("" if whole else f" ({self.fps})")),
            ("boxes from", self.boxes_from),
            ("width of the box", f"{min(sizes)} to {max(sizes)} px"),
            ("jitter", str(self.jitter)),
            ("without a face", f"{numbers_text(self.missing)}"),
            ("of these", f"{bridged} bridged, {len(self.unpainted)} not painted"),
            ("scene cuts at", numbers_text(self.cuts)),
        ]
        rows = rows if self.missing else [row for row in rows if row[0] != "of these"]
        columns: list[Column[tuple[str, str]]] = [
            Column("what", lambda row: row[0], True),
            Column("found", lambda row: row[1], True),
        ]
        return Table.of(columns, rows)

    def __str__(self) -> str:
        return "\n".join([self.head, str(self.table), *self.warnings])


def numbers_text(numbers: tuple[int, ...], most: int = 6) -> str:
    """Frame numbers as runs.

    Example:
        >>> numbers_text((3, 4, 5, 9))
        '3-5, 9 (4 frames)'
    """
    if not numbers:
        return "none"
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs[:most]]
    more = ", ..." if len(runs) > most else ""
    return f"{', '.join(texts)}{more} ({len(numbers)} frame{'s' * (len(numbers) > 1)})"
