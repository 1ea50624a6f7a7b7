"""Encoded pictures in files of their own, to be put together later as they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from lipsync_nb.system.inputs import open_file
from lipsync_nb.system.outputs import complete_file

_MARK = b"lipsync_nb packets 2\n"
_LONGEST_HEAD = 2**24


def write_packets(path: Path, packets: Sequence[Any], key: str = "") -> None:
    """Write a segment's packets; the file appears, whole and on the disk, or not at all.

    Args:
        key: of what they are made from.

    Raises:
        OSError: it cannot be written.
    """
    content = b"".join(bytes(packet) for packet in packets)
    head = {
        "key": key,
        "time_base": str(packets[0].time_base),
        "packets": [[p.size, p.pts, p.dts, p.duration or 0, p.is_keyframe] for p in packets],
    }
    line = json.dumps(head).encode()
    check = _check_sum(line, content)
    with complete_file(path) as partial:
        partial.write_bytes(b"".join([_MARK, check, b"\n", line, b"\n", content]))


def _check_sum(head: bytes, content: bytes) -> bytes:
    return hashlib.sha256(head + b"\n" + content).hexdigest().encode()


def read_packets(path: Path, key: str = "") -> list[Any]:
    """The packets of a segment.

    Raises:
        OSError: the file is not there, or cannot be read.
        ValueError: it is no such file, cut off or changed, or made from something else.
    """
    with open_file(path) as file:
        if file.read(len(_MARK)) != _MARK:
            raise ValueError("found another kind of file")
        check = file.readline(len(_check_sum(b"", b"")) + 1).rstrip(b"\n")
        line, content = file.readline(_LONGEST_HEAD).rstrip(b"\n"), file.read()
    if _check_sum(line, content) != check:
        raise ValueError("its packets differ from their check sum")
    head = json.loads(line)
    if head["key"] != key:
        raise ValueError("its packets are made from something else")
    packets, time_base, start = [], Fraction(head["time_base"]), 0
    for size, pts, dts, duration, is_keyframe in head["packets"]:
        packet: Any = av.Packet(content[start : start + size])
        packet.pts, packet.dts, packet.duration = pts, dts, duration
        packet.time_base, packet.is_keyframe = time_base, is_keyframe
        packets.append(packet)
        start += size
    return packets
