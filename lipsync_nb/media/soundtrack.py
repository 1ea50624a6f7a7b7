"""The speech's sound as the sound track of a video."""

from __future__ import annotations

from collections.abc import Generator
from fractions import Fraction
from typing import Any

import av
import numpy as np

from lipsync_nb.types.arrays import FloatArray
from lipsync_nb.types.records import SAMPLE_RATE, SoundFile, Speech

from .sound import Decoded, first_block, resampled

AAC_SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


# Samples a second, channels, and the samples ``[channels, n]`` of each block.
Sound = tuple[int, int, Generator[FloatArray, None, None]]


class SoundTrack:
    """Streams the speech's own sound into a container, up to the time of the pictures.

    It is decoded from the copy that was made when the speech was loaded, as its samples were: at
    the file's own rate where AAC has it, else at 48 kHz, in mono or stereo. Or it is given as it
    comes, at a rate that AAC has.
    """

    def __init__(self, container: Any, speech: Speech | Sound, bit_rate: int) -> None:
        sound = _sound_of(speech) if isinstance(speech, Speech) else speech
        self._rate, channels, self._blocks = sound
        self._container = container
        self._layout = "mono" if channels == 1 else "stereo"
        self._stream = container.add_stream("aac", rate=self._rate, layout=self._layout)
        self._stream.bit_rate = bit_rate
        self._written = 0
        self._rest: FloatArray | None = None

    def write_until(self, seconds: Fraction | float) -> None:
        """Encode the samples up to this time, as far as there are any."""
        wanted = round(seconds * self._rate) - self._written
        while wanted > 0:
            block = self._rest if self._rest is not None else next(self._blocks, None)
            if block is None:
                return
            part, rest = block[:, :wanted], block[:, wanted:]
            self._rest = rest if rest.shape[1] else None
            self._encode(part)
            wanted -= part.shape[1]

    def _encode(self, samples: FloatArray) -> None:
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format="fltp", layout=self._layout
        )
        frame.sample_rate = self._rate
        frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
        self._container.mux(self._stream.encode(frame))
        self._written += samples.shape[1]

    def finish(self, seconds: Fraction | float) -> None:
        """Write what is left up to the end of the pictures and flush the encoder."""
        self.write_until(seconds)
        self._container.mux(self._stream.encode(None))

    def close(self) -> None:
        """End the decoding."""
        self._blocks.close()


def _sound_of(speech: Speech) -> Sound:
    """Rate, channels and samples ``[channels, n]`` of a speech's sound."""
    if speech.sound is None:
        return SAMPLE_RATE, 1, _blocks_in_memory(speech)
    rate, channels = _form_of(speech.sound)
    return rate, channels, resampled(Decoded(speech.sound), rate, channels)


def _form_of(sound: SoundFile) -> tuple[int, int]:
    first = first_block(sound)
    rate = first.rate if first.rate in AAC_SAMPLE_RATES else 48_000
    return rate, 1 if len(first.samples) == 1 else 2


def _blocks_in_memory(speech: Speech) -> Generator[FloatArray, None, None]:
    samples = speech.samples if speech.samples is not None else np.zeros(0, np.float32)
    for start in range(0, len(samples), SAMPLE_RATE):
        yield np.ascontiguousarray(samples[None, start : start + SAMPLE_RATE], np.float32)
