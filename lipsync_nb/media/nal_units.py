"""What the key packets of H.264 and HEVC say of themselves: whether decoding may start there."""

from __future__ import annotations

from collections.abc import Iterator

_IDR, _SEI, _RECOVERY_POINT = 5, 6, 6
_START_CODE = b"\0\0\1"


def is_entry_h264(packet: bytes, setup: bytes | None) -> bool:
    """Whether all that is shown from this picture on is exact when decoding starts with it.

    So it is for an IDR picture, and for one with a recovery point of no frames that is marked as
    exact (ITU-T H.264, 7.4.1.2.4 and D.2.8).

    Args:
        setup: the stream's avcC record; None or another: the packet has start codes.
    """
    for unit in _units(packet, setup, 4):
        kind = unit[0] & 31
        if kind == _IDR:
            return True
        if kind == _SEI and _recovers_at_once(unit[1:]):
            return True
        if kind in (1, 2):
            return False
    return False


def is_entry_hevc(packet: bytes, setup: bytes | None) -> bool:
    """Whether this is an IRAP picture: what is shown after it needs nothing before it.

    ITU-T H.265, 3.70 and 7.4.2.2 (types 16 to 21).
    """
    for unit in _units(packet, setup, 21):
        kind = unit[0] >> 1 & 63
        if kind < 32:
            return 16 <= kind <= 21
    return False


def _units(packet: bytes, setup: bytes | None, at: int) -> Iterator[bytes]:
    """The beginnings of a packet's units, in the form that its container keeps them in."""
    if not setup or setup[0] != 1 or len(setup) <= at:
        yield from _after_start_codes(packet)
        return
    width, start = (setup[at] & 3) + 1, 0
    while start + width < len(packet):
        size = int.from_bytes(packet[start : start + width], "big")
        start += width
        if size:
            yield packet[start : start + min(size, 1024)]
        start += size


def _after_start_codes(packet: bytes) -> Iterator[bytes]:
    at = packet.find(_START_CODE)
    while 0 <= at < len(packet) - 3:
        following = packet.find(_START_CODE, at + 3)
        yield packet[at + 3 : following if following >= 0 else None][:1024]
        at = following


def _recovers_at_once(messages: bytes) -> bool:
    """Whether one of the SEI messages is a recovery point: no frames later, exact."""
    at = 0
    while at + 2 < len(messages) and messages[at : at + 1] != b"\x80":
        kind, at = _extended(messages, at)
        size, at = _extended(messages, at)
        if kind == _RECOVERY_POINT and at < len(messages):
            # The count is 0 where its first bit is 1; the next bit says that it is exact.
            return messages[at] >> 6 == 0b11
        at += size
    return False


def _extended(data: bytes, at: int) -> tuple[int, int]:
    """A number that each byte of 255 adds to, and where it ends."""
    value = 0
    while at < len(data):
        value += data[at]
        at += 1
        if data[at - 1] != 255:
            break
    return value, at
