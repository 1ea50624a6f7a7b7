"""The one place that imports ONNX Runtime, with its telemetry switched off."""

from __future__ import annotations

import importlib
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from lipsync_nb.errors import MissingLibraryError

_WHEELS = ("onnxruntime-gpu", "onnxruntime")
_SWITCH = "ORT_DISABLE_TELEMETRY"


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """ONNX Runtime reads the switch while it loads; the environment stays as it was.

    Its wheels send events to their maker otherwise, and write a session file into the folder for
    temporary files.
    """
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SWITCH]
        else:
            os.environ[_SWITCH] = before


def advice_on_wheels() -> str:
    """A sentence where both wheels are installed: the later one has overwritten the other's files.

    Empty where there is one.
    """
    if not all(_is_installed(wheel) for wheel in _WHEELS):
        return ""
    both = " and ".join(_WHEELS)
    return (
        f"{both} are installed at once, and have overwritten each other's files: "
        f"pip uninstall {' '.join(_WHEELS)}, then install the one that is wanted."
    )


def _is_installed(wheel: str) -> bool:
    try:
        metadata.version(wheel)
    except metadata.PackageNotFoundError:
        return False
    return True


try:
    with _without_telemetry():
        import onnxruntime as ort
except ImportError as error:
    raise MissingLibraryError(
        f"ONNX Runtime cannot be imported ({error}). It comes in one of two wheels: pip install "
        "onnxruntime-gpu (CUDA and CPU), or pip install onnxruntime (CPU alone)."
    ) from error

if _advice := advice_on_wheels():
    warnings.warn(_advice, stacklevel=2)

# For a process that had loaded it already.
ort.disable_telemetry_events()

__all__ = ["ort"]


def cuda_build() -> str:
    """The CUDA that this ONNX Runtime is built for, such as ``13.0``; empty where it is not."""
    try:
        info = importlib.import_module("onnxruntime.capi.build_and_package_info")
        build = str(info.cuda_version)
    except (ImportError, AttributeError):
        return ""
    return build if build[:1].isdigit() else ""


def why_too_new(error: Exception) -> str:
    """The versions in an error of ONNX Runtime about a network that is newer than it knows."""
    text = str(error)
    library = f"ONNX Runtime {ort.__version__}"
    found = re.search(r"model IR version: (\d+), max supported IR version: (\d+)", text)
    if found:
        return f"written as IR version {found[1]}, {library} reads up to {found[2]}"
    found = re.search(r"Opset (\d+) is under development.*till opset (\d+)", text, re.DOTALL)
    if found:
        return f"written for opset {found[1]}, {library} knows up to {found[2]}"
    return ""


def first_line(error: Exception) -> str:
    """First line of a message, without ONNX Runtime's code in front."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rsplit(" : ", 1)[-1].rstrip(".")[:200]
