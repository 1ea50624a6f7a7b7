"""Where the frames of a video file are: their times, and the packets that decoding may start at."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

from lipsync_nb.errors import AvatarError
from lipsync_nb.media.imaging import Turn
from lipsync_nb.system.inputs import check_regular, open_handle
from lipsync_nb.system.limits import MOST_PIXELS, check_pixels

from .containers import open_alone
from .nal_units import is_entry_h264, is_entry_hevc

_MATRIX = "DISPLAYMATRIX"
_BUFFER_BYTES = 1 << 16
_TIMED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
_INTRA = {
    "mjpeg", "png", "prores", "dnxhd", "rawvideo", "huffyuv", "ffvhuff", "utvideo", "v210",
    "jpeg2000", "dvvideo",
}  # fmt: skip
# Packets whose key mark alone says that what follows does not depend on what came before.
_MARKED = {"vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mpeg1video", *_INTRA}
# Each packet of these is a picture that is shown, once the first one is decoded.
_FRAME_A_PACKET = {"h264", "hevc", "vp9", "av1", *_INTRA}


class OpenVideo:
    """A video file that is open; its bytes are read by Python, and no other file with it.

    ffmpeg never sees the name, so that colons and bytes that are no text are nothing special.

    Args:
        threaded: decode with several threads: faster for many frames, slower for the first.

    Raises:
        AvatarError: it is not decodable as a video, or holds no pictures.
    """

    def __init__(self, path: str | Path, threaded: bool = True) -> None:
        self.path = path
        with errors_of(path):
            self._file = _Bytes(path)
            self._state = _state(self._file.status())
            self.container: Any = open_alone(self._file, _BUFFER_BYTES)
        if not self.container.streams.video:
            self.close()
            raise AvatarError(f"{path}: found no pictures, expected a video.")
        self.stream: Any = self.container.streams.video[0]
        self._check_stream()
        # A frame may be larger than its container says.
        self.stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        if threaded:
            self.stream.thread_type = "AUTO"
        else:
            self.stream.codec_context.thread_count = 1

    def _check_stream(self) -> None:
        try:
            if self.stream.codec_context is None:
                raise AvatarError(f"{self.path}: is in a format that cannot be decoded here.")
            check_pixels(self.path, self.stream.width, self.stream.height)
        except AvatarError:
            self.close()
            raise

    def __enter__(self) -> OpenVideo:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.container.close()
        self._file.close()

    @property
    def codec(self) -> str:
        """Name of the format, whichever decoder reads it."""
        return str(self.stream.codec_context.codec.canonical_name)

    @property
    def num_bytes(self) -> int:
        return self._file.status().st_size

    def is_current(self) -> bool:
        """Whether the open file is the one that bears its name, as it was when it was opened."""
        with suppress(OSError):
            return _state(os.stat(self.path)) == self._state
        return False

    def bytes_at(self, start: int, count: int) -> bytes:
        """Bytes of the file as such; only before or after its packets are read."""
        before = self._file.seek(0, os.SEEK_CUR)
        self._file.seek(start)
        data = self._file.read(count)
        self._file.seek(before)
        return data


class _Bytes:
    """An open file, as far as ffmpeg may use it; closed when nobody holds it any more."""

    def __init__(self, path: str | Path) -> None:
        self._handle: int | None = None
        self._handle = open_handle(path, check_regular)

    def read(self, count: int) -> bytes:
        return os.read(self._open_handle, count)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._open_handle, offset, whence)

    def tell(self) -> int:
        return self.seek(0, os.SEEK_CUR)

    def status(self) -> os.stat_result:
        return os.fstat(self._open_handle)

    @property
    def _open_handle(self) -> int:
        if self._handle is None:
            raise ValueError("the file is closed")
        return self._handle

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    __del__ = close


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def errors_of(path: str | Path) -> Iterator[None]:
    """ffmpeg's errors and the file's in the body become `AvatarError`."""
    try:
        yield
    except av.FFmpegError as error:
        raise AvatarError(f"{path}: not decodable as video ({error.strerror}).") from error
    except OSError as error:
        reason = error.strerror or error
        raise AvatarError(f"{path}: cannot be read ({reason}).") from error


@dataclass(frozen=True)
class _Packet:
    pts: int | None
    dts: int | None
    is_shown: bool
    is_entry: bool


@dataclass(frozen=True)
class Entry:
    """A packet that decoding may start at: frames from its time on do not need earlier ones.

    Attributes:
        seek_time: where to seek to, in the stream's time base.
        pts: its own time.
        number: its place among the packets of the file.
    """

    seek_time: int
    pts: int
    number: int


@dataclass(frozen=True)
class FirstFrame:
    """What a video's first frame says of all of them.

    Attributes:
        shape: ``(H, W, 3)``, upright.
        turn: what makes the stored frames upright.
        pixel_aspect: width of a pixel by its height, upright; 1 where the file does not say.
    """

    shape: tuple[int, int, int]
    turn: Turn
    pixel_aspect: Fraction

    @classmethod
    def of(cls, frame: av.VideoFrame, pixel_aspect: Fraction) -> FirstFrame:
        """Of a decoded frame and the stored pixels' aspect."""
        turn = _turn_of(frame)
        if turn.transpose:
            return cls((frame.width, frame.height, 3), turn, 1 / pixel_aspect)
        return cls((frame.height, frame.width, 3), turn, pixel_aspect)


