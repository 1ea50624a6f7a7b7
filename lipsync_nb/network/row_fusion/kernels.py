"""Compiled kernels that compute one row of pictures, for every channel, with LLVM.

A row of a tensor ``[c, h, w]`` is float32 ``[c, stride]``: its channels one after the other. Every
kernel is a function of six addresses and a number, ``(x, w, b, a0, a1, out, t)``, of which it uses
what it needs. A program is a list of calls; see `Machine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from llvmlite import ir

from lipsync_nb.network.row_fusion.emitter import I8, I32, I64, Emitter, Target, exp, mask


@dataclass(frozen=True)
class CopyRow:
    """``out[c] = x[c]``: a row of a tensor in memory into a row buffer."""

    channels: int
    width: int
    source_stride: int
    stride: int

    def emit(self, e: Emitter) -> None:
        with e.loop(self.channels) as c:
            source = e.at(e.x, (c.index, self.source_stride))
            target = e.at(e.out, (c.index, self.stride))
            for column in range(0, self.width, e.lanes):
                e.store(e.load(source, column), target, column)


@dataclass(frozen=True)
class WidenRow:
    """``out[c] = x[c] * a0[c] + a1[c]``: a row of a packed tensor, uint8, into a row buffer."""

    channels: int
    width: int
    source_stride: int
    stride: int

    def emit(self, e: Emitter) -> None:
        with e.loop(self.channels) as c:
            step, low = (e.broadcast(e.at(base, (c.index, 1))) for base in (e.a0, e.a1))
            start = e.b.mul(c.index, ir.Constant(I64, self.source_stride))
            source = e.b.gep(e.x, [start], source_etype=I8)
            target = e.at(e.out, (c.index, self.stride))
            for column in range(0, self.width, e.lanes):
                place = e.b.gep(source, [ir.Constant(I64, column)], source_etype=I8)
                levels = e.b.load(place, typ=ir.VectorType(I8, e.lanes), align=1)
                e.store(e.fma(e.b.uitofp(levels, e.vector), step, low), target, column)


@dataclass(frozen=True)
class StretchRow:
    """``out[c, j] = x[c, low[j]] + weight[j] * (x[c, low[j] + 1] - x[c, low[j]])``."""

    channels: int
    source_width: int
    source_stride: int
    stride: int
    low: tuple[int, ...]
    weight: tuple[float, ...]

    def is_possible(self, lanes: int) -> bool:
        """Whether what a vector of columns needs fits into one vector of the source."""
        parts = [self.low[i : i + lanes] for i in range(0, len(self.low), lanes)]
        reach = (part[-1] + 1 - self._start(part[0], lanes) for part in parts)
        return self.source_width >= lanes and all(width < lanes for width in reach)

    def _start(self, low: int, lanes: int) -> int:
        return min(low, self.source_width - lanes)

    def emit(self, e: Emitter) -> None:
        n, last = e.lanes, self.source_width - 1
        with e.loop(self.channels) as c:
            source = e.at(e.x, (c.index, self.source_stride))
            target = e.at(e.out, (c.index, self.stride))
            for column in range(0, len(self.low), n):
                low = self.low[column : column + n]
                start = self._start(low[0], n)
                values = e.load(source, start)
                below = self._pick(e, values, [i - start for i in low])
                above = self._pick(e, values, [min(i + 1, last) - start for i in low])
                weight = e.constant(self.weight[column : column + n])
                e.store(e.fma(weight, e.b.fsub(above, below), below), target, column)

    @staticmethod
    def _pick(e: Emitter, values: ir.Value, places: Sequence[int]) -> ir.Value:
        return e.b.shuffle_vector(values, values, mask(places))


@dataclass(frozen=True)
class PointwiseRow:
    """``out[c] = act(b[c] + sum_k w[c, k] x[k] + added[c])``: a 1x1 convolution.

    ``added`` is nothing, the row ``a0``, or ``a0 + t (a1 - a0)``. The weights are packed, see
    `packed`.
    """

    channels: int
    inputs: int
    width: int
    source_stride: int
    stride: int
    added: str = ""
    relu: bool = False

    def tile(self, target: Target) -> tuple[int, int]:
        """Channels and vectors that are summed at once: as many sums as there are registers for.

        Of those that have as many sums, the one that loads least for each input.
        """
        across = self.width // target.lanes
        # What a tile reads of each input stays in the first cache.
        most = max(1, 20_000 // (self.inputs * 4 * target.lanes))
        fitting = [
            (m, v)
            for m in range(1, 17)
            for v in range(1, min(5, most) + 1)
            # Beside the sums, a vector of each column and one weight.
            if self.channels % m == 0 and across % v == 0 and m * v + v + 1 <= target.registers
        ]
        return max(fitting, key=lambda tile: (tile[0] * tile[1], -sum(tile), tile[1]))

    def packed(self, weight: np.ndarray, target: Target) -> np.ndarray:
        """``[c, k]`` in the order in which it is read."""
        m, _ = self.tile(target)
        return np.ascontiguousarray(
            weight.reshape(self.channels // m, m, self.inputs).transpose(0, 2, 1), np.float32
        )

    def emit(self, e: Emitter) -> None:
        (m, v), n = self.tile(e.target), e.lanes
        mix = e.splat(e.t) if self.added == "mixed" else None
        with e.loop(self.width, v * n) as p, e.loop(self.channels, m) as g:
            start = [
                self._start(e, g.index, p.index, i, j * n, mix) for i in range(m) for j in range(v)
            ]
            weights = e.at(e.w, (g.index, self.inputs))
            with e.loop(self.inputs, 1, start) as k:
                x = e.at(e.x, (k.index, self.source_stride), (p.index, 1))
                w = e.at(weights, (k.index, m))
                columns = [e.load(x, j * n) for j in range(v)]
                for i in range(m):
                    factor = e.broadcast(w, i)
                    for j in range(v):
                        q = i * v + j
                        k.values[q] = e.fma(columns[j], factor, k.values[q])
                sums = k.values
            for i in range(m):
                out = e.at(e.out, (g.index, self.stride), (p.index, 1))
                for j in range(v):
                    value = sums[i * v + j]
                    e.store(e.relu(value) if self.relu else value, out, i * self.stride + j * n)

    def _start(
        self, e: Emitter, g: ir.Value, p: ir.Value, i: int, column: int, mix: ir.Value | None
    ) -> ir.Value:
        bias = e.broadcast(e.at(e.bias, (g, 1)), i)
        offset = i * self.stride + column
        if not self.added:
            return bias
        first = e.load(e.at(e.a0, (g, self.stride), (p, 1)), offset)
        if mix is not None:
            second = e.load(e.at(e.a1, (g, self.stride), (p, 1)), offset)
            first = e.fma(mix, e.b.fsub(second, first), first)
        return e.b.fadd(bias, first)


@dataclass(frozen=True)
class DepthwiseRow:
    """A 3x3 convolution of each channel with its own weights ``w[c, 9]``; rows x, a0 and a1.

    The rows have a column of zeros before the first and after the last.
    """

    channels: int
    width: int
    stride: int
    relu: bool = False

    def emit(self, e: Emitter) -> None:
        with e.loop(self.channels) as c:
            weights = [e.broadcast(e.at(e.w, (c.index, 9)), i) for i in range(9)]
            bias = e.broadcast(e.at(e.bias, (c.index, 1)))
            rows = [e.at(row, (c.index, self.stride)) for row in (e.x, e.a0, e.a1)]
            out = e.at(e.out, (c.index, self.stride))
            with e.loop(self.width, e.lanes) as p:
                total = bias
                for i in range(9):
                    row = e.at(rows[i // 3], (p.index, 1))
                    total = e.fma(e.load(row, i % 3 - 1), weights[i], total)
                e.store(e.relu(total) if self.relu else total, e.at(out, (p.index, 1)))


@dataclass(frozen=True)
class PictureRow:
    """``out[j, c] = uint8(levels / (1 + exp(-(b[c] + sum_k w[c, k] x[k, j]))))``, c of three."""

    inputs: int
    width: int
    source_stride: int
    levels: float

    def emit(self, e: Emitter) -> None:
        n = e.lanes
        with e.loop(self.width, n) as p:
            start = [e.broadcast(e.bias, c) for c in range(3)]
            with e.loop(self.inputs, 1, start) as k:
                x = e.load(e.at(e.x, (k.index, self.source_stride), (p.index, 1)))
                for c in range(3):
                    w = e.broadcast(e.at(e.w, (k.index, 1)), c * self.inputs)
                    k.values[c] = e.fma(x, w, k.values[c])
                sums = k.values
            parts = [self._bytes(e, value) for value in sums]
            pair = e.b.shuffle_vector(parts[0], parts[1], mask(range(2 * n)))
            rest = e.b.shuffle_vector(parts[2], parts[2], mask([*range(n), *[0] * n]))
            order = [place for j in range(n) for place in (j, n + j, 2 * n + j)]
            e.b.store(
                e.b.shuffle_vector(pair, rest, mask(order)),
                e.b.gep(e.out, [e.b.mul(p.index, ir.Constant(I64, 3))], source_etype=I8),
                align=1,
            )

    def _bytes(self, e: Emitter, value: ir.Value) -> ir.Value:
        grown = exp(e, e.b.fneg(value))
        scaled = e.b.fdiv(e.every(self.levels), e.b.fadd(e.every(1.0), grown))
        whole = e.b.fptosi(scaled, ir.VectorType(I32, e.lanes))
        return e.b.trunc(whole, ir.VectorType(I8, e.lanes))
