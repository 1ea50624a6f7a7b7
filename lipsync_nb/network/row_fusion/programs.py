"""The last layers of a network, on its largest pictures, as one program over rows.

An inference library computes layer after layer, and each passes a whole tensor through memory. At
320x320 these tensors are larger than the caches, and the cores wait. Here every layer makes one row
as soon as the rows that it needs are there, and a row is forgotten when the last layer has read it:
what is between the layers never leaves the cache (line buffers, as in Halide, Ragan-Kelley et al.,
PLDI 2013).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lipsync_nb.errors import NetworkError
from lipsync_nb.types.arrays import IndexArray

from .byte_kernels import ByteDepthwise, BytePointwise
from .emitter import Kernel
from .kernels import DepthwiseRow, PictureRow, PointwiseRow
from .machine import CodeStore, compiled
from .steps import ZERO_ROW, Array, Rows, Step, Tail, aligned_bytes, whole_lines

_OPERANDS = ("x", "w", "b", "a0", "a1", "out")
_WORKSPACE, _WEIGHTS, _FIRST_INPUT = 0, 1, 2


class RowProgram:
    """A tail, compiled for the processor that it was read for.

    Any number of threads may run it at the same time; each has a workspace of its own.

    Attributes:
        inputs: names, shapes and dtypes of the tensors that it takes.
        num_layers: convolutions that it computes.
        height, width: of the picture, in pixels.
        workspace_bytes: memory for the rows between the layers, for each thread.
    """

    def __init__(self, tail: Tail, store: CodeStore | None = None) -> None:
        self.inputs = tuple((rows.name, rows.shape, rows.dtype) for rows in tail.inputs)
        kinds = (PointwiseRow, DepthwiseRow, PictureRow, BytePointwise, ByteDepthwise)
        self.num_layers = sum(isinstance(step.kernel, kinds) for step in tail.steps)
        picture = tail.steps[-1].output
        self.height, self.width = picture.height, picture.width
        schedule = _schedule(tail.steps)
        places, self.workspace_bytes, zeros = _place(tail.steps, schedule)
        offsets, self._weights = _gather_weights(tail.steps)
        writer = _Writer(tail, places, zeros, offsets)
        self._calls = writer.calls(schedule)
        self._machine = compiled(writer.kernels, tail.target, store)
        self._own = threading.local()

    def __call__(self, inputs: Sequence[Array], out: Array) -> None:
        """Compute one picture.

        Args:
            inputs: ``[c, h, w]`` each, in the order of ``inputs``, contiguous.
            out: uint8 ``[height, width, 3]``, contiguous; written to.
        """
        for array, (name, shape, dtype) in zip(inputs, self.inputs, strict=True):
            if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
                raise NetworkError(
                    f"{name}: found {array.dtype} {array.shape}, expected {dtype} {shape}."
                )
        if out.shape != (self.height, self.width, 3) or not out.flags.c_contiguous:
            raise NetworkError(f"out: found {out.shape}, expected {(self.height, self.width, 3)}.")
        arrays = [self._workspace(), self._weights, *inputs, out]
        bases = np.array([array.ctypes.data for array in arrays], np.uint64)
        self._machine(self._calls, bases)

    def _workspace(self) -> Array:
        if not hasattr(self._own, "workspace"):
            self._own.workspace = aligned_bytes(self.workspace_bytes)
        workspace: Array = self._own.workspace
        return workspace


_Entry = tuple[int, int]


def _schedule(steps: Sequence[Step]) -> list[_Entry]:
    """Step and row of every call: the last step's rows in order, each row as late as possible."""
    makers = {step.output.name: number for number, step in enumerate(steps)}
    done = [0] * len(steps)
    entries: list[_Entry] = []

    def make(number: int, row: int) -> None:
        step = steps[number]
        while done[number] <= row:
            current = done[number]
            for source in step.sources.values():
                maker = makers.get(source.rows.name)
                if maker is not None and source.index[current] >= 0:
                    make(maker, int(source.index[current]))
            entries.append((number, current))
            done[number] += 1

    for row in range(steps[-1].output.height):
        make(len(steps) - 1, row)
    return entries


