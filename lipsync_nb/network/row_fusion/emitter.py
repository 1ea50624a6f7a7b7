"""Writing LLVM code that works on vectors of float32."""

from __future__ import annotations

import functools
import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

I8, I32, I64, F32 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
PTR = ir.PointerType()
OPERANDS = 6
_IS_X86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686", "x86")


@dataclass(frozen=True)
class Target:
    """The processor that code is written for.

    Attributes:
        lanes: float32 numbers in one vector: 4 (SSE, NEON), 8 (AVX2) or 16 (AVX-512). LLVM cuts
            vectors that are wider than the processor's into several.
        cpu: LLVM's name of the processor, as ``x86-64-v3``.
        features: instruction sets beside those of ``cpu``, as LLVM lists them: ``+fma,-avx512f``.
    """

    lanes: int
    cpu: str
    features: str = ""

    @property
    def registers(self) -> int:
        """Vectors that a kernel may hold at once: AVX2 has 16, AVX-512 and Arm 32."""
        if not _IS_X86 or self.lanes >= 16:
            return 32
        # SSE has 16 too, of which a product takes one: it does not multiply and add at once.
        return 16 if self.lanes == 8 else 15

    @property
    def multiplies_bytes(self) -> bool:
        """Whether it has dot products of bytes on vectors of 512 bits: AVX-512 with VNNI."""
        found = self.features.split(",")
        needed = ("+avx512f", "+avx512bw", "+avx512vl", "+avx512vnni")
        return self.lanes == 16 and all(name in found for name in needed)


@functools.cache
def host() -> Target:
    """This processor, with the widest vectors that it has."""
    features = llvm.get_host_cpu_features()
    narrow = 8 if features.get("avx2") else 4
    lanes = 16 if features.get("avx512f") else narrow
    return Target(lanes, llvm.get_host_cpu_name(), features.flatten())


def fused_precisions(target: Target | None = None) -> tuple[str, ...]:
    """What networks may compute in for their last layers to be fused on a processor, or on this."""
    return ("fp32", "int8") if (target or host()).multiplies_bytes else ("fp32",)


