"""What INT8 is calibrated on: frames of the avatar, each with a moment of speech."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lipsync_nb.avatar.cache import Template
from lipsync_nb.errors import NetworkError, NotFoundError, SpeechError
from lipsync_nb.media.video import decoding_on
from lipsync_nb.system.steps import told
from lipsync_nb.types.arrays import AnyArray, FloatArray, IndexArray
from lipsync_nb.types.records import ModelSpec

from .audio_features import load_speech
from .batches import audio_rows, make_batch
from .family_audio import check_speech
from .track import Track

CALIBRATION_FRAMES = 32
# How its moments are chosen: part of the key of what is kept.
CALIBRATION_FORM = "far apart"
# Moments of speech among which the most different are sought.
_CANDIDATES = 500


def calibration_feeds(
    folder: Path, template: Template, track: Track, names: Sequence[str]
) -> list[dict[str, AnyArray]]:
    """Typical inputs ``[1, ...]`` by name: template frames, evenly spread, and unlike moments.

    Ranges are those of the samples: a wide-open mouth that none of them has is cut off. On the
    demo's recording with a network of the full width, moments evenly spread gave 28.8 dB in the
    worst of 220 held-out frames (mouth region, against FP32), as many that are far apart 38.1 dB.

    Args:
        folder: of the avatar, which may hold features of the recording's own speech.
        track: taken where it holds none, float32 ``[n, *spec.row_shape]``.
        names: of the generator's picture and audio input.

    Raises:
        NetworkError: there are no features at all.
    """
    track = _calibration_track(folder, track, template.spec)
    chosen = unlike_moments(track, CALIBRATION_FRAMES, template.spec)
    frames = np.linspace(0, len(template) - 1, CALIBRATION_FRAMES).astype(np.int64)
    pairs = np.stack([frames, np.resize(chosen, CALIBRATION_FRAMES)], axis=1)
    # Of what is short, many are the same: once is enough for a range.
    frames, moments = np.unique(pairs, axis=0).T
    feeds = list[dict[str, AnyArray]]()
    with decoding_on():
        # Where few frames are kept, each of these is looked for in a video.
        for i in told("reading frames to calibrate on", range(len(frames)), len(frames)):
            batch = make_batch(template, track, moments[i : i + 1], frames[i : i + 1])
            feeds.append({names[0]: batch.visual, names[1]: batch.audio})
    return feeds


def unlike_moments(track: Track, count: int, spec: ModelSpec) -> IndexArray:
    """So many moments whose audio windows are far from each other, int64 ``[count]``, or fewer.

    The first is the farthest from the mean, each other one the farthest from those before it
    (Gonzalez 1985, "Clustering to minimize the maximum intercluster distance").
    """
    moments = np.unique(np.linspace(0, len(track) - 1, _CANDIDATES).astype(np.int64))
    windows = np.stack([audio_rows(track, int(i), spec).ravel() for i in moments])
    distances = np.square(windows - windows.mean(axis=0)).sum(axis=1)
    chosen = list[int]()
    while len(chosen) < count and (not chosen or distances.max() > 0):
        farthest = int(distances.argmax())
        from_it = np.square(windows - windows[farthest]).sum(axis=1)
        distances = np.minimum(distances, from_it) if chosen else from_it
        chosen.append(farthest)
    return moments[chosen]


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