def _turn_of(frame: av.VideoFrame) -> Turn:
    """What makes a frame upright: ISO/IEC 14496-12's matrix, as far as it turns and mirrors.

    The matrix takes a stored pixel ``(x, y)`` to ``(a x + c y, b x + d y)``. Angles that are not
    right are taken to the nearest that is.
    """
    beside: Any = frame.side_data
    if _MATRIX not in [entry.type.name for entry in beside]:
        return Turn()
    matrix = np.frombuffer(bytes(beside[_MATRIX]), np.int32)
    a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(False, a < 0, d < 0)
    return Turn(True, c < 0, b < 0)


@dataclass(frozen=True)
class VideoIndex:
    """The frames that decoding from the start gives, in that order.

    Attributes:
        times: when each is shown, strictly increasing, in units of ``time_base``.
        time_base: seconds.
        numbers: place in the file of the packet that bears a time.
        entries: in the file's order; empty where frames are found by counting alone.
        is_exact: the frames were counted by decoding them.
        first: of the first frame.
        num_lost: packets of pictures to be shown that gave no frame.
    """

    times: tuple[int, ...]
    time_base: Fraction
    numbers: dict[int, int] = field(repr=False)
    entries: tuple[Entry, ...]
    is_exact: bool
    first: FirstFrame
    num_lost: int = 0

    def __len__(self) -> int:
        return len(self.times)

    def entry_of(self, index: int) -> Entry | None:
        """The last entry that frame ``index`` can be decoded from; None: the file's start.

        A frame that is shown before the key picture that it follows in the file may need what
        lies before that: then it is an earlier one.
        """
        time = self.times[index]
        number = self.numbers.get(time)
        if number is None:
            return None
        end = bisect_right(self.entries, number, key=lambda entry: entry.number)
        return next((e for e in reversed(self.entries[:end]) if e.pts <= time), None)

    def first_from(self, entry: Entry) -> int:
        """Number of the first frame that is shown at an entry's time or later."""
        return bisect_left(self.times, entry.pts)


def read_index(path: str | Path, exactly: bool = False) -> VideoIndex:
    """List the frames of a video: by its packets where they tell, else by decoding them.

    Args:
        exactly: decode them in any case.

    Raises:
        AvatarError: the file is not readable as a video, or breaks off.
    """
    with OpenVideo(path, threaded=False) as video:
        with errors_of(path):
            packets, first = _packets(video)
        _check_end(video, packets)
        base, codec = Fraction(video.stream.time_base), video.codec
        is_timed = video.container.format.name in _TIMED or codec in _INTRA
        nominal = _nominal_times(video, packets)
    by_time = {p.pts: i for i, p in enumerate(packets) if p.pts is not None}
    is_timed = is_timed and len(by_time) == len(packets)
    entries = _entries(packets) if is_timed else ()
    if is_timed and not exactly and _packets_tell(packets, codec):
        times = sorted(p.pts for p in packets if p.is_shown and p.pts is not None)
        return VideoIndex(tuple(times), base, by_time, entries, False, first)
    found = _decoded_times(path)
    shown = sum(packet.is_shown for packet in packets)
    lost = max(0, shown - len(found)) if codec in _FRAME_A_PACKET else 0
    if is_timed and _increase(found):
        return VideoIndex(tuple(found), base, by_time, entries, True, first, lost)
    if len(nominal) != len(found):
        nominal, base = list(range(len(found))), _frame_seconds(path)
    return VideoIndex(tuple(nominal), base, {}, (), True, first, lost)


