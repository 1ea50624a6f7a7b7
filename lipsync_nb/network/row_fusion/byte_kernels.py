"""Compiled kernels that compute one row of 8-bit pictures, with AVX-512 VNNI.

A row of a tensor is uint8 ``[width, channels]``, channels a multiple of 16. A number ``q`` stands
for ``(q - zero) * scale``; what a kernel knows of scales and zeros is in its parameters ``b``, so
that the same code serves networks of other ranges. Sums are int32, as ONNX Runtime's are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from llvmlite import ir

from lipsync_nb.network.row_fusion.byte_emitter import (
    I16,
    dot,
    floats,
    in_order,
    load,
    moved,
    narrowed,
    one,
    rounded,
    scaled,
    store,
    unpacked,
    within,
)
from lipsync_nb.network.row_fusion.emitter import F32, I8, I32, I64, Emitter, mask

# int32 numbers of one vector, and how many of these a convolution sums at once.
LANES, SUMS = 16, 24


@dataclass(frozen=True)
class Levels:
    """What bytes stand for: ``(q - zero) * scale``."""

    scale: float
    zero: int


@dataclass(frozen=True)
class ByteSum:
    """What is made of a convolution's bytes ``own`` and those that are added to them."""

    own: Levels
    added: Levels
    total: Levels

    def numbers(self) -> list[float]:
        """The own zero, the factors of both, and the number in front of them; as float32."""
        total = np.float32(self.total.scale)
        own, added = (np.float32(part.scale) / total for part in (self.own, self.added))
        zeros = own * np.float32(self.own.zero) + added * np.float32(self.added.zero)
        return [self.own.zero, float(own), float(added), float(self.total.zero - zeros)]


@dataclass(frozen=True)
class ByteCopy:
    """``out[j, c] = x[j, c]``: pixels of ``channels`` bytes among more, which stay as they are."""

    channels: int
    kept: int
    width: int

    def emit(self, e: Emitter) -> None:
        with e.loop(self.width) as j:
            pixel = load(e, moved(e, e.x, (j.index, self.channels)), I8, self.channels)
            store(e, pixel, moved(e, e.out, (j.index, self.kept)))


