"""LLVM code that works on vectors of bytes, with the instructions of AVX-512 and VNNI."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from lipsync_nb.network.row_fusion.emitter import F32, I8, I32, I64, Emitter, mask

I16 = ir.IntType(16)
_PACKS = {
    (16, 16): "sse2.packssdw.128", (16, 32): "avx2.packssdw", (16, 64): "avx512.packssdw.512",
    (8, 16): "sse2.packuswb.128", (8, 32): "avx2.packuswb", (8, 64): "avx512.packuswb.512",
}  # fmt: skip


def moved(e: Emitter, base: ir.Value, *terms: tuple[ir.Value | int, int]) -> ir.Value:
    """Address of so many bytes behind ``base``: the sum of ``index * step``."""
    for index, step in terms:
        if isinstance(index, int):
            index = ir.Constant(I64, index)
        count = e.b.mul(index, ir.Constant(I64, step))
        base = e.b.gep(base, [count], source_etype=I8)
    return base


def load(e: Emitter, base: ir.Value, kind: ir.Type, count: int, offset: int = 0) -> ir.Value:
    """A vector of ``count`` numbers, so many bytes behind ``base``."""
    return e.b.load(moved(e, base, (offset, 1)), typ=ir.VectorType(kind, count), align=1)


def one(e: Emitter, base: ir.Value, kind: ir.Type, offset: int = 0) -> ir.Value:
    """One number, so many bytes behind ``base``."""
    return e.b.load(moved(e, base, (offset, 1)), typ=kind, align=1)


def store(e: Emitter, value: ir.Value, base: ir.Value, offset: int = 0) -> None:
    """Write a vector so many bytes behind ``base``."""
    e.b.store(value, moved(e, base, (offset, 1)), align=1)


def floats(e: Emitter, base: ir.Value, offset: int = 0) -> ir.Value:
    """Sixteen bytes as float32."""
    return e.b.uitofp(load(e, base, I8, e.lanes, offset), e.vector)


def dot(e: Emitter, total: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """``total`` and of each four bytes of ``x``, times those of ``w``, the sum; all int32."""
    # LLVM 21 declares the last two as bytes, and still takes them as they were before.
    kind = ir.FunctionType(total.type, [total.type] * 3)
    name = f"llvm.x86.avx512.vpdpbusd.{32 * total.type.count}"
    return e.b.call(e.intrinsic(name, kind), [total, x, w])


def rounded(e: Emitter, value: ir.Value) -> ir.Value:
    """float32 as int32, halves to even."""
    n = value.type.count
    ints = ir.VectorType(I32, n)
    if n == 16:
        kind = ir.FunctionType(ints, [value.type, ints, I16, I32])
        function = e.intrinsic("llvm.x86.avx512.mask.cvtps2dq.512", kind)
        none = ir.Constant(ints, [0] * n)
        return e.b.call(function, [value, none, ir.Constant(I16, 0xFFFF), ir.Constant(I32, 4)])
    name = {8: "llvm.x86.avx.cvt.ps2dq.256", 4: "llvm.x86.sse2.cvtps2dq"}[n]
    return e.b.call(e.intrinsic(name, ir.FunctionType(ints, [value.type])), [value])


def scaled(e: Emitter, sums: Sequence[ir.Value], scales: Sequence[ir.Value]) -> list[ir.Value]:
    """Vectors of int32 times their scales, as whole numbers."""
    kind = ir.VectorType(F32, sums[0].type.count)
    pairs = zip(sums, scales, strict=True)
    return [rounded(e, e.b.fmul(e.b.sitofp(value, kind), scale)) for value, scale in pairs]


def within(e: Emitter, value: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
    """float32 no smaller than ``low`` and no larger than ``high``."""
    value = e.b.select(e.b.fcmp_ordered(">", value, low), value, low)
    return e.b.select(e.b.fcmp_ordered("<", value, high), value, high)


def narrowed(e: Emitter, four: Sequence[ir.Value], level: ir.Value | None = None) -> ir.Value:
    """Four vectors of int32 and a level, int16, as bytes; in the order of the instructions."""
    words = [_packed(e, four[i], four[i + 1], I16) for i in (0, 2)]
    if level is not None:
        kind = ir.FunctionType(level.type, [level.type] * 2)
        add = e.intrinsic(f"llvm.sadd.sat.v{level.type.count}i16", kind)
        words = [e.b.call(add, [part, level]) for part in words]
    return _packed(e, words[0], words[1], I8)


def _packed(e: Emitter, a: ir.Value, b: ir.Value, narrow: ir.Type) -> ir.Value:
    count = 2 * a.type.count
    kind = ir.FunctionType(ir.VectorType(narrow, count), [a.type] * 2)
    name = _PACKS[narrow.width, count * narrow.width // 8]
    return e.b.call(e.intrinsic(f"llvm.x86.{name}", kind), [a, b])


def in_order(e: Emitter, value: ir.Value) -> ir.Value:
    """What `narrowed` left as ``[lane, vector, 4]`` as ``[vector, lane, 4]``; 64 bytes."""
    places = [16 * lane + 4 * v + k for v in range(4) for lane in range(4) for k in range(4)]
    return e.b.shuffle_vector(value, value, mask(places))


def unpacked(e: Emitter, a: ir.Value, b: ir.Value) -> list[ir.Value]:
    """Numbers of ``a`` and ``b`` in turns, of the lower and the upper halves of 16 bytes."""
    n = a.type.count
    each = 128 // a.type.element.width
    found = []
    for start in (0, each // 2):
        firsts = [lane + start + i for lane in range(0, n, each) for i in range(each // 2)]
        found.append(e.b.shuffle_vector(a, b, mask(p for i in firsts for p in (i, n + i))))
    return found
