"""What a generator's output means, told by what it gives for a real picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lipsync_nb.errors import NetworkError
from lipsync_nb.types.arrays import FloatArray

# A picture's brightest percent lies far below the one, or far above the other.
_LARGEST_UNIT, _SMALLEST_BYTES, _LARGEST_BYTES = 2.0, 8.0, 300.0
_LOWEST_UNIT, _LOWEST_BYTES = -0.25, -64.0
_ROUNDING = 0.01


@dataclass(frozen=True)
class OutputRange:
    """What a network's output means.

    Attributes:
        levels: what 1 of it is in a picture of 0..255: 255, or 1.
        note: what is clipped, else empty.
    """

    levels: int = 255
    note: str = ""

    @classmethod
    def of(cls, output: FloatArray, path: Path) -> OutputRange:
        """Told by the values that a network gives for a real picture: 0..1 or 0..255.

        Raises:
            NetworkError: they are neither.
        """
        low, high = np.percentile(output, (1, 99))
        if low >= _LOWEST_UNIT and high <= _LARGEST_UNIT:
            return cls(255, _clipped(output, 1))
        if low >= _LOWEST_BYTES and _SMALLEST_BYTES < high <= _LARGEST_BYTES:
            return cls(1, _clipped(output, 255))
        raise NetworkError(
            f"{path}: for a frame its output reaches from {output.min():.3g} to "
            f"{output.max():.3g}, expected a picture of 0..1 or 0..255."
        )


def _clipped(output: FloatArray, top: int) -> str:
    low, high = float(output.min()), float(output.max())
    if low >= -_ROUNDING * top and high <= (1 + _ROUNDING) * top:
        return ""
    return f"network: its output reaches from {low:.3g} to {high:.3g}, clipped to 0..{top}."
