"""The speech's sound as the sound track of a video."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from .records import SAMPLE_RATE, Speech

AAC_SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


class SoundTrack:
    """Streams the speech's own sound into the container, up to the time of the pictures."""

    def __init__(self, container: Any, speech: Speech, bit_rate: int) -> None:
        self._source, rate, channels = _open_sound(speech)
        self._container = container
        layout = "mono" if channels == 1 else "stereo"
        self._stream = container.add_stream("aac", rate=rate, layout=layout)
        self._stream.bit_rate = bit_rate
        self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        self._rate = rate
        self._blocks = self._resample()
        self._written = 0
        self._rest: np.ndarray | None = None
        self._layout = layout

    def _resample(self) -> Iterator[np.ndarray]:
        for frame in self._source:
            frame.pts = None
            for block in self._resampler.resample(frame):
                yield block.to_ndarray()
        for block in self._resampler.resample(None):
            yield block.to_ndarray()

    def write_until(self, seconds: float) -> None:
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

    def _encode(self, samples: np.ndarray) -> None:
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format="fltp", layout=self._layout
        )
        frame.sample_rate = self._rate
        frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
        self._container.mux(self._stream.encode(frame))
        self._written += samples.shape[1]

    def finish(self, seconds: float) -> None:
        """Write what is left up to the end of the pictures and flush the encoder."""
        self.write_until(seconds)
        self._container.mux(self._stream.encode(None))

    def close(self) -> None:
        """Close the speech's file."""
        self._blocks.close()  # type: ignore[attr-defined]
        self._source.close()


def _open_sound(speech: Speech) -> tuple[Any, int, int]:
    """Frames of the speech's sound, the sample rate to encode at and the number of channels."""
    if speech.path is None:
        return _memory_frames(speech), SAMPLE_RATE, 1
    with av.open(str(speech.path)) as container:
        context = container.streams.audio[0].codec_context
        rate = context.sample_rate if context.sample_rate in AAC_SAMPLE_RATES else 48_000
        channels = context.layout.nb_channels
    return _file_frames(speech.path), rate, channels


def _file_frames(path: Path) -> Iterator[av.AudioFrame]:
    with av.open(str(path)) as container:
        yield from container.decode(container.streams.audio[0])


def _memory_frames(speech: Speech) -> Iterator[av.AudioFrame]:
    samples = speech.samples if speech.samples is not None else np.zeros(0, np.float32)
    for start in range(0, len(samples), SAMPLE_RATE):
        block = np.ascontiguousarray(samples[None, start : start + SAMPLE_RATE], np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        yield frame
