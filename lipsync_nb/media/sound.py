"""Sound in: a copy of a file that was loaded, and the samples that decoding it gives."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
import threading
import weakref
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import soxr

from lipsync_nb.errors import NotFoundError, SpeechError
from lipsync_nb.system.inputs import open_file, what_it_is
from lipsync_nb.types.arrays import AnyArray, FloatArray
from lipsync_nb.types.records import SoundFile

from .containers import open_alone
from .sound_times import (
    TIMED,
    WAV_HEADER_BYTES,
    Clock,
    announced_seconds,
    first_moment,
    packet_seconds,
    seconds_by_header,
)

_IN_MEMORY_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**20
_MOST_ERRORS_IN_A_ROW = 1000
# Outside of it no speech is to be heard, and resampling takes a second of it at a time.
_LOWEST_RATE, _HIGHEST_RATE = 1000, 1_000_000
# Lossy decoders give bursts where their packets are damaged; players cut them off.
_LOUDEST_OF_LOSSY = 4.0
_FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31}
_MOST_PLANES = 7
_LEFT, _RIGHT = ("FL", "SL", "BL", "TFL", "TBL", "WL"), ("FR", "SR", "BR", "TFR", "TBR", "WR")


class Recording:
    """The bytes of a sound file as they were when it was loaded.

    Small files are kept in memory, others in a temporary file without a name. Several threads may
    read; a copy, in this process or another, has bytes of its own.

    Args:
        path: the file.

    Attributes:
        name: of the file, for messages.

    Raises:
        NotFoundError: there is no such file.
        SpeechError: it is no file, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._lock = threading.Lock()
        check_sound_file(path)
        try:
            with open_file(path) as source:
                self._keep(source, os.fstat(source.fileno()).st_size)
        except OSError as error:
            raise SpeechError(f"{path}: cannot be read ({error.strerror or error}).") from error

    def _keep(self, source: BinaryIO, expected_bytes: int) -> None:
        self._file: BinaryIO
        if expected_bytes <= _IN_MEMORY_BYTES:
            self._file = io.BytesIO(source.read())
        else:
            self._check_large(source, expected_bytes)
            self._file = tempfile.TemporaryFile(prefix="lipsync_nb-")  # noqa: SIM115
            while chunk := source.read(_CHUNK_BYTES):
                self._file.write(chunk)
        self.num_bytes = self._file.seek(0, os.SEEK_END)
        weakref.finalize(self, self._file.close)

    def _check_large(self, source: BinaryIO, expected_bytes: int) -> None:
        """Look into a large file, and at the room for its copy, before it is copied."""
        try:
            open_alone(source).close()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise _not_decodable(self.name, error) from error
        source.seek(0)
        place = tempfile.gettempdir()
        if expected_bytes > (free := shutil.disk_usage(place).free):
            found = f"takes {expected_bytes / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free"
            raise SpeechError(f"{self.name}: its copy in {place} {found}.")

    def read_at(self, position: int, count: int) -> bytes:
        """Bytes from a position on; fewer at the end."""
        with self._lock:
            self._file.seek(position)
            return self._file.read(count)

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "content": self.read_at(0, self.num_bytes)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.name, self._lock = state["name"], threading.Lock()
        content = state["content"]
        self._keep(io.BytesIO(content), len(content))


def check_sound_file(path: Path) -> Path:
    """The path of a regular file: others may never end, or never begin.

    Raises:
        NotFoundError: there is no such file.
        SpeechError: it is a folder, a pipe or a device.
    """
    try:
        kind = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise NotFoundError(f"{path}: no such speech file.") from error
    if not stat.S_ISREG(kind):
        raise SpeechError(f"{path}: is {what_it_is(kind)}, expected a sound file.")
    return path


def _not_decodable(name: str, error: Exception) -> SpeechError:
    reason = getattr(error, "strerror", None) or str(error)
    return SpeechError(f"{name}: not decodable as sound ({reason}).")


class _Reader:
    """What ffmpeg may do with a recording: read it, and move in it. It never sees a name."""

    def __init__(self, recording: SoundFile) -> None:
        self._recording, self._position = recording, 0

    def read(self, count: int) -> bytes:
        data = self._recording.read_at(self._position, count)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_CUR: self._position, os.SEEK_END: self._recording.num_bytes}
        self._position = max(0, base.get(whence, 0) + offset)
        return self._position

    def tell(self) -> int:
        return self._position


