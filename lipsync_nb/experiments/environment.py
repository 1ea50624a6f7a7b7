"""The machine that measurements are made on, and the memory they take."""

from __future__ import annotations

import platform
import threading
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import llvmlite.binding as llvm
import psutil

from lipsync_nb.system.limits import available_cores

_SAMPLE_SECONDS = 0.05
# As LLVM names them: what works on 8-bit and 32-bit numbers, on x86-64 and Arm.
_INSTRUCTIONS = (
    "avx", "avx2", "fma", "avx512f", "avx512vnni", "avxvnni", "amx-int8",
    "neon", "dotprod", "i8mm", "sve",
)  # fmt: skip
_PACKAGES = (
    "lipsync_nb",
    "onnxruntime-gpu",
    "onnxruntime",
    "opencv-python",
    "numpy",
    "joblib",
    "av",
)


class PeakMemory:
    """Samples the process's resident memory while it is entered; ``bytes`` is the largest."""

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.bytes = max(self.bytes, process.memory_info().rss)
            if self._stop.wait(_SAMPLE_SECONDS):
                return

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def environment() -> dict[str, str]:
    """The machine, the versions of what does the work, and the date."""
    found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": str(available_cores()),
        "processor": _processor(),
        "instructions": instruction_sets() or "unknown",
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def instruction_sets() -> str:
    """Those of this processor's vector instructions that decide how fast networks run.

    Example:
        >>> "avx2" in instruction_sets()  # doctest: +SKIP
        True
    """
    try:
        features = llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM does not know them for every kind of processor
        return ""
    return " ".join(name for name in _INSTRUCTIONS if features.get(name))


def _processor() -> str:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
