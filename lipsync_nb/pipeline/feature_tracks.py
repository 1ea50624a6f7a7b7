"""Ready feature tracks: ``.npy`` files of a row a frame."""

from __future__ import annotations

import math
import tokenize
from pathlib import Path

import numpy as np

from lipsync_nb.errors import SpeechError
from lipsync_nb.system.inputs import open_file
from lipsync_nb.system.limits import free_memory_bytes
from lipsync_nb.types.arrays import FloatArray
from lipsync_nb.types.records import FEATURE_SIZE

_LONGEST_HEADER_BYTES = 2**16

# What numpy's reader raises for headers that are no headers.
_BROKEN_HEADER = (
    ValueError, OSError, EOFError, OverflowError, SyntaxError, TypeError, KeyError,
    RecursionError, MemoryError, tokenize.TokenError,
)  # fmt: skip


def read_feature_track(path: Path) -> FloatArray:
    """The features of a file, float32 ``[n, ...]``.

    Raises:
        SpeechError: it is no such file, of another shape, not finite, or takes more memory than
            there is.
    """
    try:
        _check_header(path)
        # Mapped first: a header that claims more than the file holds takes no memory.
        track = np.lib.format.open_memmap(path, mode="r")
    except _BROKEN_HEADER as error:
        raise SpeechError(f"{path}: not a readable .npy file of numbers.") from error
    expected = f"expected float [n, {FEATURE_SIZE}], or as a family has them, with n >= 1"
    if not isinstance(track, np.ndarray) or track.ndim < 2 or 0 in track.shape[1:]:
        raise SpeechError(f"{path}: found features of shape {np.shape(track)}, {expected}.")
    if len(track) == 0 or not np.issubdtype(track.dtype, np.floating):
        raise SpeechError(f"{path}: found {len(track)} rows of {track.dtype}, {expected}.")
    check_room(path, len(track), math.prod(track.shape[1:]))
    with np.errstate(over="ignore"):
        values = np.array(track, dtype=np.float32)
    if not np.isfinite(values).all():
        raise SpeechError(f"{path}: the features hold values that are not finite as float32.")
    return values


def _check_header(path: Path) -> None:
    """Raise `ValueError` where a file says of its header that it is longer than any is."""
    with open_file(path) as file:
        start = file.read(12)
    size = int.from_bytes(start[8:12] if start[6:7] > b"\1" else start[8:10], "little")
    if size > _LONGEST_HEADER_BYTES:
        raise ValueError(f"its header is said to have {size} bytes")


def check_room(path: Path | None, rows: int, values: int = FEATURE_SIZE) -> None:
    """Raise `SpeechError` where so many rows of so many values take more memory than there is."""
    needed = rows * values * np.dtype(np.float32).itemsize
    free = free_memory_bytes()
    if needed > free:
        raise SpeechError(
            f"{path or 'speech'}: the features of {rows} rows take {needed >> 20} MiB of "
            f"memory, and {free >> 20} MiB are free; expected a shorter speech, or max_frames."
        )
