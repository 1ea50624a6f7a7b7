"""Row kernels compiled for a processor, and run as lists of calls."""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import llvmlite
import llvmlite.binding as llvm
from llvmlite import ir

from lipsync_nb.errors import NetworkError
from lipsync_nb.network.row_fusion.emitter import (
    F32,
    I8,
    I32,
    I64,
    OPERANDS,
    PTR,
    Emitter,
    Kernel,
    Target,
)
from lipsync_nb.types.arrays import AnyArray, IndexArray

_RECORD = 2 + 2 * OPERANDS
_OBJECT = "rows.o"

Result = TypeVar("Result")


class CodeStore(Protocol):
    """Where machine code is kept, see `NetworkStore`."""

    def __hash__(self) -> int:
        """The same for stores of the same folders."""

    def fetch(
        self,
        key: Sequence[object],
        names: Sequence[str],
        make: Callable[[], dict[str, bytes]],
        use: Callable[[dict[str, bytes]], Result],
    ) -> Result:
        """Use the files that were kept under a key; made, and kept, where they are not there."""


class Machine:
    """Compiled kernels, and what runs lists of calls of them.

    A call is int64 ``[14]``: number of the kernel, bits of ``t``, and for each of the six
    operands a base and the bytes behind it.

    Args:
        target: what they are compiled for; running them asks for a processor that has all of it.
        store: where the machine code is kept; None: nowhere.

    Raises:
        NetworkError: LLVM does not compile them for this processor.
    """

    def __init__(
        self, kernels: Sequence[Kernel], target: Target, store: CodeStore | None = None
    ) -> None:
        try:
            self._engine, address = _machine_code(kernels, target, store)
        except RuntimeError as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise NetworkError(f"LLVM does not compile them ({first}).") from error
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        self._run = kind(address)

    def __call__(self, calls: IndexArray, bases: AnyArray) -> None:
        """Run int64 ``[n, 14]`` calls on uint64 ``[k]`` addresses, without the GIL."""
        self._run(calls.ctypes.data, bases.ctypes.data, len(calls))


@functools.lru_cache(maxsize=16)
def compiled(
    kernels: tuple[Kernel, ...], target: Target, store: CodeStore | None = None
) -> Machine:
    """The machine for these kernels; the same one where they were compiled before."""
    return Machine(kernels, target, store)


def assembly(kernels: Sequence[Kernel], target: Target) -> str:
    """The machine code of these kernels, as text, for whoever works on them."""
    optimised, machine = _optimise(kernels, target)
    text: str = machine.emit_assembly(optimised)
    return text


def _emit(kernels: Sequence[Kernel], target: Target) -> ir.Module:
    module = ir.Module("rows")
    functions = []
    for number, kernel in enumerate(kernels):
        emitter = Emitter(module, f"kernel{number}", target)
        kernel.emit(emitter)
        functions.append(emitter.end())
    _emit_driver(module, functions)
    return module


def _emit_driver(module: ir.Module, functions: Sequence[ir.Function]) -> None:
    driver = ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR, PTR, I64]), "run")
    calls, bases, count = driver.args
    b = ir.IRBuilder(driver.append_basic_block("entry"))
    head, tail, done = (driver.append_basic_block(name) for name in ("head", "tail", "done"))
    entry = b.block
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(I64)
    index.add_incoming(ir.Constant(I64, 0), entry)
    record = b.gep(calls, [b.mul(index, ir.Constant(I64, _RECORD))], source_etype=I64)

    def entry_of(place: int) -> ir.Value:
        return b.load(b.gep(record, [ir.Constant(I64, place)], source_etype=I64), typ=I64)

    operands = []
    for number in range(OPERANDS):
        slot = b.gep(bases, [entry_of(2 + 2 * number)], source_etype=PTR)
        base = b.load(slot, typ=PTR)
        operands.append(b.gep(base, [entry_of(3 + 2 * number)], source_etype=I8))
    t = b.bitcast(b.trunc(entry_of(1), I32), F32)
    switch = b.switch(entry_of(0), tail)
    for number, function in enumerate(functions):
        block = driver.append_basic_block()
        switch.add_case(ir.Constant(I64, number), block)
        inner = ir.IRBuilder(block)
        inner.call(function, [*operands, t])
        inner.branch(tail)
    b.position_at_end(tail)
    following = b.add(index, ir.Constant(I64, 1))
    index.add_incoming(following, tail)
    b.cbranch(b.icmp_unsigned("<", following, count), head, done)
    b.position_at_end(done)
    b.ret_void()


def _target_machine(**options: Any) -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(**options)


def _optimise(
    kernels: Sequence[Kernel], target: Target
) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    machine = _target_machine(cpu=target.cpu, features=target.features, opt=3)
    parsed = llvm.parse_assembly(str(_emit(kernels, target)))
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    return parsed, machine


def _machine_code(
    kernels: Sequence[Kernel], target: Target, store: CodeStore | None
) -> tuple[llvm.ExecutionEngine, int]:
    """Compiled, or as an earlier process left it: LLVM takes half a second, reading it 2 ms."""
    key = ("rows", repr(tuple(kernels)), repr(target), llvmlite.__version__, _own_sources())

    def make() -> dict[str, bytes]:
        return {_OBJECT: _object_code(tuple(kernels), target)}

    return _linked(make()) if store is None else store.fetch(key, (_OBJECT,), make, _linked)


@functools.lru_cache(maxsize=16)
def _object_code(kernels: tuple[Kernel, ...], target: Target) -> bytes:
    """The object file, at most a few hundred KB: avatars of one architecture have the same."""
    optimised, machine = _optimise(kernels, target)
    code: bytes = machine.emit_object(optimised)
    return code


def _linked(files: dict[str, bytes]) -> tuple[llvm.ExecutionEngine, int]:
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(files[_OBJECT]))
    engine.finalize_object()
    address = engine.get_function_address("run")
    if not address:
        raise NetworkError("the machine code has no function 'run'.")
    return engine, address


@functools.cache
def _own_sources() -> str:
    """Digest of what writes the code: what it wrote before counts no more when it changes."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for name in ("emitter.py", "kernels.py", "byte_emitter.py", "byte_kernels.py", "machine.py"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
