"""Kinds of arrays, and what is checked of those that come from outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lipsync_nb.errors import SpeechError

FloatArray = npt.NDArray[np.float32]
ImageArray = npt.NDArray[np.uint8]
IndexArray = npt.NDArray[np.int64]
AnyArray = npt.NDArray[Any]

FEATURE_SIZE = 512
# Float sound that was recorded or mixed too loud may pass 1 a little; integers are far above it.
LOUDEST_SAMPLE = 16.0
# Of float16, as bits.
_INFINITY, _MINUS_INFINITY = 0x7C00, 0xFC00


def shown(value: object) -> str:
    """A value for a message, not too long."""
    try:
        text = repr(value)
    except ValueError:  # integers of over 4300 digits
        return "a very long number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def checked_sound_array(name: str, values: AnyArray) -> FloatArray:
    """Samples or features as float32; raise `SpeechError` where they are of another kind."""
    expected = "float32 [n], -1..1" if name == "samples" else f"float32 [n, {FEATURE_SIZE}]"
    if not isinstance(values, np.ndarray):
        kind = type(values).__name__
        raise SpeechError(f"found {name} in a {kind}, expected a numpy array, {expected}.")
    shape = values.shape
    if len(shape) != (1 if name == "samples" else 2) or shape[1:] not in ((), (FEATURE_SIZE,)):
        raise SpeechError(f"found {name} of shape {shape}, expected {expected}.")
    if values.dtype.kind != "f":
        raise SpeechError(f"found {name} of {values.dtype}, expected {expected}.")
    if not len(values):
        raise SpeechError(f"found no {name}, expected {expected}, one or more.")
    with np.errstate(over="ignore"):
        given: FloatArray = values.astype(np.float32, copy=False)
    low, high = float(given.min()), float(given.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise SpeechError(
            f"the {name} hold values that are not finite as float32, expected {expected}."
        )
    if name == "samples" and max(-low, high) > LOUDEST_SAMPLE:
        raise SpeechError(f"found samples from {low:.4g} to {high:.4g}, expected {expected}.")
    return given


def are_finite(values: AnyArray) -> bool:
    """Whether an array, contiguous, holds neither NaN nor infinity."""
    if values.dtype != np.float16:
        return bool(values.dtype.kind in "ui" or np.isfinite(values).all())
    # The largest exponent means NaN or infinity; a thirtieth of the time of isfinite.
    bits = values.view(np.uint16)
    return bool(
        bits.max(initial=0) < _MINUS_INFINITY and bits.view(np.int16).max(initial=0) < _INFINITY
    )
