"""The one place that imports ONNX Runtime, with its telemetry switched off."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

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


with _without_telemetry():
    import onnxruntime as ort

# For a process that had loaded it already.
ort.disable_telemetry_events()

__all__ = ["ort"]
