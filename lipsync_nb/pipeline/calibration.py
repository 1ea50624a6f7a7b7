"""What INT8 is calibrated on: frames of the avatar, each with a moment of speech."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lipsync_nb.avatar.cache import Template
from lipsync_nb.errors import NetworkError, NotFoundError, SpeechError
from lipsync_nb.types.arrays import AnyArray

from .audio_features import load_speech
from .batches import make_batch
from .track import Track

CALIBRATION_FRAMES = 32
FEATURES_FILE = "aud_ave.npy"


def calibration_feeds(
    folder: Path, template: Template, track: Track, names: Sequence[str]
) -> list[dict[str, AnyArray]]:
    """Typical inputs ``[1, ...]`` by name: template frames, evenly spread, as is the speech.

    Args:
        folder: of the avatar, which may hold features of the recording's own speech.
        track: taken where it holds none, float32 ``[n, 512]``.
        names: of the generator's picture and audio input.

    Raises:
        NetworkError: there are no features at all.
    """
    track = _calibration_track(folder, track)
    frames = np.linspace(0, len(template) - 1, CALIBRATION_FRAMES).astype(np.int64)
    moments = np.linspace(0, len(track) - 1, CALIBRATION_FRAMES).astype(np.int64)
    batch = make_batch(template, track, moments, frames)
    return [
        {names[0]: batch.visual[i : i + 1], names[1]: batch.audio[i : i + 1]}
        for i in range(len(batch))
    ]


def _calibration_track(folder: Path, track: Track) -> Track:
    """Features of the recording's own speech where the avatar has them, else of this one."""
    file = folder / FEATURES_FILE
    try:
        own = load_speech(file).features
        if own is not None:
            return own
    except NotFoundError:
        pass
    except SpeechError as error:
        warnings.warn(f"{error} INT8 is calibrated on this speech instead.", stacklevel=2)
    if not len(track):
        raise NetworkError(f"{file}: found no features to calibrate on, nor a speech.")
    return track
