"""Where networks run: CUDA or the CPU, and why CUDA cannot be had."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import sys
import warnings
from pathlib import Path

from lipsync_nb.errors import ProviderError

from .runtime import ort

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
_CUDNN = "libcudnn.so.9"


def providers(wanted: str) -> list[str]:
    """Execution providers in the order of trying, for ``auto``, ``cpu`` or ``cuda``.

    What is known to fail is not tried: ONNX Runtime would write about it on the console, which it
    has no setting for but one of the whole process.
    """
    if wanted == "cpu" or _why_no_cuda():
        return [CPU]
    return [CUDA, CPU]


def first_provider(wanted: str) -> str:
    """The execution provider that ONNX Runtime tries first for ``auto``, ``cpu`` or ``cuda``."""
    return providers(wanted)[0]


def check_provider(wanted: str, bound: str, path: Path) -> None:
    """Tell of a network that was bound to another provider than wanted.

    Raises:
        ProviderError: CUDA was asked for.
    """
    if bound == CUDA or wanted == "cpu":
        return
    why = _why_no_cuda() or f"ONNX Runtime bound {bound}"
    if wanted == "cuda":
        raise ProviderError(
            f"{path}: CUDA was asked for and did not load, {why}; expected an NVIDIA driver, the "
            "CUDA and cuDNN libraries, and onnxruntime-gpu."
        )
    if _cuda_device_present():
        text = f"{path}: there is a CUDA device, but it is not used: {why}."
        warnings.warn(text, stacklevel=4)


@functools.cache
def _why_no_cuda() -> str:
    """What is missing of CUDA, empty where nothing is known to be."""
    if CUDA not in ort.get_available_providers():
        return "this ONNX Runtime is built without it"
    if not _cuda_device_present():
        return "there is no CUDA device"
    _preload_cuda_libraries()
    for name in _libraries():
        try:
            ctypes.CDLL(name)
        except OSError as error:
            return str(error).rstrip(".")
    return ""


def _libraries() -> list[str]:
    """The libraries that this build of ONNX Runtime needs, as far as they are known here."""
    if not sys.platform.startswith("linux"):
        return []
    try:
        info = importlib.import_module("onnxruntime.capi.build_and_package_info")
        major = str(info.cuda_version).split(".")[0]
    except (ImportError, AttributeError):
        return []
    if not major.isdigit():
        return []
    return [*(f"lib{name}.so.{major}" for name in ("cudart", "cublasLt", "cublas")), _CUDNN]


def _preload_cuda_libraries() -> None:
    """Load CUDA and cuDNN from their pip packages, where ONNX Runtime offers that (>= 1.21)."""
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(None):
            ort.preload_dlls()


@functools.cache
def _cuda_device_present() -> bool:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return False
    return count.value > 0
