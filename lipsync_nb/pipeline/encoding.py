"""From a speech to its feature track, by the avatar's audio encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np

from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.network.inference import OnnxNetwork, audio_encoder
from lipsync_nb.types.arrays import FloatArray
from lipsync_nb.types.records import ModelSpec, Speech

from .audio_features import (
    MEL_BLOCK,
    collected,
    mel_columns,
    num_mel_columns,
    place_blocks,
    row_places,
)
from .audio_times import AudioTimes, RowPlaces
from .batches import EARLY_FRAMES
from .family_audio import MelPlaces, check_speech
from .feature_tracks import check_room
from .prefetch import Started
from .row_sound import RowSound
from .timing import Timings
from .track import EncodedTrack, TimedTrack, Track

# Of 64 frames each.
BLOCKS_AHEAD = 4
# What becomes of blocks of rows.
Change = Callable[[Iterable[FloatArray], RowSound], Iterable[FloatArray]]


class Speaker(Protocol):
    """Whose audio encoder is used: what an `Avatar` gives."""

    @property
    def spec(self) -> ModelSpec:
        """The family that hears the speech."""

    @property
    def audio_encoder(self) -> Path | None:
        """The encoder's file, if there is one."""


class Played(Protocol):
    """Whose frames are rendered: what an `Avatar` gives."""

    @property
    def fps(self) -> Fraction:
        """Frames a second."""

    @property
    def spec(self) -> ModelSpec:
        """The network's kind."""


def times_of(avatar: Played, config: RenderConfig | None = None) -> AudioTimes:
    """When the output frames of a render hear."""
    spec, offset_ms = avatar.spec, config.audio_offset_ms if config else 0
    rate, offset = Fraction(spec.rows_fps), Fraction(offset_ms, 1000)
    is_mel = spec.audio == "mel"
    return AudioTimes(avatar.fps, rate, spec.rows_before, spec.rows_after, offset, is_mel)


def encode_speech(
    speaker: Speaker,
    speech: Speech,
    provider: str = "auto",
    num_threads: int = 0,
    max_frames: int = 0,
    timings: Timings | None = None,
    *,
    times: AudioTimes | None = None,
    ahead: bool = False,
    change: Change | None = None,
    first_frame: int = 0,
) -> Track:
    """What each frame hears of a speech, encoded where it is sound.

    Args:
        speaker: the avatar.
        provider, num_threads: that the encoder runs with, see `OnnxNetwork`.
        max_frames: so many output frames are wanted, the first; 0: all. What they hear is the
            same as in the whole speech.
        timings: where opening the encoder and the features are noted.
        times: of the output frames; None: the whole track as it is, of which frame i is at row i.
        ahead: what is sound is encoded in a thread that goes on while rows are used already; what
            goes wrong is raised where a row is asked for. The rows are the same.
        change: what becomes of the rows of sound, where given.
        first_frame: that is wanted; rows that only frames before it hear may be zeros, but for
            those of `early_moments`, which a network is tried on.

    Raises:
        NetworkError, ProviderError: the encoder cannot be opened or run.
        SpeechError: see `speech_features`, and `check_speech`.
    """
    timings, spec = timings or Timings(), speaker.spec
    check_speech(speech, spec)
    places = places_of(speech, spec, times)
    wanted = _wanted(places, max_frames if times else 0)
    check_room(speech.path, wanted.rows, prod(spec.row_shape))
    # What the mouth does in pauses is found out from the beginning on.
    skipped = range(0) if change is not None else _skipped(places, first_frame)
    open_encoder = None
    hears_rows = speech.features is None and spec.audio == "encoder"
    if hears_rows and speaker.audio_encoder is not None:
        open_encoder = partial(
            audio_encoder, speaker.audio_encoder, provider, num_threads, row_shape=spec.row_shape
        )
    if ahead and (open_encoder is not None or (speech.features is None and spec.audio == "mel")):
        # Cores that wait in a loop for the next batch would be missing elsewhere.
        opener = partial(open_encoder, spinning=False) if open_encoder else None
        making = partial(_blocks, speech, places, wanted.rows, spec, change, skipped)
        blocks = _timed_blocks(opener, making, wanted, timings)
        started = Started(blocks, BLOCKS_AHEAD, "speech", timings.waiting)
        return _timed(EncodedTrack(wanted.rows, started, speech.path, spec.row_shape), places)
    encoder = None
    if open_encoder is not None:
        with timings.stage("open"):
            encoder = open_encoder()
    start = time.perf_counter()
    if speech.features is not None:
        track = speech.features[: wanted.rows]
    else:
        made = _blocks(speech, places, wanted.rows, spec, change, skipped, encoder)
        track = collected(made, wanted.rows, spec.row_shape)
    timings.add("features", start, time.perf_counter(), wanted.frames)
    return _timed(track, places)


