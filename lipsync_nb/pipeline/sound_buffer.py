"""Sound that is still coming: what was given of it so far, and threads that wait for more."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import Any

import numpy as np

from lipsync_nb.errors import SpeechError
from lipsync_nb.media.sound import Resampler, check_rate
from lipsync_nb.media.soundtrack import AAC_SAMPLE_RATES
from lipsync_nb.types.arrays import FLOAT32, FloatArray
from lipsync_nb.types.records import SAMPLE_RATE, checked_sound_array

AHEAD_SECONDS = 1.0
_PIECE_SECONDS = 0.1
_FULL_SCALE = np.float32(2**15)


class SoundClosed(Exception):
    """Nobody wants the sound any more."""


class SoundBuffer:
    """Samples in the order in which they come; what is not needed any more is let go of.

    One thread gives them, any number of threads wait for them.

    Args:
        rate: samples a second.
        ahead_seconds: so much more than was asked for is taken; then whoever gives them waits.

    Attributes:
        count: samples that came so far.
    """

    def __init__(self, rate: int = SAMPLE_RATE, ahead_seconds: float = AHEAD_SECONDS) -> None:
        self.rate, self.count = rate, 0
        self._ahead = ahead_seconds * rate
        self._kept, self._first = np.zeros(0, FLOAT32), 0
        self._asked, self._is_ended, self._is_closed = 0, False, False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    @property
    def has_room(self) -> bool:
        """Whether samples are taken without a wait."""
        return self.count < self._asked + self._ahead or self._is_closed

    def put(self, samples: FloatArray) -> None:
        """Take samples, float32 ``[n]``; waits until there is room.

        Raises:
            SoundClosed: nobody wants them.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.has_room or not len(samples))
            self._check_open()
            self._kept = np.concatenate([self._kept, samples])
            self.count += len(samples)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """No more will come: it is over, or failed with this error."""
        with self._changed:
            self._is_ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody wants more: whoever waits gets `SoundClosed`."""
        with self._changed:
            self._is_closed = True
            self._kept = np.zeros(0, FLOAT32)
            self._changed.notify_all()

    def wait_for(self, count: int) -> bool:
        """Until so many samples came, or the last one did: whether there are so many.

        Raises:
            SoundClosed: nobody wants them.
            BaseException: what went wrong where they come from.
        """
        with self._changed:
            if count > self._asked:
                self._asked = count
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_known(count))
            self._check_open()
            if self.count < count and self._error is not None:
                raise self._error
            return self.count >= count

    def _is_known(self, count: int) -> bool:
        return self.count >= count or self._is_ended or self._is_closed

    def _check_open(self) -> None:
        if self._is_closed:
            raise SoundClosed

    def kept(self) -> tuple[FloatArray, int]:
        """What is here, float32 ``[n]``, not to be written to; and the first sample's number."""
        with self._changed:
            return self._kept, self._first

    def forget(self, until: int) -> None:
        """Let go of the samples before this one."""
        with self._changed:
            # Little by little it would be copied each time.
            if until - self._first >= self.rate // 2:
                self._kept = self._kept[until - self._first :].copy()
                self._first = until

    def blocks(self) -> Generator[FloatArray]:
        """All samples in pieces, float32 ``[1, n]``, waited for; they are let go of."""
        done = 0
        while self.wait_for(done + 1):
            kept, first = self.kept()
            yield kept[None, done - first :]
            done = first + len(kept)
            self.forget(done)


class Intake:
    """Takes chunks of sound as they come: checks them, and gives them on at the rates wanted.

    Args:
        sample_rate: of the chunks.
        has_sound_track: they are wanted for a video's sound track too.

    Attributes:
        sound: for the network, 16 kHz.
        track: for the sound track, at the chunks' own rate where AAC has it, else at 48 kHz.

    Raises:
        SpeechError: there is no speech at such a rate.
    """

    def __init__(self, sample_rate: int = SAMPLE_RATE, has_sound_track: bool = False) -> None:
        check_rate(sample_rate)
        self._rate, self._number = int(sample_rate), 0
        self._piece = round(_PIECE_SECONDS * sample_rate)
        self.sound = SoundBuffer()
        self.track: SoundBuffer | None = None
        if has_sound_track:
            rate = self._rate if sample_rate in AAC_SAMPLE_RATES else 48_000
            # The network, whose sound ends later than its frame's, is waited for already.
            self.track = SoundBuffer(rate, float("inf"))
        self._outlets = [
            (buffer, Resampler(buffer.rate, 1)) for buffer in (self.sound, self.track) if buffer
        ]

    def has_room_for(self, chunk: Any) -> bool:
        """Whether a chunk is taken without a wait."""
        is_short = np.size(chunk) <= self._piece if isinstance(chunk, np.ndarray) else True
        return is_short and self.sound.has_room

    def take(self, chunk: Any) -> None:
        """Take a chunk, see `checked_chunk`; waits where too much is here already.

        Raises:
            SpeechError: it is no sound.
            SoundClosed: nobody wants it.
        """
        samples = checked_chunk(chunk, self._number)
        self._number += 1
        # In pieces, so that neither of those who take them has to wait for the other one.
        for start in range(0, len(samples), self._piece):
            piece = samples[None, start : start + self._piece]
            for buffer, resampler in self._outlets:
                buffer.put(resampler(piece, self._rate)[0])

    def end(self) -> None:
        """There are no more chunks."""
        for buffer, resampler in self._outlets:
            buffer.put(resampler.end()[0])
            buffer.end()

    def end_sound_track(self) -> None:
        """No frame wants more sound, and the sound track gets no more than it has."""
        if self.track is not None:
            self.track.end()

    def fail(self, error: BaseException) -> None:
        """There are no more chunks, because of this error."""
        for buffer, _ in self._outlets:
            buffer.end(error)

    def close(self) -> None:
        """Nobody wants more."""
        for buffer, _ in self._outlets:
            buffer.close()


def checked_chunk(chunk: Any, number: int = 0) -> FloatArray:
    """Samples of a chunk as float32 ``[n]``, about -1..1, a copy; there may be none.

    Args:
        chunk: float ``[n]``, about -1..1, or int16 ``[n]``; mono.
        number: of the chunk, for messages.

    Raises:
        SpeechError: it is of another kind, or holds NaN or infinity.
    """
    expected = "expected a numpy array, float32 [n] (-1..1) or int16 [n], mono"
    if not isinstance(chunk, np.ndarray):
        raise SpeechError(f"chunk {number}: found {_kind(chunk)}, {expected}.")
    if chunk.ndim != 1 or (chunk.dtype != np.int16 and chunk.dtype.kind != "f"):
        raise SpeechError(f"chunk {number}: found {chunk.dtype} {list(chunk.shape)}, {expected}.")
    if not len(chunk):
        return np.zeros(0, FLOAT32)
    if chunk.dtype == np.int16:
        return np.asarray(chunk.astype(FLOAT32) / _FULL_SCALE, FLOAT32)
    try:
        return checked_sound_array("samples", chunk).copy()
    except SpeechError as error:
        raise SpeechError(f"chunk {number}: {error}") from error


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"
