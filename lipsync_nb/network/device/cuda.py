"""What is asked of CUDA itself, and not of ONNX Runtime: free memory, and pages that stay."""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from lipsync_nb.network.runtime import cuda_build
from lipsync_nb.types.arrays import AnyArray

_PORTABLE = 1


@functools.cache
def _runtime() -> Any:
    """CUDA's runtime library, or None; ONNX Runtime has loaded it where it runs on CUDA."""
    names = [f"libcudart.so.{cuda_build().partition('.')[0]}", "libcudart.so"]
    for name in names:
        with suppress(OSError):
            return ctypes.CDLL(name)
    return None


def free_device_bytes(device_id: int) -> int | None:
    """Memory of a device that is free; None where CUDA does not say."""
    runtime, free, total = _runtime(), ctypes.c_size_t(0), ctypes.c_size_t(0)
    if runtime is None or runtime.cudaSetDevice(device_id) != 0:
        return None
    if runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)) != 0:
        return None
    return free.value


def pin(array: AnyArray) -> AnyArray:
    """Keep an array's pages in RAM as long as it lives: a GPU copies from and to them directly.

    Where that is not possible it is left as it is, and copies take longer.
    """
    runtime = _runtime()
    address = ctypes.c_void_p(array.ctypes.data)
    if runtime is not None and array.nbytes:
        size = ctypes.c_size_t(array.nbytes)
        if runtime.cudaHostRegister(address, size, ctypes.c_uint(_PORTABLE)) == 0:
            weakref.finalize(array, runtime.cudaHostUnregister, address)
    return array


def buffer_maker(is_cuda: bool) -> Callable[[tuple[int, ...], np.dtype], AnyArray]:
    """Makes arrays that results are written to: pinned where they come from a GPU."""

    def make(shape: tuple[int, ...], dtype: np.dtype) -> AnyArray:
        array = np.empty(shape, dtype)
        return pin(array) if is_cuda else array

    return make
