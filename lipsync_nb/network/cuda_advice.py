"""Why a GPU cannot be had: what is missing of driver, device and libraries, and what to do."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

_DRIVERS = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}
# The first drivers for a CUDA: NVIDIA's CUDA Toolkit Release Notes, table of driver versions.
_FIRST_DRIVERS = {11: "450", 12: "525", 13: "580"}
_NO_DEVICE = 100
# What ONNX Runtime's CUDA provider is linked with, and cuDNN, which it loads.
_VERSIONED, _OTHERS, _CUDNN = ("cudart", "cublasLt", "cublas"), ("curand.so.10",), "cudnn.so.9"
_TENSORRT = "nvinfer.so.10"


class _Driver:
    """NVIDIA's driver, as far as it is asked here (CUDA Driver API)."""

    def __init__(self) -> None:
        self.reason, self.count, self.version = "", 0, (0, 0)
        name = _DRIVERS.get(sys.platform, "")
        try:
            if not name:
                raise OSError
            self._library: Any = ctypes.CDLL(name)
        except OSError:
            self.reason = f"there is no NVIDIA driver ({name or sys.platform})"
            return
        self._ask()

    def _ask(self) -> None:
        count, version = ctypes.c_int(0), ctypes.c_int(0)
        code = self._library.cuInit(0)
        if code not in (0, _NO_DEVICE):
            self.reason = f"the NVIDIA driver does not start (cuInit gives {code})"
            return
        if code == 0 and self._library.cuDeviceGetCount(ctypes.byref(count)) == 0:
            self.count = count.value
        if not self.count:
            self.reason = "the NVIDIA driver finds no GPU"
            return
        if self._library.cuDriverGetVersion(ctypes.byref(version)) == 0:
            self.version = version.value // 1000, version.value % 1000 // 10


@functools.cache
def _driver() -> _Driver:
    return _Driver()


def num_devices() -> int:
    """NVIDIA GPUs that the driver finds."""
    return _driver().count


def why_no_cuda(build: str, preload: Callable[[], object]) -> str:
    """What is missing for CUDA, and what to do; empty where nothing is known to be missing.

    Args:
        build: the CUDA that ONNX Runtime is built for, ``13.0``; empty: it is built without.
        preload: loads the libraries that lie in Python packages.
    """
    if not build:
        return "this ONNX Runtime is built without it; pip install onnxruntime-gpu in its place"
    driver = _driver()
    if driver.reason:
        return driver.reason
    if reason := _too_old(driver.version, build):
        return reason
    preload()
    major = build.split(".")[0]
    names = [*(f"{name}.so.{major}" for name in _VERSIONED), *_OTHERS, _CUDNN]
    return _missing(names, 'pip install "onnxruntime-gpu[cuda,cudnn]"')


def why_no_tensorrt(build: str) -> str:
    """What is missing for TensorRT, where CUDA is there."""
    major = build.split(".")[0]
    return _missing([_TENSORRT], f"pip install tensorrt-cu{major}")


def _too_old(version: tuple[int, int], build: str) -> str:
    """Why a driver is too old; any driver of a CUDA's major version serves all of its minor ones.

    (CUDA Compatibility, "minor version compatibility".)
    """
    major = int(build.split(".")[0])
    if not 0 < version[0] < major:
        return ""
    first = _FIRST_DRIVERS.get(major)
    newer = f" ({first} or newer)" if first else ""
    return (
        f"the NVIDIA driver is for CUDA {version[0]}.{version[1]}, this ONNX Runtime for {build}; "
        f"install a newer driver{newer}, or an onnxruntime-gpu for CUDA {version[0]}"
    )


def _missing(names: Sequence[str], advice: str) -> str:
    """The first library that does not load, and where it comes from."""
    if not sys.platform.startswith("linux"):
        return ""
    for name in names:
        try:
            ctypes.CDLL(f"lib{name}")
        except OSError as error:
            text = str(error).rstrip(".")
            found = f"lib{name} is missing" if "No such file" in text else text
            return f"{found}; {advice}"
    return ""