def _skipped(places: RowPlaces, first_frame: int) -> range:
    """The stored rows that a part from a frame on does not need."""
    if not 0 < first_frame < len(places):
        return range(0)
    early = places.num_stored(min(EARLY_FRAMES, first_frame))
    return range(early, int(places.stored(first_frame)[0]))


_EACH_ROW = AudioTimes(Fraction(1), Fraction(1), 0, 1)


def places_of(speech: Speech, spec: ModelSpec, times: AudioTimes | None) -> RowPlaces:
    """Where the rows are stored that output frames hear; without times, each row by itself."""
    if spec.audio != "mel":
        return row_places(speech, times or _EACH_ROW)
    columns = num_mel_columns(speech) if speech.features is None else len(speech.features)
    return RowPlaces(_EACH_ROW, columns) if times is None else MelPlaces(times, columns)


def _blocks(
    speech: Speech,
    places: RowPlaces,
    rows: int,
    spec: ModelSpec,
    change: Change | None,
    skipped: range,
    encoder: OnnxNetwork | None,
) -> Iterable[FloatArray]:
    """The first rows that are stored, of the sound's features or of its mel."""
    is_mel = spec.audio == "mel"
    blocks: Iterable[FloatArray] = _mel_blocks(speech, rows)
    if not is_mel:
        blocks = place_blocks(speech, encoder, places, rows, skipped)
    if change is None or (encoder is None and not is_mel):
        return blocks
    if encoder is None:
        return change(blocks, RowSound.of_mel(rows))
    return change(blocks, RowSound.of_windows(places, rows, encoder))


def _mel_blocks(speech: Speech, rows: int) -> Iterator[FloatArray]:
    """The first columns of a speech's mel as rows of a track, float32 ``[k, 80]`` each."""
    samples = np.empty(0, np.float32) if speech.samples is None else speech.samples
    for first in range(0, rows, MEL_BLOCK):
        yield mel_columns(samples, first, min(first + MEL_BLOCK, rows)).T


@dataclass(frozen=True)
class _Wanted:
    """How many stored rows are wanted, for how many frames."""

    rows: int
    frames: int


def _wanted(places: RowPlaces, max_frames: int) -> _Wanted:
    """For the first frames; where each is at its own row, as many rows are counted as frames."""
    count = min(max_frames, len(places)) if max_frames else len(places)
    if not places.times.is_plain:
        return _Wanted(places.num_stored(count), count)
    # What the last frames hear beyond themselves is there, so that no preview ends in silence.
    rows = min(count + places.times.rows_after, len(places)) if max_frames else count
    return _Wanted(rows, rows)


def _timed(rows: FloatArray | EncodedTrack, places: RowPlaces) -> Track:
    """The rows as they are where frame i is at row i."""
    return rows if places.times.is_plain else TimedTrack(rows, places)


def _timed_blocks(
    open_encoder: Callable[[], OnnxNetwork] | None,
    blocks: Callable[[OnnxNetwork | None], Iterable[FloatArray]],
    wanted: _Wanted,
    timings: Timings,
) -> Iterator[FloatArray]:
    encoder = None
    if open_encoder is not None:
        with timings.stage("open"):
            encoder = open_encoder()
    start, done = time.perf_counter(), 0
    for block in blocks(encoder):
        before, done = done, done + len(block)
        frames = [rows * wanted.frames // wanted.rows for rows in (before, done)]
        timings.add("features", start, time.perf_counter(), frames[1] - frames[0])
        yield block
        start = time.perf_counter()
