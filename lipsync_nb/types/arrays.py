"""Names of the arrays that flow between the rooms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
ImageArray = npt.NDArray[np.uint8]
IndexArray = npt.NDArray[np.int64]
AnyArray = npt.NDArray[Any]
Shape = tuple[int, ...]
FLOAT32, UINT8 = np.dtype(np.float32), np.dtype(np.uint8)

# Of float16, as bits.
_INFINITY, _MINUS_INFINITY = 0x7C00, 0xFC00


def are_finite(values: AnyArray) -> bool:
    """Whether an array, contiguous, holds neither NaN nor infinity."""
    if values.dtype != np.float16:
        return bool(values.dtype.kind in "ui" or np.isfinite(values).all())
    # The largest exponent means NaN or infinity; a thirtieth of the time of isfinite.
    bits = values.view(np.uint16)
    return bool(
        bits.max(initial=0) < _MINUS_INFINITY and bits.view(np.int16).max(initial=0) < _INFINITY
    )
