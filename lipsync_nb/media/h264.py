"""H.264 in an mp4's video stream: one encoder, or several at the same time on segments."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, Protocol

import av
import cv2
import numpy as np
from av.codec.context import Flags
from av.video.reformatter import ColorRange

from lipsync_nb.errors import OutputError
from lipsync_nb.types.arrays import ImageArray

from .imaging import i420_planes

_BT709 = 1
_SQUARE = Fraction(1)
# The fast presets leave out what makes a still background cheap; it costs little time and saves
# three quarters of the bytes at the same quality. Seven B-frames without a search for where they
# fit take a fifth less time and bytes than three that are searched, and 0.4 dB.
_MACROBLOCK_TREE = ("mbtree=1", "rc-lookahead=8")
_PRESET_EXTRAS: dict[str, tuple[str, ...]] = {
    "ultrafast": _MACROBLOCK_TREE,
    "superfast": (*_MACROBLOCK_TREE, "bframes=7", "b-adapt=0"),
}
# Pixels of a macroblock's side, and OpenCV's number of the instruction set.
_MACROBLOCK, _AVX_512F = 16, 13
# From so many threads on, two encoders of half of them each are faster than one.
THREADS_FOR_TWO = 9
# Frames of a segment: what waits for an encoder is held in RAM. x264's own groups have 250.
_LARGEST_SEGMENT, _SMALLEST_SEGMENT, _SEGMENT_BYTES = 250, 25, 200_000_000

# From x264's fastest to its slowest, as NVENC's p1 to p7.
_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow")
_CODECS = {"x264": "libx264", "nvenc": "h264_nvenc"}

Encoder = Literal["x264", "nvenc"]
Packets = Iterable[Any]


@dataclass(frozen=True)
class H264Settings:
    """How pictures are encoded.

    Attributes:
        width, height: in pixels, even.
        fps: frames a second, exactly; the stamps of an mp4 are whole in its time base.
        crf, preset: see `RenderConfig`.
        threads: of all encoders together; 0 leaves the choice to x264.
        pixel_aspect: width of a pixel by its height.
        encoders: at the same time, each on segments of its own; 0: as many as pay.
        encoder: ``x264``, or ``nvenc``: that of an NVIDIA GPU.
        is_immediate: a picture's packet is had with the picture; none waits for later ones.
    """

    width: int
    height: int
    fps: Fraction | int
    crf: int
    preset: str
    threads: int = 0
    pixel_aspect: Fraction = _SQUARE
    encoders: int = 0
    encoder: Encoder = "x264"
    is_immediate: bool = False

    @property
    def num_encoders(self) -> int:
        """One, or two where it has more threads than it can use."""
        if self.encoder == "nvenc":
            return 1
        return self.encoders or (2 if self.threads >= THREADS_FOR_TWO else 1)

    @property
    def codec(self) -> str:
        """FFmpeg's name of it."""
        return _CODECS[self.encoder]

    @property
    def options(self) -> dict[str, str]:
        """As FFmpeg's encoder takes them; NVENC's constant quality has about x264's scale."""
        if self.encoder == "nvenc":
            preset = f"p{1 + _PRESETS.index(self.preset)}"
            tune = {"tune": "ull", "delay": "0"} if self.is_immediate else {"tune": "hq"}
            return {"preset": preset, **tune, "rc": "vbr", "cq": str(self.crf), "b": "0"}
        options = {"crf": str(self.crf), "preset": self.preset}
        extras = () if self.is_immediate else _PRESET_EXTRAS.get(self.preset, ())
        if self.is_immediate:
            options["tune"] = "zerolatency"
        if not self._is_repeatable:
            extras = (*extras, "asm=avx2")
        return options | ({"x264-params": ":".join(extras)} if extras else {})

    @property
    def _is_repeatable(self) -> bool:
        """Whether x264 gives the same bytes each time.

        Its macroblock tree in AVX-512 does not, as measured, where a row is no multiple of 8
        macroblocks: 720x1280 for one; in AVX2 it does.
        """
        return -(-self.width // _MACROBLOCK) % 8 == 0 or not cv2.checkHardwareSupport(_AVX_512F)

    @property
    def segment_frames(self) -> int:
        """Frames of a segment, where several encoders take turns."""
        fitting = _SEGMENT_BYTES // (self.width * self.height * 3 // 2)
        return max(_SMALLEST_SEGMENT, min(_LARGEST_SEGMENT, fitting))

    def apply(self, context: Any) -> None:
        """Set up an encoder that is not open yet."""
        context.height, context.width = self.height, self.width
        context.pix_fmt = "yuv420p"
        context.time_base, context.framerate = 1 / Fraction(self.fps), Fraction(self.fps)
        context.thread_count = -(-self.threads // self.num_encoders)
        if self.pixel_aspect != _SQUARE:
            context.sample_aspect_ratio = self.pixel_aspect
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _BT709

    def new_context(self) -> Any:
        """An encoder of its own, whose packets fit a stream of the same settings in an mp4."""
        context: Any = av.CodecContext.create(self.codec, "w")
        context.options = self.options
        self.apply(context)
        context.flags |= Flags.global_header
        return context


def check_encoder(encoder: Encoder, output: str | Path) -> None:
    """Raise `OutputError` where an encoder is asked for that does not open here.

    Args:
        output: what is to be written, for the message.
    """
    if encoder == "nvenc" and (reason := why_no_nvenc()):
        raise OutputError(
            f"{output}: NVENC was asked for and does not open ({reason}); expected an NVIDIA GPU "
            "that encodes video, which A100 and H100 do not, and its driver."
        )


def why_no_nvenc() -> str:
    """Why NVENC does not open here; empty: it does."""
    try:
        H264Settings(640, 360, 25, 23, "fast", encoder="nvenc").new_context().open()
    except (av.FFmpegError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return ""


class H264Encoder(Protocol):
    """Pictures in, packets for a container out."""

    def write(self, planes: ImageArray, number: int) -> Packets:
        """Take one picture, uint8 ``[H * 3 / 2, W]`` I420, the ``number``-th from 0.

        The array is not used after the packets were taken.
        """

    def finish(self) -> Packets:
        """The packets that are left."""

    def close(self) -> None:
        """End all threads."""


def open_h264(container: Any, settings: H264Settings) -> H264Encoder:
    """Add a video stream to a container; gives what encodes for it."""
    stream = container.add_stream(settings.codec, rate=settings.fps, options=settings.options)
    settings.apply(stream.codec_context)
    if settings.num_encoders == 1:
        return _OneEncoder(stream)
    return _Segments(stream, settings)


KeepSegment = Callable[[Sequence[Any]], None]


def open_segments(settings: H264Settings, keep: KeepSegment) -> H264Encoder:
    """What encodes without a container: each segment's packets are given away when it is done.

    Segments have ``segment_frames`` frames, whatever the number of encoders.

    Args:
        keep: called with the packets of each, in order.
    """
    if settings.num_encoders == 1:
        return _OneByOne(settings, keep)
    return _Segments(None, settings, keep)


class _OneByOne:
    """One encoder for each segment, in the calling thread."""

    def __init__(self, settings: H264Settings, keep: KeepSegment) -> None:
        self._settings, self._keep = settings, keep
        self._context: Any = None
        self._packets: list[Any] = []
        self._count = 0

    def write(self, planes: ImageArray, number: int) -> Packets:
        if self._context is None:
            self._context = self._settings.new_context()
        frame = _video_frame(planes, number, self._context.time_base)
        self._packets += self._context.encode(frame)
        self._count += 1
        return self.finish() if self._count == self._settings.segment_frames else ()

    def finish(self) -> Packets:
        if self._context is not None:
            packets = [*self._packets, *self._context.encode(None)]
            self.close()
            self._keep(packets)
        return ()

    def close(self) -> None:
        self._context, self._packets, self._count = None, [], 0


class _OneEncoder:
    """The stream's own encoder."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._time_base = stream.codec_context.time_base

    def write(self, planes: ImageArray, number: int) -> Packets:
        packets: Packets = self._stream.encode(_video_frame(planes, number, self._time_base))
        return packets

    def finish(self) -> Packets:
        packets: Packets = self._stream.encode(None)
        return packets

    def close(self) -> None:
        """Nothing is left running."""


_Fed = SimpleQueue[tuple[ImageArray, int] | None]


class _Segments:
    """Encoders that take turns: each encodes a segment from its first frame to its last.

    A segment begins with a frame that needs no other one (IDR), as x264's own groups do, so that
    the segments' packets one after the other are one stream. While one encoder works on its
    segment, the frames of the next one go to another. What waits is at most a segment each.
    """

    def __init__(
        self, stream: Any, settings: H264Settings, keep: KeepSegment | None = None
    ) -> None:
        self._stream, self._settings, self._keep = stream, settings, keep
        self._pool = ThreadPoolExecutor(settings.num_encoders, "encode")
        self._running: deque[Future[list[Any]]] = deque()
        self._fed: _Fed | None = None
        self._count, self._is_closed = 0, False
        self._free: deque[ImageArray] = deque()

    def write(self, planes: ImageArray, number: int) -> Iterator[Any]:
        fed = self._fed
        if fed is None or self._count == self._settings.segment_frames:
            yield from self._room()
            fed = self._begin()
        fed.put((self._copy(planes), number))
        self._count += 1
        while self._running and self._running[0].done():
            yield from self._taken()

    def _room(self) -> Iterator[Any]:
        """End the segment that was fed, and wait until an encoder is free."""
        self._end()
        while len(self._running) >= self._settings.num_encoders:
            yield from self._taken()

    def _begin(self) -> _Fed:
        fed: _Fed = SimpleQueue()
        self._fed, self._count = fed, 0
        self._running.append(self._pool.submit(self._encode, fed))
        return fed

    def _end(self) -> None:
        if self._fed is not None:
            self._fed.put(None)
            self._fed = None

    def _taken(self) -> Iterator[Any]:
        """The packets of the oldest segment, once it is encoded."""
        packets = self._running.popleft().result()
        if self._keep is not None:
            self._keep(packets)
            return
        for packet in packets:
            packet.stream = self._stream
            yield packet

    def _copy(self, planes: ImageArray) -> ImageArray:
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = np.empty_like(planes)
        np.copyto(buffer, planes)
        return buffer

    def _encode(self, fed: _Fed) -> list[Any]:
        """In a thread: the packets of a segment."""
        context = self._settings.new_context()
        packets: list[Any] = []
        while (entry := fed.get()) is not None:
            if not self._is_closed:
                planes, number = entry
                packets += context.encode(_video_frame(planes, number, context.time_base))
                self._free.append(planes)
        return packets if self._is_closed else [*packets, *context.encode(None)]

    def finish(self) -> Iterator[Any]:
        self._end()
        while self._running:
            yield from self._taken()

    def close(self) -> None:
        self._is_closed = True
        self._end()
        self._pool.shutdown()


def _video_frame(planes: ImageArray, number: int, time_base: Fraction) -> av.VideoFrame:
    """An I420 picture as ffmpeg's frame, which borrows the array where PyAV can.

    x264 copies the pixels before ``encode`` returns, so that the array is free after it.
    """
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    if height % 4 == 0:
        frame = av.VideoFrame.from_numpy_buffer(planes, format="yuv420p")
    else:
        # PyAV takes the height for a multiple of 4 when it borrows.
        frame = av.VideoFrame(width, height, "yuv420p")
        for target, plane in zip(frame.planes, i420_planes(planes), strict=True):
            lines = np.frombuffer(memoryview(target), np.uint8).reshape(-1, target.line_size)
            lines[: plane.shape[0], : plane.shape[1]] = plane
    frame.pts, frame.time_base = number, time_base
    return frame