class Emitter:
    """Writes the body of one kernel."""

    def __init__(self, module: ir.Module, name: str, target: Target) -> None:
        self.module, self.target, self.lanes = module, target, target.lanes
        self.vector = ir.VectorType(F32, self.lanes)
        kind = ir.FunctionType(ir.VoidType(), [PTR] * OPERANDS + [F32])
        self.function = ir.Function(module, kind, name)
        self.function.linkage = "internal"
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.x, self.w, self.bias, self.a0, self.a1, self.out, self.t = self.function.args

    def at(self, base: ir.Value, *terms: tuple[ir.Value | int, int]) -> ir.Value:
        """Address of ``base[sum(index * step)]`` of float32."""
        total: ir.Value = ir.Constant(I64, 0)
        for index, step in terms:
            if isinstance(index, int):
                index = ir.Constant(I64, index)
            total = self.b.add(total, self.b.mul(index, ir.Constant(I64, step)))
        return self.b.gep(base, [total], source_etype=F32)

    def load(self, address: ir.Value, offset: int = 0) -> ir.Value:
        return self.b.load(self.moved(address, offset), typ=self.vector, align=4)

    def store(self, value: ir.Value, address: ir.Value, offset: int = 0) -> None:
        self.b.store(value, self.moved(address, offset), align=4)

    def moved(self, address: ir.Value, offset: int) -> ir.Value:
        if not offset:
            return address
        return self.b.gep(address, [ir.Constant(I64, offset)], source_etype=F32)

    def splat(self, number: ir.Value, count: int = 0) -> ir.Value:
        """A vector of one number, ``count`` times; 0: as often as a vector has float32 numbers."""
        count = count or self.lanes
        none = ir.Constant(ir.VectorType(number.type, count), ir.Undefined)
        one = self.b.insert_element(none, number, ir.Constant(I32, 0))
        return self.b.shuffle_vector(one, none, mask([0] * count))

    def broadcast(self, address: ir.Value, offset: int = 0) -> ir.Value:
        return self.splat(self.b.load(self.moved(address, offset), typ=F32, align=4))

    def constant(self, values: Sequence[float]) -> ir.Constant:
        return ir.Constant(self.vector, [float(np.float32(v)) for v in values])

    def every(self, value: float) -> ir.Constant:
        return self.constant([value] * self.lanes)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.b.call(self.intrinsic(f"llvm.fmuladd.v{self.lanes}f32", kind), [a, b, c])

    def intrinsic(self, name: str, kind: ir.FunctionType) -> ir.Function:
        known = self.module.globals.get(name)
        return known if known is not None else ir.Function(self.module, kind, name)

    def relu(self, value: ir.Value) -> ir.Value:
        zero = self.every(0.0)
        return self.b.select(self.b.fcmp_ordered(">", value, zero), value, zero)

    @contextmanager
    def loop(self, stop: int, step: int = 1, carried: Sequence[ir.Value] = ()) -> Iterator[Loop]:
        """Repeat the body for 0, step, ... below ``stop``; ``carried`` values change with it."""
        before = self.b.block
        body, after = (self.function.append_basic_block() for _ in range(2))
        self.b.branch(body)
        self.b.position_at_end(body)
        index = self.b.phi(I64)
        index.add_incoming(ir.Constant(I64, 0), before)
        values = []
        for value in carried:
            phi = self.b.phi(value.type)
            phi.add_incoming(value, before)
            values.append(phi)
        loop = Loop(index, values)
        yield loop
        following = self.b.add(index, ir.Constant(I64, step))
        index.add_incoming(following, self.b.block)
        for phi, value in zip(values, loop.values, strict=True):
            phi.add_incoming(value, self.b.block)
        again = self.b.icmp_unsigned("<", following, ir.Constant(I64, stop))
        self.b.cbranch(again, body, after)
        self.b.position_at_end(after)

    def end(self) -> ir.Function:
        self.b.ret_void()
        return self.function


class Kernel(Protocol):
    """What computes one row; every instance is compiled by itself."""

    def emit(self, e: Emitter) -> None:
        """Write the body."""


def mask(places: Iterable[int]) -> ir.Constant:
    """Which numbers a shuffle takes."""
    places = list(places)
    return ir.Constant(ir.VectorType(I32, len(places)), places)


class Loop:
    def __init__(self, index: ir.Value, values: list[ir.Value]) -> None:
        self.index, self.values = index, list(values)


def exp(e: Emitter, value: ir.Value) -> ir.Value:
    """``exp`` to about 1e-7 of itself: 2 to the whole part, times a polynomial of the rest."""
    ints = ir.VectorType(I32, e.lanes)
    kind = ir.FunctionType(e.vector, [e.vector] * 2)
    low = e.intrinsic(f"llvm.maxnum.v{e.lanes}f32", kind)
    high = e.intrinsic(f"llvm.minnum.v{e.lanes}f32", kind)
    value = e.b.call(high, [e.b.call(low, [value, e.every(-87.0)]), e.every(87.0)])
    scaled = e.b.fmul(value, e.every(1.4426950408889634))
    floor = e.intrinsic(f"llvm.floor.v{e.lanes}f32", ir.FunctionType(e.vector, [e.vector]))
    whole = e.b.call(floor, [e.b.fadd(scaled, e.every(0.5))])
    rest = e.fma(whole, e.every(-0.693359375), value)
    rest = e.fma(whole, e.every(2.12194440e-4), rest)
    total = e.every(1 / 5040)
    for factor in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0):
        total = e.fma(total, rest, e.every(factor))
    bias = ir.Constant(ints, [127] * e.lanes)
    shift = ir.Constant(ints, [23] * e.lanes)
    power = e.b.shl(e.b.add(e.b.fptosi(whole, ints), bias), shift)
    return e.b.fmul(total, e.b.bitcast(power, e.vector))
