"""Steps: the layers that a program over rows computes, what they read and what they make."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lipsync_nb.errors import NetworkError
from lipsync_nb.network.row_fusion.emitter import Kernel, Target
from lipsync_nb.types.arrays import FLOAT32, UINT8

SMALLEST_ROWS = 64
PADDING = 16
ZERO_ROW = -1
Array = np.ndarray
_CACHE_LINE = 64


class WeightsError(NetworkError):
    """Weights of a layer are not as its shapes say: compiled code would read beyond them."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A tensor ``[c, h, w]`` whose rows are made one after the other, or that is given.

    Attributes:
        dtype: float32, or uint8 where it is given packed.
    """

    name: str
    channels: int
    height: int
    width: int
    given: bool = False
    dtype: np.dtype = FLOAT32

    @property
    def stride(self) -> int:
        """float32 numbers from one channel of a row to the next."""
        return self.height * self.width if self.given else self.width + 2 * PADDING

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    @property
    def kept_bytes(self) -> int:
        """Of a row in a buffer."""
        return whole_lines(FLOAT32.itemsize * self.channels * self.stride)

    @property
    def first_byte(self) -> int:
        """Of the first number of a row in a buffer."""
        return FLOAT32.itemsize * PADDING

    @property
    def given_bytes(self) -> int:
        """From one row to the next where it is given."""
        return self.dtype.itemsize * self.width


@dataclass(frozen=True, eq=False)
class PixelRows(Rows):
    """A tensor ``[h, w, c]``: all channels of a pixel lie side by side, a multiple of 16."""

    dtype: np.dtype = UINT8

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    @property
    def kept_bytes(self) -> int:
        return whole_lines(self.given_bytes)

    @property
    def first_byte(self) -> int:
        return 0

    @property
    def given_bytes(self) -> int:
        return self.dtype.itemsize * self.width * self.channels


def whole_lines(count: int) -> int:
    """So many bytes and what is missing to whole lines of the cache."""
    return -(-count // _CACHE_LINE) * _CACHE_LINE


def aligned_bytes(count: int) -> Array:
    """Zeros, uint8 ``[count]``, that begin where a line of the cache does."""
    block = np.zeros(count + _CACHE_LINE, np.uint8)
    start = -block.ctypes.data % _CACHE_LINE
    return block[start : start + count]


@dataclass(frozen=True, eq=False)
class Source:
    """Which row of ``rows`` an operand reads for each output row; -1: a row of zeros."""

    rows: Rows
    index: Array


def same_row(rows: Rows) -> Source:
    """The row that is made."""
    return Source(rows, np.arange(rows.height))


def three_rows(rows: Rows) -> dict[str, Source]:
    """The row above, the row that is made and the row below, as 3x3 kernels read them."""
    index = np.arange(rows.height)
    below = np.where(index + 1 < rows.height, index + 1, ZERO_ROW)
    return {"x": Source(rows, index - 1), "a0": Source(rows, index), "a1": Source(rows, below)}


def two_rows(rows: Rows, height: int) -> tuple[dict[str, Source], Array]:
    """The rows that each of ``height`` rows lies between, and how far from the first, 0..1."""
    above, mix = taps(rows.height, height)
    below = np.minimum(above + 1, rows.height - 1)
    return {"a0": Source(rows, above), "a1": Source(rows, below)}, mix


def taps(size: int, wanted: int) -> tuple[Array, Array]:
    """Linear interpolation of ``size`` numbers at ``wanted`` places, the corners aligned.

    In float32, as ONNX Runtime computes them.

    Returns:
        For each place the number below it, and how far it is from there to the next, 0..1.
    """
    place = np.arange(wanted, dtype=np.float32) * np.float32(size - 1) / np.float32(wanted - 1 or 1)
    low = np.minimum(place.astype(np.int64), max(0, size - 2))
    return low, place - low.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Step:
    """One layer: a kernel, the rows that it makes, and what it reads for them.

    Attributes:
        sources: by operand.
        weights: by operand.
        mix: the kernel's number ``t`` for each output row.
    """

    kernel: Kernel
    output: Rows
    sources: dict[str, Source]
    weights: dict[str, Array] = field(default_factory=dict)
    mix: Array | None = None


@dataclass(frozen=True, eq=False)
class Tail:
    """The layers that a program computes: the steps, and the tensors that they start from.

    Attributes:
        target: the processor that the steps' weights and widths are laid out for.
    """

    steps: tuple[Step, ...]
    inputs: tuple[Rows, ...]
    target: Target