def _place(
    steps: Sequence[Step], schedule: Sequence[_Entry]
) -> tuple[dict[str, tuple[int, int]], int, int]:
    """Where each step's rows are: bytes into the workspace, and how many rows it keeps.

    Returns:
        The places by name, the size of the workspace, and where its row of zeros is.
    """
    made: dict[str, list[int]] = {step.output.name: [] for step in steps}
    read: dict[str, dict[int, int]] = {step.output.name: {} for step in steps}
    for time, (number, row) in enumerate(schedule):
        step = steps[number]
        made[step.output.name].append(time)
        for source in step.sources.values():
            if source.rows.name in read and source.index[row] >= 0:
                read[source.rows.name][int(source.index[row])] = time
    places, end, longest = {}, 0, 0
    for step in steps[:-1]:
        rows = step.output
        size = rows.kept_bytes
        kept = _ring_size(made[rows.name], read[rows.name])
        places[rows.name] = (end, kept)
        end, longest = end + kept * size, max(longest, size)
    return places, end + longest, end


def _ring_size(made: Sequence[int], read: dict[int, int]) -> int:
    """The fewest rows to keep so that none is overwritten before it was read for the last time."""
    for size in range(1, len(made)):
        if all(made[row + size] > read.get(row, 0) for row in range(len(made) - size)):
            return size
    return len(made)


def _gather_weights(steps: Sequence[Step]) -> tuple[list[dict[str, int]], Array]:
    """All weights in one array; for each step and operand the bytes in front of them."""
    parts: list[tuple[int, Array]] = []
    offsets: list[dict[str, int]] = []
    end = 0
    for step in steps:
        offsets.append({})
        for operand, weight in step.weights.items():
            parts.append((end, np.ascontiguousarray(weight).reshape(-1).view(np.uint8)))
            offsets[-1][operand] = end
            end += whole_lines(weight.nbytes)
    gathered = aligned_bytes(end)
    for start, part in parts:
        gathered[start : start + len(part)] = part
    return offsets, gathered


@dataclass(frozen=True, eq=False)
class _Writer:
    """Writes calls: steps and rows as kernels and addresses."""

    tail: Tail
    places: dict[str, tuple[int, int]]
    zeros: int
    offsets: list[dict[str, int]]

    @functools.cached_property
    def kernels(self) -> tuple[Kernel, ...]:
        """Each once."""
        return tuple(dict.fromkeys(step.kernel for step in self.tail.steps))

    def calls(self, schedule: Sequence[_Entry]) -> IndexArray:
        """int64 ``[n, 14]``, see `Machine`."""
        tables = [self._table(number) for number in range(len(self.tail.steps))]
        starts = np.cumsum([0, *map(len, tables)])
        steps, rows = np.array(schedule, np.int64).T
        return np.ascontiguousarray(np.concatenate(tables)[starts[steps] + rows])

    def _table(self, number: int) -> IndexArray:
        """The calls of a step, row after row."""
        step = self.tail.steps[number]
        rows = np.arange(step.output.height)
        table = np.zeros((len(rows), 2 + 2 * len(_OPERANDS)), np.int64)
        table[:, 0] = self.kernels.index(step.kernel)
        if step.mix is not None:
            table[:, 1] = np.asarray(step.mix, np.float32).view(np.int32)
        for place, operand in enumerate(_OPERANDS):
            base, offsets = self._operand(step, self.offsets[number], operand, rows)
            table[:, 2 + 2 * place], table[:, 3 + 2 * place] = base, offsets
        return table

    def _operand(
        self, step: Step, offsets: dict[str, int], operand: str, rows: IndexArray
    ) -> tuple[int, IndexArray | int]:
        """Base, and the bytes behind it for each row."""
        if operand == "out":
            return self._address(step.output, rows)
        if operand in step.sources:
            source = step.sources[operand]
            return self._address(source.rows, np.asarray(source.index, np.int64))
        return _WEIGHTS, offsets.get(operand, 0)

    def _address(self, rows: Rows, index: IndexArray) -> tuple[int, IndexArray]:
        if rows.name in self.places:
            start, kept = self.places[rows.name]
            places = start + index % kept * rows.kept_bytes
            return _WORKSPACE, np.where(index == ZERO_ROW, self.zeros, places) + rows.first_byte
        names = [given.name for given in self.tail.inputs]
        if rows.name in names:
            return _FIRST_INPUT + names.index(rows.name), rows.given_bytes * index
        return _FIRST_INPUT + len(names), 3 * rows.width * index
