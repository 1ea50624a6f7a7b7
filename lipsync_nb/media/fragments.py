"""A video as fragmented MP4 while it is still being encoded, from the packets of its file.

A browser plays such fragments through Media Source Extensions as they come. The packets are the
same ones, byte for byte, that the file beside them gets, so that what was played is what was
written. Layout: ISO/IEC 14496-12 (boxes, movie fragments), and the ISO BMFF byte stream format
of Media Source Extensions.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

# A file whose index is empty and comes first, to which fragments may be added.
_FRAGMENTED = {"movflags": "empty_moov+default_base_moof"}
# A player is given little at first, so that it begins soon, and then fewer, longer fragments.
_FIRST_SECONDS, _LATER_SECONDS, _NUM_SHORT = 0.16, 0.64, 8
_DATA_OFFSET, _DURATION, _SIZE, _FLAGS, _COMPOSITION = 0x1, 0x100, 0x200, 0x400, 0x800
_RELATIVE_TO_MOOF = 0x020000
_START_CODES = (b"\0\0\0\1", b"\0\0\1")
_NEEDS_NO_OTHER, _NEEDS_OTHERS = 0x02000000, 0x01010000


@dataclass(frozen=True)
class Fragment:
    """A piece of a fragmented MP4.

    Attributes:
        content: whole boxes; those of all pieces, one behind the other, are one file.
        is_start: the first piece alone: what a player needs before all others, and no picture.
        end_seconds: how much of the video is had with this piece, from its first picture.
        codecs: of the whole, as a MIME type names them (RFC 6381): ``avc1.64001f,mp4a.40.2``.
        offset_seconds: time of the first picture in the boxes, which know no times before 0.
        frame_seconds: how long a picture is shown.
    """

    content: bytes
    is_start: bool
    end_seconds: float
    codecs: str
    offset_seconds: float
    frame_seconds: float


@dataclass(frozen=True)
class _Sample:
    """A packet in the time of its track: when it is decoded, and how much later it is shown."""

    content: bytes
    dts: int
    duration: int
    composition: int
    flags: int


class FragmentWriter:
    """Takes the packets of a video that is being written, and gives them as pieces to play.

    Args:
        receive: called with each `Fragment` in the thread that writes; it ought not to wait.
        piece_seconds: least length of the first eight pieces, and of the later ones.

    Example:
        >>> pieces = []
        >>> lnb.render(avatar, speech, "hello.mp4", fragments=FragmentWriter(pieces.append))
    """

    def __init__(
        self,
        receive: Callable[[Fragment], None],
        piece_seconds: tuple[float, float] = (_FIRST_SECONDS, _LATER_SECONDS),
    ) -> None:
        self._receive, self._piece_seconds = receive, piece_seconds
        # Until each stream has one: the first times decide where all of it begins.
        self._early: list[tuple[int, _Packet]] = []
        self._tracks: dict[int, _Track] = {}
        self._video, self._shift = 0, Fraction(0)
        self._frame_seconds, self._codecs = 0.0, ""
        self._count, self._given_seconds, self._seconds = 0, 0.0, 0.0

    def beside(self, container: Any) -> _Shared:
        """A container to use in another's place; what is muxed into it comes here too."""
        return _Shared(container, self)

    def without_file(self) -> _Shared:
        """A container whose packets come here, and nowhere else."""
        container = av.open(_Bytes(), "w", format="mp4", options=_FRAGMENTED)
        return _Shared(_Unwritten(container), self)

    def take(self, container: Any, packet: Any) -> None:
        """Take what one packet of the container's holds, before the container gets it."""
        index, taken = packet.stream.index, _Packet.of(packet)
        if self._tracks:
            self._add(index, taken)
            return
        self._early.append((index, taken))
        if len({index for index, _ in self._early}) == len(container.streams):
            self._start(container)

    def _start(self, container: Any) -> None:
        """All first packets are here: all times move on by what comes before the first picture."""
        start, scales = _start_of(container.streams)
        self._video = container.streams.video[0].index
        early, self._early = self._early, []
        frame = next(packet.time_base for index, packet in early if index == self._video)
        self._shift = _shift([packet for _, packet in early], frame)
        self._codecs = _codecs(start, len(container.streams.audio) > 0)
        for number, (index, scale) in enumerate(scales.items(), 1):
            self._tracks[index] = _Track(number, scale)
        self._frame_seconds = float(frame)
        self._receive(self._fragment(start, is_start=True))
        for index, packet in early:
            self._add(index, packet)

    def _add(self, index: int, packet: _Packet) -> None:
        self._tracks[index].add(packet, self._shift)
        if index == self._video:
            # Reordered pictures are decoded before they are shown: by then none is missing.
            end = (packet.dts + packet.duration) * packet.time_base
            self._seconds = max(self._seconds, float(end))
        least = self._piece_seconds[self._count >= _NUM_SHORT]
        if self._seconds - self._given_seconds >= least:
            self._give()

    def _give(self) -> None:
        self._count, self._given_seconds = self._count + 1, self._seconds
        content = _movie_fragment(self._count, [t for t in self._tracks.values() if t.samples])
        for track in self._tracks.values():
            track.samples.clear()
        self._receive(self._fragment(content, is_start=False))

    def _fragment(self, content: bytes, is_start: bool) -> Fragment:
        end_seconds = 0.0 if is_start else self._seconds
        times = float(self._shift), self._frame_seconds
        return Fragment(content, is_start, end_seconds, self._codecs, *times)

    def close(self, container: Any) -> None:
        """Give what is left; called when the file beside it is closed, complete or not."""
        if any(
            index == stream.index for index, _ in self._early for stream in container.streams.video
        ):
            self._start(container)
        if any(track.samples for track in self._tracks.values()):
            self._give()


