"""The times of sound in a file: its stamps, its start, and how long it says it is."""

from __future__ import annotations

import struct
from typing import Any

import av
from av.stream import Disposition

# Containers that time every packet; the others' stamps are reckoned from the packets before.
TIMED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts", "flv", "asf"}
# Shorter ones are rounding, or within a video frame at the start; longer ones a clock set anew.
_SHORTEST_GAP_SECONDS, _SHORTEST_LEAD_SECONDS, _LONGEST_GAP_SECONDS = 0.015, 0.03, 30.0
WAV_HEADER_BYTES, _WAV_UNKNOWN = 2**16, 0x7FFFF000


class Clock:
    """The time stamps of sound, against how much of it was given.

    Args:
        start: time of the first sound; None: whatever its first stamp says.
    """

    def __init__(self, start: float | None) -> None:
        self._start, self._due = start, start

    def gap(self, time: float, length: float, given: float) -> float:
        """Seconds of silence that belong before a block of this time and length, or 0.

        A clock that runs a little fast or unevenly leaves no gaps: sound is missing where one
        stamp is late after the stamp before, and all that was given is too short as well.
        """
        if self._start is None or self._due is None:
            self._start = self._due = time
        late, self._due = time - self._due, time + length
        if abs(late) > _LONGEST_GAP_SECONDS:
            self._start = time - given
            return 0.0
        missing = min(late, time - self._start - given)
        least = _SHORTEST_GAP_SECONDS if given else _SHORTEST_LEAD_SECONDS
        return missing if missing > least else 0.0


def _has_pictures(container: Any) -> bool:
    streams = container.streams.video
    return any(Disposition.attached_pic not in stream.disposition for stream in streams)


def first_moment(container: Any) -> float | None:
    """When a video's first picture or sound is played; None without pictures."""
    if not _has_pictures(container) or container.start_time is None:
        return None
    return float(container.start_time / av.time_base)


def announced_seconds(container: Any, stream: Any) -> float:
    """Length of the sound by the file's own word; 0 where it says nothing of it."""
    # Of other formats ffmpeg reckons the length from the first packets.
    if container.format.name not in {*TIMED, "flac", "ogg"}:
        return 0.0
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if not container.duration or _has_pictures(container):
        return 0.0
    first = stream.start_time * stream.time_base if stream.start_time else 0
    return float(container.duration / av.time_base - first)


def seconds_by_header(head: bytes) -> float:
    """Length of a WAV file by its header, which ffmpeg cuts to what is there; 0: not said.

    Programs that write without knowing the length put the largest number that they have.
    """
    at, bytes_a_second = 12, 0
    while at + 20 <= len(head):
        kind, size = struct.unpack_from("<4sI", head, at)
        if kind == b"fmt ":
            (bytes_a_second,) = struct.unpack_from("<I", head, at + 16)
        if kind == b"data":
            return size / bytes_a_second if bytes_a_second and size < _WAV_UNKNOWN else 0.0
        at += 8 + size + size % 2
    return 0.0


def packet_seconds(packet: Any) -> float:
    """Length of a packet by the file's word; 0 where it says nothing."""
    known = packet.duration and packet.time_base
    return float(packet.duration * packet.time_base) if known else 0.0
