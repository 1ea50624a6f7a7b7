"""From a speech to its feature track, by the avatar's audio encoder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from lipsync_nb.network.inference import audio_encoder
from lipsync_nb.types.arrays import FloatArray
from lipsync_nb.types.records import ModelSpec, Speech

from .audio_features import feature_blocks, num_rows, speech_features
from .prefetch import Started
from .timing import Timings
from .track import EncodedTrack, Track

# Of 64 frames each.
BLOCKS_AHEAD = 4


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


def begin_encoding(
    speaker: Speaker,
    speech: Speech,
    provider: str = "auto",
    num_threads: int = 0,
    max_rows: int | None = None,
    timings: Timings | None = None,
) -> Track:
    """As `encode_speech`, in a thread of its own that goes on while rows are used already.

    Its rows are the same. What goes wrong is raised where a row is asked for.
    """
    timings = timings or Timings()
    if speech.features is not None or speaker.audio_encoder is None:
        return encode_speech(speaker, speech, provider, num_threads, max_rows, timings)
    rows, path = num_rows(speech, max_rows), speaker.audio_encoder

    def blocks() -> Iterator[FloatArray]:
        with timings.stage("open"):
            # Cores that wait in a loop for the next batch would be missing elsewhere.
            encoder = audio_encoder(path, provider, num_threads, spinning=False)
        start = time.perf_counter()
        for block in feature_blocks(speech, encoder, rows):
            timings.add("features", start, time.perf_counter(), len(block))
            yield block
            start = time.perf_counter()

    started = Started(blocks(), BLOCKS_AHEAD, "speech", timings.waiting)
    return EncodedTrack(rows, started, speech.path)


def rows_needed(max_frames: int, spec: ModelSpec) -> int | None:
    """Feature rows that the first ``max_frames`` output frames use; None, all, for 0."""
    return max_frames + spec.rows_after if max_frames else None