@dataclass(frozen=True)
class BytePointwise:
    """``out[j, c] = q(b[c] + sum_k w[c, k] x[j, k])``: a 1x1 convolution of one or two rows.

    Attributes:
        channels, inputs, others: of ``out``, of ``x`` and of ``a0``, which follows it; 0: none.
        added: whether ``a1`` is added to what was rounded, see `ByteSum`; it is rounded again.
    """

    channels: int
    inputs: int
    width: int
    others: int = 0
    added: bool = False

    @property
    def tile(self) -> tuple[int, int]:
        """Vectors of channels, and pixels, that are summed at once."""
        vectors = self.channels // LANES
        m = max(m for m in range(1, 5) if vectors % m == 0)
        fitting = (p for p in range(1, SUMS // m + 1) if self.width % p == 0 and m * p % 4 == 0)
        return m, max(fitting)

    def packed(self, weight: np.ndarray) -> np.ndarray:
        """int8 ``[c, k]`` in the order in which it is read."""
        m, _ = self.tile
        groups = weight.reshape(-1, m, LANES, (self.inputs + self.others) // 4, 4)
        return np.ascontiguousarray(groups.transpose(0, 3, 1, 2, 4), np.int8)

    def parameters(
        self, bias: np.ndarray, scale: np.ndarray, zero: int, total: ByteSum | None = None
    ) -> np.ndarray:
        """uint8: int32 ``[c]`` bias, float32 ``[c]`` scale, and what is the same for all."""
        return _parameters(bias, scale, zero, total.numbers() if total else ())

    def emit(self, e: Emitter) -> None:
        m, p = self.tile
        stride = m * 64
        end = _Ending(e, self.channels, self.added)
        with e.loop(self.channels // LANES, m) as g, e.loop(self.width, p) as j:
            weights = moved(e, e.w, (g.index, 16 * (self.inputs + self.others)))
            sums = [end.bias(g.index, i) for i in range(m)] * p
            sums = self._summed(e, e.x, self.inputs, weights, j.index, sums)
            if self.others:
                weights = moved(e, weights, (self.inputs // 4, stride))
                sums = self._summed(e, e.a0, self.others, weights, j.index, sums)
            where = (j.index, self.channels), (g.index, LANES)
            for first in range(0, m * p, 4):
                numbers = range(first, first + 4)
                vectors = [q % m for q in numbers]
                offsets = [q // m * self.channels + q % m * LANES for q in numbers]
                end.store(sums[first : first + 4], g.index, vectors, where, offsets)

    def _summed(
        self,
        e: Emitter,
        source: ir.Value,
        inputs: int,
        weights: ir.Value,
        pixel: ir.Value,
        sums: Sequence[ir.Value],
    ) -> list[ir.Value]:
        m, p = self.tile
        with e.loop(inputs // 4, 1, sums) as k:
            x = moved(e, source, (pixel, inputs), (k.index, 4))
            w = moved(e, weights, (k.index, 64 * m))
            factors = [load(e, w, I32, LANES, 64 * i) for i in range(m)]
            for row in range(p):
                four = e.splat(one(e, x, I32, row * inputs), LANES)
                for i in range(m):
                    q = row * m + i
                    k.values[q] = dot(e, k.values[q], four, factors[i])
        return k.values


@dataclass(frozen=True, eq=False)
class _Ending:
    """What is made of a 1x1 convolution's sums."""

    e: Emitter
    channels: int
    added: bool

    def bias(self, group: ir.Value, vector: int) -> ir.Value:
        return load(self.e, moved(self.e, self.e.bias, (group, 64)), I32, LANES, 64 * vector)

    def store(
        self,
        sums: Sequence[ir.Value],
        group: ir.Value,
        vectors: Sequence[int],
        where: Sequence[tuple[ir.Value, int]],
        offsets: Sequence[int],
    ) -> None:
        """Four vectors of sums as 64 bytes."""
        e = self.e
        base = moved(e, e.bias, (self.channels, 4), (group, 64))
        whole = scaled(e, sums, [load(e, base, F32, LANES, 64 * i) for i in vectors])
        level = None
        if self.added:
            other = moved(e, e.a1, *where)
            pairs = zip(whole, offsets, strict=True)
            whole = [self._total(value, floats(e, other, offset)) for value, offset in pairs]
        else:
            level = _level(e, self.channels, 2 * LANES)
        bytes_ = in_order(e, narrowed(e, whole, level))
        out = moved(e, e.out, *where)
        if list(offsets) == list(range(offsets[0], offsets[0] + 64, 16)):
            store(e, bytes_, out, offsets[0])
            return
        for number, offset in enumerate(offsets):
            places = range(16 * number, 16 * number + 16)
            store(e, e.b.shuffle_vector(bytes_, bytes_, mask(places)), out, offset)

    def _total(self, whole: ir.Value, other: ir.Value) -> ir.Value:
        """Of what was rounded once, its zero not yet added, and bytes: whole numbers."""
        e = self.e
        common = moved(e, e.bias, (self.channels, 8))
        zero, own, added, start = (e.splat(one(e, common, F32, 4 * i)) for i in range(4))
        value = e.b.fadd(e.b.sitofp(whole, e.vector), zero)
        value = within(e, value, e.every(0), e.every(255))
        return rounded(e, e.fma(value, own, e.fma(other, added, start)))


@dataclass(frozen=True)
class ByteDepthwise:
    """A 3x3 convolution of each channel with its own weights, of rows x, a0 and a1.

    Beside the picture there is zero, which must stand for 0.
    """

    channels: int
    width: int

    @property
    def block(self) -> int:
        """Channels that are computed at once."""
        return max(n for n in (16, 32, 64) if self.channels % n == 0)

    def packed(self, weight: np.ndarray) -> np.ndarray:
        """int8 ``[c, 3, 3]`` as ``[block, column, quarter, lane, channel, row]``; row 3 is zero."""
        four = np.zeros((self.channels, 4, 3), np.int8)
        four[:, :3] = weight
        # As unpacking bytes and words leaves the channels: four of each 16 in a vector.
        lanes = self.block // 16
        shaped = four.reshape(-1, lanes, 4, 4, 4, 3)
        return np.ascontiguousarray(shaped.transpose(0, 5, 2, 1, 3, 4))

    def parameters(self, bias: np.ndarray, scale: np.ndarray, zero: int) -> np.ndarray:
        """As `BytePointwise.parameters`, the channels in the order of `packed`."""
        whole = np.arange(self.channels).reshape(-1, self.block // 16, 4, 4)
        order = whole.transpose(0, 2, 1, 3).ravel()
        return _parameters(bias[order], scale[order], zero)

    def emit(self, e: Emitter) -> None:
        n = self.block
        lanes = n // 4
        with e.loop(self.channels, n) as g:
            base = moved(e, e.w, (g.index, 12))
            w = [load(e, base, I32, lanes, n * i) for i in range(12)]
            bias = [load(e, moved(e, e.bias, (g.index, 4)), I32, lanes, n * i) for i in range(4)]
            place = moved(e, e.bias, (self.channels, 4), (g.index, 4))
            scale = [load(e, place, F32, lanes, n * i) for i in range(4)]
            level = _level(e, self.channels, n // 2)
            rows = [moved(e, row, (g.index, 1)) for row in (e.x, e.a0, e.a1)]
            out = moved(e, e.out, (g.index, 1))

            def tap(
                sums: Sequence[ir.Value], column: Sequence[ir.Value], number: int
            ) -> list[ir.Value]:
                weights = w[4 * number : 4 * number + 4]
                return [dot(e, *three) for three in zip(sums, column, weights, strict=True)]

            def finish(pixel: ir.Value | int, sums: Sequence[ir.Value]) -> None:
                place = moved(e, out, (pixel, self.channels))
                store(e, narrowed(e, scaled(e, sums, scale), level), place)

            first = self._column(e, rows, 0)
            start = [*tap(bias, first, 1), *tap(bias, first, 0)]
            with e.loop(self.width - 1, 1, start) as j:
                column = self._column(e, rows, e.b.add(j.index, ir.Constant(I64, 1)))
                old, new = j.values[:4], j.values[4:]
                finish(j.index, tap(old, column, 2))
                j.values[:4], j.values[4:] = tap(new, column, 1), tap(bias, column, 0)
            finish(self.width - 1, j.values[:4])

    def _column(
        self, e: Emitter, rows: Sequence[ir.Value], pixel: ir.Value | int
    ) -> list[ir.Value]:
        """Four vectors of ``(x, a0, a1, 0)`` for each channel of a pixel."""
        n = self.block
        three = [load(e, moved(e, row, (pixel, self.channels)), I8, n) for row in rows]
        none = ir.Constant(ir.VectorType(I8, n), [0] * n)
        pairs = [unpacked(e, *three[:2]), unpacked(e, three[2], none)]
        words = ir.VectorType(I16, n // 2)
        found = []
        for low, high in zip(*pairs, strict=True):
            found += unpacked(e, e.b.bitcast(low, words), e.b.bitcast(high, words))
        return [e.b.bitcast(value, ir.VectorType(I32, n // 4)) for value in found]


@dataclass(frozen=True)
class ByteWiden:
    """``out = (x - zero) * scale``, float32: what ``count`` bytes stand for."""

    count: int

    @staticmethod
    def parameters(levels: Levels) -> np.ndarray:
        """float32 ``[2]``, for ``b``."""
        return np.array([levels.zero, levels.scale], np.float32)

    def emit(self, e: Emitter) -> None:
        zero, scale = (e.splat(one(e, e.bias, F32, offset)) for offset in (0, 4))
        with e.loop(self.count, LANES) as i:
            value = e.b.fsub(floats(e, moved(e, e.x, (i.index, 1))), zero)
            store(e, e.b.fmul(value, scale), moved(e, e.out, (i.index, 4)))


@dataclass(frozen=True)
class ByteStretch:
    """What lies between two rows and two pixels of float32 ``[w, channels]``, as bytes.

    The rows are a0 and a1, ``t`` the way between them. Products are added in ONNX Runtime's order,
    each rounded: what lies next to a half is rounded to the same byte.
    """

    channels: int
    width: int

    def parameters(self, levels: Levels) -> np.ndarray:
        """float32 ``[2]``: what the result is divided by, and its zero; for ``b``."""
        return np.array([levels.scale, levels.zero], np.float32)

    def columns(self, low: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """For each pixel its left neighbour, and the shares of both: uint8 ``[12 * width]``.

        Args:
            low: int64 ``[width]``, the neighbour's number.
            weight: float32 ``[width]``, how far from there to the next.
        """
        columns = np.zeros((self.width, 3), np.float32)
        columns[:, 0] = (4 * self.channels * low).astype(np.int32).view(np.float32)
        columns[:, 1], columns[:, 2] = 1 - weight, weight
        return columns.view(np.uint8).ravel()

    def emit(self, e: Emitter) -> None:
        scale, zero = (e.splat(one(e, e.bias, F32, offset)) for offset in (0, 4))
        limits = e.b.fneg(zero), e.b.fsub(e.every(255), zero)
        second = e.splat(e.t)
        ways = e.b.fsub(e.every(1), second), second
        level = e.b.fptosi(zero, ir.VectorType(I32, LANES))
        with e.loop(self.width) as j:
            column = moved(e, e.w, (j.index, 12))
            offset = e.b.sext(one(e, column, I32), I64)
            rows = [moved(e, row, (offset, 1)) for row in (e.a0, e.a1)]
            shares = [e.splat(one(e, column, F32, place)) for place in (4, 8)]
            parts = [
                (row, 4 * number * self.channels, e.b.fmul(share, way))
                for row, way in zip(rows, ways, strict=True)
                for number, share in enumerate(shares)
            ]
            out = moved(e, e.out, (j.index, self.channels))
            for channel in range(0, self.channels, LANES):
                total = None
                for row, start, share in parts:
                    value = e.b.fmul(share, load(e, row, F32, LANES, start + 4 * channel))
                    total = value if total is None else e.b.fadd(total, value)
                whole = rounded(e, within(e, e.b.fdiv(total, scale), *limits))
                whole = e.b.add(whole, level)
                store(e, e.b.trunc(whole, ir.VectorType(I8, LANES)), out, channel)


@dataclass(frozen=True)
class BytePicture:
    """``out[3 j + c] = w[x[j, c]]``: the bytes of a picture, looked up in a table of 256."""

    channels: int
    width: int

    def emit(self, e: Emitter) -> None:
        with e.loop(self.width) as j:
            for c in range(3):
                level = one(e, moved(e, e.x, (j.index, self.channels)), I8, c)
                place = e.b.gep(e.w, [e.b.zext(level, I64)], source_etype=I8)
                store(e, one(e, place, I8), moved(e, e.out, (j.index, 3)), c)


def _parameters(
    bias: np.ndarray, scale: np.ndarray, zero: int, numbers: Sequence[float] = ()
) -> np.ndarray:
    """What `_level` and the kernels read of ``b``; the last 64 bytes are the same for all."""
    common = np.zeros(16, np.float32)
    common[: len(numbers)] = numbers
    parts = bias.astype(np.int32), scale.astype(np.float32), common
    flat = np.concatenate([part.view(np.uint8) for part in parts])
    flat[-4:] = np.array([zero, 0], np.int16).view(np.uint8)
    return flat


def _level(e: Emitter, channels: int, count: int) -> ir.Value:
    """The zero of what is made, int16, ``count`` times."""
    return e.splat(one(e, e.bias, I16, 8 * channels + 60), count)
