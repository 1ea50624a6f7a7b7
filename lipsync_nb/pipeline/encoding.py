"""From a speech to its feature track, by the avatar's audio encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

from lipsync_nb.network.inference import OnnxNetwork, audio_encoder
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
    *,
    ahead: bool = False,
) -> Track:
    """The feature track of a speech, encoded where it is sound.

    Args:
        speaker: the avatar.
        provider, num_threads: that the encoder runs with, see `OnnxNetwork`.
        max_rows: see `speech_features`, and `rows_needed`.
        timings: where opening the encoder and the features are noted.
        ahead: what is sound is encoded in a thread that goes on while rows are used already; what
            goes wrong is raised where a row is asked for. The rows are the same.

    Returns:
        float32 ``[frames, 512]``.

    Raises:
        NetworkError, ProviderError: the encoder cannot be opened or run.
        SpeechError: see `speech_features`.
    """
    timings = timings or Timings()
    open_encoder = None
    if speech.features is None and speaker.audio_encoder is not None:
        open_encoder = partial(audio_encoder, speaker.audio_encoder, provider, num_threads)
    if ahead and open_encoder is not None:
        rows = num_rows(speech, max_rows)
        # Cores that wait in a loop for the next batch would be missing elsewhere.
        blocks = _timed_blocks(partial(open_encoder, spinning=False), speech, rows, timings)
        started = Started(blocks, BLOCKS_AHEAD, "speech", timings.waiting)
        return EncodedTrack(rows, started, speech.path)
    encoder = None
    if open_encoder is not None:
        with timings.stage("open"):
            encoder = open_encoder()
    start = time.perf_counter()
    track = speech_features(speech, encoder, max_rows)
    timings.add("features", start, time.perf_counter(), len(track))
    return track


def _timed_blocks(
    open_encoder: Callable[[], OnnxNetwork], speech: Speech, rows: int, timings: Timings
) -> Iterator[FloatArray]:
    with timings.stage("open"):
        encoder = open_encoder()
    start = time.perf_counter()
    for block in feature_blocks(speech, encoder, rows):
        timings.add("features", start, time.perf_counter(), len(block))
        yield block
        start = time.perf_counter()


def rows_needed(max_frames: int, spec: ModelSpec) -> int | None:
    """Feature rows that the first ``max_frames`` output frames use; None, all, for 0."""
    return max_frames + spec.rows_after if max_frames else None