def _packets(video: OpenVideo) -> tuple[list[_Packet], FirstFrame]:
    """All packets that bear data, and the first frame that they give."""
    is_entry = {"h264": is_entry_h264, "hevc": is_entry_hevc}.get(video.codec)
    marked = video.codec in _MARKED
    setup = video.stream.codec_context.extradata
    found: list[_Packet] = []
    first = None
    for packet in video.container.demux(video.stream):
        if first is None:
            first = next(iter(packet.decode()), None)
        if not packet.size:
            continue
        if packet.is_corrupt:
            raise AvatarError(f"{video.path}: is damaged or breaks off at packet {len(found)}.")
        entry = packet.is_keyframe and (
            is_entry(bytes(packet), setup) if is_entry is not None else marked
        )
        found.append(_Packet(packet.pts, packet.dts, not packet.is_discard, entry))
    if first is None:
        raise AvatarError(f"{video.path}: found no pictures, expected a video.")
    return found, FirstFrame.of(first, Fraction(video.stream.sample_aspect_ratio or 1))


def _entries(packets: list[_Packet]) -> tuple[Entry, ...]:
    found = []
    for number, packet in enumerate(packets):
        if packet.is_entry and packet.pts is not None:
            early = packet.pts if packet.dts is None else min(packet.pts, packet.dts)
            found.append(Entry(early, packet.pts, number))
    return tuple(found)


def _packets_tell(packets: list[_Packet], codec: str) -> bool:
    """Whether each packet gives a frame: all can be decoded, none is shown before the first."""
    first = packets[0]
    if codec not in _FRAME_A_PACKET or not first.is_entry or first.pts is None:
        return False
    return all(p.pts is not None and (p.pts >= first.pts or not p.is_shown) for p in packets)


def _decoded_times(path: str | Path) -> list[int]:
    with OpenVideo(path) as video, errors_of(path):
        return [frame.pts for frame in video.container.decode(video.stream)]


def _increase(times: list[int]) -> bool:
    known = all(time is not None for time in times)
    return known and all(a < b for a, b in pairwise(times))


def _nominal_times(video: OpenVideo, packets: list[_Packet]) -> list[int]:
    """Times of the shown packets by the order they lie in; in AVI that is all there is."""
    times = [p.dts for p in packets if p.is_shown and p.dts is not None]
    is_avi = video.container.format.name == "avi"
    return times if is_avi and _increase(times) else []


def _frame_seconds(path: str | Path) -> Fraction:
    with OpenVideo(path) as video:
        rate = video.stream.average_rate or video.stream.guessed_rate
    return 1 / Fraction(rate) if rate else Fraction(1, 25)


def _check_end(video: OpenVideo, packets: list[_Packet]) -> None:
    """Raise `AvatarError` where the file is shorter than its container says."""
    has, needs = video.num_bytes, _needed_bytes(video, packets)
    if has < needs:
        raise AvatarError(
            f"{video.path}: breaks off after {len(packets)} frames "
            f"({has} bytes are there, its frames need {needs})."
        )


def _needed_bytes(video: OpenVideo, packets: list[_Packet]) -> int:
    kind = video.container.format.name
    if kind == "matroska,webm":
        return _end_of_segment(video.bytes_at(0, 4096))
    if kind == "avi":
        last = max((p.dts for p in packets if p.dts is not None), default=len(packets))
        return _end_of_riff(video) if last + 1 < video.stream.frames else 0
    return max((e.pos + e.size for e in video.stream.index_entries), default=0)


def _end_of_segment(data: bytes) -> int:
    """Where Matroska's segment ends by its own word (RFC 8794, 9559); 0: it does not say."""
    at = _skip(data, 0, b"\x1a\x45\xdf\xa3")
    if at is None or data[at : at + 4] != b"\x18\x53\x80\x67":
        return 0
    size, width = _variable_size(data, at + 4)
    return 0 if size is None else at + 4 + width + size


def _skip(data: bytes, at: int, name: bytes) -> int | None:
    if data[at : at + 4] != name:
        return None
    size, width = _variable_size(data, at + 4)
    return None if size is None else at + 4 + width + size


def _variable_size(data: bytes, at: int) -> tuple[int | None, int]:
    """A size of one to eight bytes, whose leading zeros tell how many; all ones: unknown."""
    if at >= len(data) or not data[at]:
        return None, 0
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), width


def _end_of_riff(video: OpenVideo) -> int:
    """Where the last of AVI's chunks that follow each other ends by its own word."""
    at = end = 0
    while (head := video.bytes_at(at, 8))[:4] == b"RIFF" and len(head) == 8:
        end = at + 8 + int.from_bytes(head[4:], "little")
        at = end + end % 2
    return end