@dataclass(frozen=True, eq=False)
class Block:
    """Some sound: float32 ``[channels, n]``, about -1..1, at ``rate`` samples a second.

    ``layout`` names the channels as ffmpeg does (``FL``, ``FR``, ``FC``, ...).
    """

    samples: FloatArray
    rate: int
    layout: tuple[str, ...]

    def mono(self) -> FloatArray:
        """The mean of the channels, float32 ``[n]``, as the published script takes it."""
        return np.asarray(self.samples.mean(axis=0, dtype=np.float64), np.float32)

    def with_channels(self, count: int) -> FloatArray:
        """Float32 ``[count, n]``, one channel or two; several are weighed so that none is louder.

        What lies left goes left, what lies right goes right, and the rest to both; bass effects
        are left out.
        """
        if count == 1:
            return self.mono()[None]
        if len(self.samples) == 1:
            return np.repeat(self.samples, 2, axis=0)
        weights = np.array([_weights(name) for name in self.layout], np.float32).T
        if len(self.layout) != len(self.samples) or not weights.any(axis=1).all():
            return np.repeat(self.mono()[None], 2, axis=0)
        mixed = (weights / weights.sum(axis=1, keepdims=True)) @ self.samples
        return np.asarray(mixed, np.float32)


def _weights(name: str) -> tuple[float, float]:
    """How much of a channel goes left and right (ITU-R BS.775: what is shared, by the half)."""
    if name == "LFE":
        return 0.0, 0.0
    if name in _LEFT:
        return (1.0 if name == "FL" else 0.7071), 0.0
    if name in _RIGHT:
        return 0.0, (1.0 if name == "FR" else 0.7071)
    return 0.7071, 0.7071


@dataclass
class Decoded:
    """The sound of a recording, block by block; iterate over it once.

    What players play is given: the first track that can be decoded; damaged packets are passed
    over, and stand as silence where the file tells for how long; the rate and the number of
    channels may change on the way. Where the sound of a video begins after its pictures, silence
    stands before it, as it does when the file is played.

    Attributes:
        recording: what is decoded.
        seconds: of sound given so far.
        lost_packets, lost_seconds: what could not be decoded so far; its length by the file's word.
        silent_seconds: of silence given in place of sound that is missing.
        announced_seconds: length by the file's own word, 0 where it says nothing.
        passed_over: tracks before the one that is given.

    Raises:
        SpeechError: nothing in it can be decoded as sound, or a sample is not finite.
    """

    recording: SoundFile
    seconds: float = 0.0
    lost_packets: int = 0
    lost_seconds: float = 0.0
    silent_seconds: float = 0.0
    announced_seconds: float = 0.0
    passed_over: int = 0
    _first_error: str = ""

    def __iter__(self) -> Iterator[Block]:
        tracks, number = 1, 0
        while number < tracks:
            with self._opened() as container:
                tracks = len(container.streams.audio)
                if not tracks:
                    raise self._error("found no sound track, expected speech")
                yield from self._track(container, container.streams.audio[number])
            if self.seconds:
                return
            number += 1
            self.passed_over, self.lost_packets, self.lost_seconds = number, 0, 0.0
        reason = self._first_error or "it is empty"
        raise self._error(f"not decodable as sound ({reason})")

    def _error(self, text: str) -> SpeechError:
        return SpeechError(f"{self.recording.name}: {text}.")

    def _opened(self) -> Any:
        try:
            return open_alone(_Reader(self.recording))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise _not_decodable(self.recording.name, error) from error

    def _track(self, container: Any, stream: Any) -> Iterator[Block]:
        timed = container.format.name in TIMED
        self.announced_seconds = announced_seconds(container, stream)
        if container.format.name == "wav":
            self.announced_seconds = seconds_by_header(self.recording.read_at(0, WAV_HEADER_BYTES))
        clock = Clock(first_moment(container) if timed else None)
        for frame in self._frames(container, stream):
            block = self._block(frame, stream.codec_context.name.startswith("pcm_"))
            length = block.samples.shape[1] / block.rate
            if timed and frame.pts is not None:
                time = float(frame.pts * frame.time_base)
                yield from self._silence(clock.gap(time, length, self.seconds), block)
            self.seconds += length
            yield block

    def _silence(self, seconds: float, block: Block) -> Iterator[Block]:
        is_gap, count = bool(self.seconds), round(seconds * block.rate)
        for start in range(0, count, block.rate):
            length = min(block.rate, count - start)
            zeros = np.zeros((len(block.samples), length), np.float32)
            self.silent_seconds += length / block.rate if is_gap else 0.0
            self.seconds += length / block.rate
            yield Block(zeros, block.rate, block.layout)

    def _frames(self, container: Any, stream: Any) -> Iterator[Any]:
        in_a_row = 0
        packets = container.demux(stream)
        while in_a_row < _MOST_ERRORS_IN_A_ROW:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                # Until the next packet is found, each try may fail: that is one loss.
                if not in_a_row:
                    self._note(error)
                in_a_row, packets = in_a_row + 1, container.demux(stream)
                continue
            if packet is None:
                return
            try:
                frames = packet.decode()
            except (av.FFmpegError, OSError, NotImplementedError, ValueError) as error:
                self._note(error)
                self.lost_seconds += packet_seconds(packet)
                in_a_row += 1
                continue
            wrong = [f.sample_rate for f in frames if not _is_usual(f.sample_rate)]
            if wrong:
                self._note(ValueError(_wrong_rate(wrong[0])))
                in_a_row += 1
                continue
            in_a_row = 0
            yield from frames

    def _note(self, error: Exception) -> None:
        if not self._first_error:
            self._first_error = getattr(error, "strerror", None) or str(error)
        self.lost_packets += 1

    def _block(self, frame: av.AudioFrame, is_pcm: bool) -> Block:
        layout = tuple(channel.name for channel in frame.layout.channels)
        samples = _as_float(frame)
        if not np.isfinite(samples).all():
            raise self._error(
                f"holds samples that are not finite, about {self.seconds:.2f} s after its start; "
                "expected -1..1"
            )
        if not is_pcm:
            samples = samples.clip(-_LOUDEST_OF_LOSSY, _LOUDEST_OF_LOSSY)
        return Block(samples, frame.sample_rate, layout)


