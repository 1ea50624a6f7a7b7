"""What frames hear of sound that is still coming: rows that are made once their sound is there."""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np

from lipsync_nb.errors import SpeechError
from lipsync_nb.types.arrays import FLOAT32, FloatArray, IndexArray
from lipsync_nb.types.records import SAMPLE_RATE, ModelSpec

from .audio_features import (
    ENCODER_BATCH,
    HOP_LENGTH,
    MEL_BLOCK,
    N_FFT,
    NUM_MELS,
    WINDOW_COLUMNS,
    WindowEncoder,
    cut_windows,
    magnitudes,
    mel_of,
    mel_spectrogram,
    mel_windows,
)
from .audio_times import AudioTimes, RowPlaces
from .sound_buffer import SoundBuffer
from .sound_needed import MIN_SAMPLES, Hearing
from .track import TimedTrack, check_track

# A spectrum reaches back by half its length, and pre-emphasis a sample more: a hop at the most.
_LEAD_SAMPLES = N_FFT // 2 + HOP_LENGTH


class StreamedMel:
    """Columns of the mel of sound that is still coming, the same to the bit as `mel_columns`.

    A block of columns is computed as a whole, of the spectra that are known and zeros, since
    the bits of a column depend on its place in it; each spectrum is computed once.

    Args:
        sound: is let go of as far as columns are forgotten.
    """

    def __init__(self, sound: SoundBuffer) -> None:
        self._sound = sound
        self._spectra = np.zeros((MEL_BLOCK, N_FFT // 2 + 1), FLOAT32)
        self._mel, self._first, self._done = np.zeros((NUM_MELS, 0), FLOAT32), 0, 0

    def until(self, stop: int) -> None:
        """Compute the columns before this one; their samples are there, or never will be."""
        while self._done < stop:
            block = self._done // MEL_BLOCK * MEL_BLOCK
            # Those whose sound is there already take hardly longer now than later.
            heard = (self._sound.count - N_FFT // 2) // HOP_LENGTH + 1
            end = min(max(stop, heard), block + MEL_BLOCK)
            if self._done == block:
                self._spectra[:] = 0
            samples, start = self._sound.kept()
            made = slice(self._done - block, end - block)
            self._spectra[made] = _magnitudes(samples, start, self._done, end)
            self._mel = np.concatenate([self._mel, mel_of(self._spectra)[:, made]], axis=1)
            self._done = end

    def cut(self, start: int, stop: int) -> FloatArray:
        """The columns ``start:stop``, float32 ``[80, n]``."""
        return self._mel[:, start - self._first : stop - self._first]

    def forget(self, until: int) -> None:
        """Let go of the columns before this one, and of the sound that no later one needs."""
        until = min(until, self._done)
        if until > self._first:
            self._mel, self._first = self._mel[:, until - self._first :], until
        self._sound.forget(max(0, self._done * HOP_LENGTH - _LEAD_SAMPLES))


def _magnitudes(samples: FloatArray, start: int, first: int, stop: int) -> FloatArray:
    """Spectra of columns, of samples the first of which is number ``start`` of the speech."""
    # Whole hops are left out, so that columns are numbered by them.
    skipped = -(-start // HOP_LENGTH)
    return magnitudes(samples[skipped * HOP_LENGTH - start :], first - skipped, stop - first)


class Rows(Protocol):
    """What frames hear, by the mel columns that it is made of."""

    def rows(self, mel: StreamedMel, columns: IndexArray) -> FloatArray:
        """Rows ``[n, ...]`` for these places, see `Hearing.columns`, each computed once."""

    def forget(self, until: int) -> None:
        """Let go of what is made of columns before this one."""


class MelRows:
    """Columns of the mel, for networks that hear it itself."""

    def rows(self, mel: StreamedMel, columns: IndexArray) -> FloatArray:
        return mel.cut(int(columns[0]), int(columns[-1]) + 1).T.copy()

    def forget(self, until: int) -> None:
        """Nothing is kept."""


class EncodedRows:
    """Rows that an audio encoder makes of windows of the mel, each once.

    Args:
        encode: audio encoder, ``[k, 1, 80, 16] -> [k, 512]``.
    """

    def __init__(self, encode: WindowEncoder) -> None:
        self._encode = encode
        self._made: dict[int, FloatArray] = {}

    def rows(self, mel: StreamedMel, columns: IndexArray) -> FloatArray:
        starts = columns.tolist()
        missing = np.array(sorted(set(starts) - self._made.keys()), np.int64)
        for first in range(0, len(missing), ENCODER_BATCH):
            self._make(mel, missing[first : first + ENCODER_BATCH])
        return np.stack([self._made[start] for start in starts])

    def _make(self, mel: StreamedMel, starts: IndexArray) -> None:
        low = int(starts[0])
        part = mel.cut(low, int(starts[-1]) + WINDOW_COLUMNS)
        rows = self._encode(cut_windows(part, starts - low)).reshape(len(starts), -1)
        check_track(rows, name="speech")
        self._made.update(zip(starts.tolist(), rows, strict=True))

    def forget(self, until: int) -> None:
        for start in [start for start in self._made if start < until]:
            del self._made[start]


class StreamedTrack(TimedTrack):
    """What each output frame hears of sound that is still coming; whoever asks too early waits.

    Until `begin` it is a track of a trial's sound, of any length: networks are opened and tried
    before there is any other. Any number of threads may use it.

    Args:
        sound: that comes.
        spec: the network's kind.
        times: of the output frames.
        encode: the audio encoder; None: the network hears the mel itself.
        spread: frames that may be asked for after a later one was.
    """

    def __init__(
        self,
        sound: SoundBuffer,
        spec: ModelSpec,
        times: AudioTimes,
        encode: WindowEncoder | None,
        spread: int = 0,
    ) -> None:
        trial = _trial_rows(encode)
        super().__init__(trial, RowPlaces(times, len(trial)))
        self.hearing, self.spread = Hearing(times), spread
        self._sound, self._mel = sound, StreamedMel(sound)
        self._made: Rows = MelRows() if encode is None else EncodedRows(encode)
        self._lock, self._is_begun = threading.Lock(), False

    def __len__(self) -> int:
        """None is known: nothing is calibrated on what has not come yet."""
        return 0

    def begin(self) -> None:
        """From now on it is the sound that comes."""
        self._is_begun = True

    def has(self, frame: int) -> bool:
        """Whether the speech has this frame, once that is known.

        Raises:
            SpeechError: the speech is over, and too short to be one.
        """
        if self._sound.wait_for(self.hearing.needed_samples(frame)):
            return True
        count = self._sound.count
        if count < MIN_SAMPLES:
            seconds = count / SAMPLE_RATE
            raise SpeechError(f"found {seconds:.3f} s of sound, expected at least 0.2 s.")
        return frame < len(self.hearing.places(count))

    def window(self, frame: int, padding: str = "zero") -> FloatArray:
        """See `TimedTrack.window`; waits for the sound.

        Raises:
            SoundClosed: nobody wants it any more.
            BaseException: what went wrong where the sound comes from.
        """
        if not self._is_begun:
            rows = (frame + np.arange(self.places.times.num_heard)) % len(self.rows)
            return np.asarray(self.rows[rows], FLOAT32)
        is_there = self._sound.wait_for(self.hearing.needed_samples(frame))
        num_samples = None if is_there else self._sound.count
        columns = self.hearing.columns(frame, num_samples)
        with self._lock:
            self._mel.until(int(columns.max()) + self.hearing.num_columns)
            window = self._made.rows(self._mel, columns)
            self._forget(frame - self.spread, num_samples)
        if padding == "zero":
            window[self.hearing.places(num_samples).is_outside(frame)] = 0
        return window

    def _forget(self, frame: int, num_samples: int | None) -> None:
        """Let go of what only frames before this one hear."""
        if frame > 0:
            lowest = int(self.hearing.columns(frame, num_samples).min())
            self._mel.forget(lowest)
            self._made.forget(lowest)

    def wait_for(self, count: int) -> None:
        """Nothing is waited for before it is used."""

    def close(self) -> None:
        """Whoever waits gets `SoundClosed`."""
        self._sound.close()


def _trial_rows(encode: WindowEncoder | None) -> FloatArray:
    """Rows of noise that swells from silence for a second, float32 ``[n, ...]``."""
    noise = np.random.default_rng(0).normal(0, 0.2, SAMPLE_RATE) * np.linspace(0, 1, SAMPLE_RATE)
    mel = mel_spectrogram(noise.astype(FLOAT32))
    if encode is None:
        return mel.T.copy()
    windows = mel_windows(mel)
    return encode(windows).reshape(len(windows), -1)
