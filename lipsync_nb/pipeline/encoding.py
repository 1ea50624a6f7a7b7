"""From a speech to its feature track, by the avatar's audio encoder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

from lipsync_nb.network.inference import audio_encoder
from lipsync_nb.types.arrays import FloatArray
from lipsync_nb.types.records import ModelSpec, Speech

from .audio_features import speech_features
from .timing import Timings


class Speaker(Protocol):
    """Whose audio encoder is used: what an `Avatar` gives."""

    @property
    def audio_encoder(self) -> Path | None:
        """The encoder's file, if there is one."""


def encode_speech(
    speaker: Speaker,
    speech: Speech,
    provider: str = "auto",
    num_threads: int = 0,
    max_rows: int | None = None,
    timings: Timings | None = None,
) -> FloatArray:
    """The feature track of a speech, encoded where it is sound.

    Args:
        speaker: the avatar.
        provider, num_threads: that the encoder runs with, see `OnnxNetwork`.
        max_rows: see `speech_features`, and `rows_needed`.
        timings: where opening the encoder and the features are noted.

    Returns:
        float32 ``[frames, 512]``.

    Raises:
        NetworkError, ProviderError: the encoder cannot be opened or run.
        SpeechError: see `speech_features`.
    """
    timings = timings or Timings()
    encoder = None
    if speech.features is None and speaker.audio_encoder is not None:
        with timings.stage("open"):
            encoder = audio_encoder(speaker.audio_encoder, provider, num_threads)
    start = time.perf_counter()
    track = speech_features(speech, encoder, max_rows)
    timings.add("features", start, time.perf_counter(), len(track))
    return track


def rows_needed(max_frames: int, spec: ModelSpec) -> int | None:
    """Feature rows that the first ``max_frames`` output frames use; None, all, for 0."""
    return max_frames + spec.rows_after if max_frames else None