def check_rate(rate: object) -> None:
    """Raise `SpeechError` where no speech has so many samples a second."""
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer) or not _is_usual(int(rate)):
        found = f"found {rate!r}, expected a whole number, {_LOWEST_RATE} to {_HIGHEST_RATE}"
        raise SpeechError(f"sample_rate: {found}.")


def _is_usual(rate: int) -> bool:
    return _LOWEST_RATE <= rate <= _HIGHEST_RATE


def _wrong_rate(rate: int) -> str:
    return f"found {rate} samples a second, expected {_LOWEST_RATE} to {_HIGHEST_RATE}"


def _as_float(frame: av.AudioFrame) -> FloatArray:
    """Float32 ``[channels, n]`` of a frame of any sample format."""
    kind, count = frame.format.name.removesuffix("p"), frame.layout.nb_channels
    if kind not in {*_FULL_SCALE, "flt", "dbl"}:
        (frame,) = av.AudioResampler(format="flt").resample(frame)
        kind = "flt"
    elif frame.format.is_planar and count > _MOST_PLANES:
        # PyAV (18.1) looks for planes beyond the last one of so many, and reads from anywhere.
        (frame,) = av.AudioResampler(format=kind).resample(frame)
    array: AnyArray = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, count).T
    scale = _FULL_SCALE.get(kind)
    if scale is None:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(array, np.float32)
    centre = scale if kind == "u8" else 0.0
    return np.ascontiguousarray((array.astype(np.float64) - centre) / scale, np.float32)


class Resampler:
    """Sound of one rate after the other to one rate, with soxr's high quality.

    Args:
        rate: samples a second that are given.
        channels: of what is taken and given.
    """

    def __init__(self, rate: int, channels: int) -> None:
        self._rate, self._channels = rate, channels
        self._stream: Any = None
        self._source_rate = rate

    def __call__(self, samples: FloatArray, rate: int) -> FloatArray:
        """Take float32 ``[channels, n]`` at a rate; gives what is ready of it, alike."""
        ended = np.zeros((self._channels, 0), np.float32)
        if rate != self._source_rate:
            ended = self.end()
            self._source_rate = rate
        if rate == self._rate:
            return np.concatenate([ended, samples], axis=1)
        if self._stream is None:
            self._stream = soxr.ResampleStream(
                rate, self._rate, self._channels, dtype="float32", quality="HQ"
            )
        return np.concatenate([ended, self._resampled(samples, False)], axis=1)

    def end(self) -> FloatArray:
        """What is left, when there is no more of this rate."""
        if self._stream is None:
            return np.zeros((self._channels, 0), np.float32)
        rest = self._resampled(np.zeros((self._channels, 0), np.float32), True)
        self._stream = None
        return rest

    def _resampled(self, samples: FloatArray, last: bool) -> FloatArray:
        rows = np.ascontiguousarray(samples.T)
        given = self._stream.resample_chunk(rows[:, 0] if self._channels == 1 else rows, last=last)
        return np.ascontiguousarray(given.reshape(-1, self._channels).T, np.float32)


def resampled(
    blocks: Iterable[Block], rate: int, channels: int
) -> Generator[FloatArray, None, None]:
    """The sound of blocks at one rate, as one channel or two: float32 ``[channels, n]`` each."""
    resampler = Resampler(rate, channels)
    for block in blocks:
        given = resampler(block.with_channels(channels), block.rate)
        if given.shape[1]:
            yield given
    rest = resampler.end()
    if rest.shape[1]:
        yield rest


def first_block(recording: SoundFile) -> Block:
    """The first sound of a recording.

    Raises:
        SpeechError: see `Decoded`.
    """
    return next(iter(Decoded(recording)))
