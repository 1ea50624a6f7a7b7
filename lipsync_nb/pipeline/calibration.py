"""What INT8 is calibrated on: frames of the avatar, each with a moment of speech."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lipsync_nb.avatar.cache import Template
from lipsync_nb.errors import NetworkError, NotFoundError, SpeechError
from lipsync_nb.types.arrays import AnyArray, FloatArray
from lipsync_nb.types.records import ModelSpec

from .audio_features import load_speech
from .batches import make_batch
from .family_audio import check_speech
from .track import Track

CALIBRATION_FRAMES = 32


def calibration_feeds(
    folder: Path, template: Template, track: Track, names: Sequence[str]
) -> list[dict[str, AnyArray]]:
    """Typical inputs ``[1, ...]`` by name: template frames, evenly spread, as is the speech.

    Args:
        folder: of the avatar, which may hold features of the recording's own speech.
        track: taken where it holds none, float32 ``[n, *spec.row_shape]``.
        names: of the generator's picture and audio input.

    Raises:
        NetworkError: there are no features at all.
    """
    track = _calibration_track(folder, track, template.spec)
    pairs = np.linspace((0, 0), (len(template) - 1, len(track) - 1), CALIBRATION_FRAMES)
    # Of what is short, many are the same: once is enough for a range.
    frames, moments = np.unique(pairs.astype(np.int64), axis=0).T
    batch = make_batch(template, track, moments, frames)
    return [
        {names[0]: batch.visual[i : i + 1], names[1]: batch.audio[i : i + 1]}
        for i in range(len(batch))
    ]


def own_features(folder: Path, spec: ModelSpec) -> tuple[FloatArray | None, str]:
    """Features of the recording's own speech, float32 ``[n, *spec.row_shape]``.

    Returns:
        The features, or None; and why not, where there is a file of them.
    """
    if not spec.features_file:
        return None, ""
    try:
        own = load_speech(folder / spec.features_file)
        check_speech(own, spec)
    except NotFoundError:
        return None, ""
    except SpeechError as error:
        return None, str(error)
    return own.features, ""


def _calibration_track(folder: Path, track: Track, spec: ModelSpec) -> Track:
    """Features of the recording's own speech where the avatar has them, else of this one."""
    own, reason = own_features(folder, spec)
    if own is not None:
        return own
    if reason:
        warnings.warn(f"{reason} INT8 is calibrated on this speech instead.", stacklevel=2)
    if not len(track):
        file = folder / spec.features_file
        raise NetworkError(f"{file}: found no {spec.features_name} to calibrate on, nor a speech.")
    return track