class _Unwritten:
    """An output container that takes no packets: streams and their encoders are its own."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def mux(self, packet: Any) -> None:
        """Nothing."""


class _Shared:
    """An output container that shares its packets."""

    def __init__(self, container: Any, writer: FragmentWriter) -> None:
        self._container, self._writer = container, writer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def mux(self, packets: Any) -> None:
        """As the container's own."""
        # From here on the encoders are open, and their headers known.
        self._container.start_encoding()
        for packet in packets if isinstance(packets, list) else [packets]:
            # Before: the container moves a packet's times to its own.
            self._writer.take(self._container, packet)
            self._container.mux(packet)

    def close(self) -> None:
        """Close both."""
        try:
            self._writer.close(self._container)
        finally:
            self._container.close()


@dataclass(frozen=True)
class _Packet:
    """What an encoder gave, with times in its own ticks."""

    content: bytes
    pts: int
    dts: int
    duration: int
    time_base: Fraction
    is_keyframe: bool

    @classmethod
    def of(cls, packet: Any) -> _Packet:
        # An encoder of pictures leaves the length open: it is one of its ticks, a frame.
        duration = packet.duration or 1
        times = packet.pts, packet.dts, duration, Fraction(packet.time_base)
        content = bytes(packet)
        if packet.stream.type == "video" and content.startswith(_START_CODES):
            content = _with_lengths(content)
        return cls(content, *times, packet.is_keyframe)


class _Track:
    """The samples of one stream that no fragment has taken yet.

    Args:
        number: of the track in the file, from 1.
        scale: its ticks a second.
    """

    def __init__(self, number: int, scale: int) -> None:
        self.number, self._scale = number, scale
        self.samples: list[_Sample] = []

    def add(self, packet: _Packet, shift: Fraction) -> None:
        """Add a packet, moved on by so many seconds."""
        tick = packet.time_base * self._scale
        dts = round((packet.dts * packet.time_base + shift) * self._scale)
        composition = round((packet.pts - packet.dts) * tick)
        duration = round(packet.duration * tick)
        flags = _NEEDS_NO_OTHER if packet.is_keyframe else _NEEDS_OTHERS
        self.samples.append(_Sample(packet.content, dts, duration, composition, flags))

    @property
    def num_bytes(self) -> int:
        """Of all samples."""
        return sum(len(sample.content) for sample in self.samples)


def _with_lengths(content: bytes) -> bytes:
    """H.264 units behind start codes, as MP4 has them: behind their lengths, as in the file.

    No unit ends with a zero byte, so that those before a start code belong to it (ITU-T H.264,
    7.4.1.1 and B.1).
    """
    units = (unit.rstrip(b"\0") for unit in content.split(_START_CODES[1]))
    return b"".join(struct.pack(">I", len(unit)) + unit for unit in units if unit)


def _start_of(streams: Any) -> tuple[bytes, dict[int, int]]:
    """A file's first boxes, ``ftyp`` and ``moov``, and the ticks a second of each stream."""
    written = _Bytes()
    with av.open(written, "w", format="mp4", options=_FRAGMENTED) as container:
        copies = {s.index: container.add_stream_from_template(s) for s in streams}
        container.start_encoding()
        start = bytes(written.content)
        scales = {index: round(1 / copy.time_base) for index, copy in copies.items()}
    return start, scales


class _Bytes:
    """A file in memory that cannot be moved in, so that nothing in it is corrected later."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, data: bytes) -> int:
        self.content += data
        return len(data)


def _shift(packets: list[_Packet], frame: Fraction) -> Fraction:
    """Seconds, in whole frames, by which nothing is before 0 any more."""
    lead = max(-packet.dts * packet.time_base for packet in packets)
    return max(0, math.ceil(lead / frame)) * frame


def _codecs(start: bytes, has_sound: bool) -> str:
    """Of the decoder's configuration (ISO/IEC 14496-15, 5.3.3), as RFC 6381 writes it."""
    at = start.index(b"avcC") + 4
    return f"avc1.{start[at + 1 : at + 4].hex()}" + (",mp4a.40.2" if has_sound else "")


def _movie_fragment(number: int, tracks: list[_Track]) -> bytes:
    """``moof`` and ``mdat``: the samples of each track, one track behind the other."""
    # Sizes do not depend on where the data begin, which must be known to be written.
    begin = len(_moof(number, tracks, 0)) + 8
    moof = _moof(number, tracks, begin)
    data = [sample.content for track in tracks for sample in track.samples]
    return moof + _box(b"mdat", *data)


def _moof(number: int, tracks: list[_Track], begin: int) -> bytes:
    parts = []
    for track in tracks:
        parts.append(_traf(track, begin))
        begin += track.num_bytes
    return _box(b"moof", _full_box(b"mfhd", 0, 0, struct.pack(">I", number)), *parts)


def _traf(track: _Track, begin: int) -> bytes:
    samples = track.samples
    rows = (
        struct.pack(">IIIi", s.duration, len(s.content), s.flags, s.composition) for s in samples
    )
    flags = _DATA_OFFSET | _DURATION | _SIZE | _FLAGS | _COMPOSITION
    return _box(
        b"traf",
        _full_box(b"tfhd", 0, _RELATIVE_TO_MOOF, struct.pack(">I", track.number)),
        _full_box(b"tfdt", 1, 0, struct.pack(">Q", samples[0].dts)),
        _full_box(b"trun", 1, flags, struct.pack(">Ii", len(samples), begin), *rows),
    )


def _full_box(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *parts)


def _box(kind: bytes, *parts: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, parts)), kind) + b"".join(parts)
