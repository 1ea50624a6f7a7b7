"""Picture files read strictly: whole, of a sane size, whatever follows the picture's end."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av

from .errors import AvatarError
from .imaging import decode_image
from .limits import free_memory_bytes
from .records import ImageArray

MOST_PIXELS = 100_000_000
_BYTES_A_PIXEL = 6  # OpenCV's picture, and the decoder's own

# A marker within a scan's data: neither a stuffed byte, nor a restart, nor a fill byte.
_MARKER = re.compile(rb"\xff(?![\x00\xd0-\xd7\xff])", re.DOTALL)
_SOI, _EOI, _SOS = b"\xff\xd8", 0xD9, 0xDA
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class PictureHead:
    """What a picture file says of itself.

    Attributes:
        width, height: as stored, in pixels; 0 where it breaks off before that.
        end: where its picture ends, in bytes; None: its end is missing.
        is_progressive: a JPEG of several scans.
    """

    width: int
    height: int
    end: int | None
    is_progressive: bool = False


def read_picture(path: Path) -> ImageArray:
    """Read one picture, uint8 ``[H, W, 3]`` BGR, turned as its Exif mark says.

    Raises:
        AvatarError: it is not readable, truncated, or too large for this machine.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise AvatarError(f"{path}: cannot be read ({error.strerror}).") from error
    head = head_of(data)
    if head is not None:
        _check_size(path, head)
    if head is not None and head.end is None:
        raise AvatarError(f"{path}: the picture is truncated.")
    image = decode_image(data)
    if image is None:
        reason = "not a readable picture" if head is None else "the picture is damaged or truncated"
        raise AvatarError(f"{path}: {reason}.")
    if head is not None and data[:2] == _SOI and _lacks_data(data, head, image):
        raise AvatarError(f"{path}: the picture is truncated.")
    return image


def _check_size(path: Path, head: PictureHead) -> None:
    pixels, size = head.width * head.height, f"{head.width}x{head.height}"
    if pixels > MOST_PIXELS:
        most = MOST_PIXELS // 1_000_000
        raise AvatarError(f"{path}: is {size} pixels, expected at most {most} million.")
    needed, free = pixels * _BYTES_A_PIXEL, free_memory_bytes()
    if needed > free:
        found = f"{needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free"
        raise AvatarError(f"{path}: is {size} pixels, which take {found}.")


def head_of(data: bytes) -> PictureHead | None:
    """Size and end of a JPEG, PNG, WebP or BMP file; None for any other."""
    for start, read in _READERS:
        if data.startswith(start):
            return read(data)
    return None


def _jpeg(data: bytes) -> PictureHead:
    """Marker by marker (ITU-T T.81, annex B), over thumbnails within segments."""
    width = height = 0
    progressive = False
    at = 2
    while (found := _MARKER.search(data, at)) and found.start() + 1 < len(data):
        marker, at = data[found.start() + 1], found.start() + 2
        if marker == _EOI:
            return PictureHead(width, height, at, progressive)
        if marker in _FRAMES and at + 7 <= len(data):
            height = int.from_bytes(data[at + 3 : at + 5], "big")
            width = int.from_bytes(data[at + 5 : at + 7], "big")
            progressive = marker in _PROGRESSIVE
        if marker != 0x01:
            at += int.from_bytes(data[at : at + 2], "big")
    return PictureHead(width, height, None, progressive)


def _png(data: bytes) -> PictureHead:
    """Chunk by chunk (W3C PNG, 5.3)."""
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    at = len(_PNG)
    while at + 12 <= len(data):
        kind = data[at + 4 : at + 8]
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"IEND":
            return PictureHead(width, height, at if at <= len(data) else None)
    return PictureHead(width, height, None)


def _webp(data: bytes) -> PictureHead | None:
    """The container's size, and the first chunk's of the picture (RFC 9649, 2.4 to 2.7)."""
    if data[8:12] != b"WEBP":
        return None
    end = 8 + int.from_bytes(data[4:8], "little")
    kind, width, height = data[12:16], 0, 0
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width = int.from_bytes(data[26:28], "little") & 0x3FFF
        height = int.from_bytes(data[28:30], "little") & 0x3FFF
    return PictureHead(width, height, end if end <= len(data) else None)


def _bmp(data: bytes) -> PictureHead:
    """Its header alone: the decoder tells where rows are missing."""
    width, height = (int.from_bytes(data[i : i + 4], "little", signed=True) for i in (18, 22))
    if data[14:18] == b"\x0c\0\0\0":
        width, height = (int.from_bytes(data[i : i + 2], "little") for i in (18, 20))
    return PictureHead(abs(width), abs(height), len(data))


_READERS: tuple[tuple[bytes, Callable[[bytes], PictureHead | None]], ...] = (
    (_SOI + b"\xff", _jpeg),
    (_PNG, _png),
    (b"RIFF", _webp),
    (b"BM", _bmp),
)


def _lacks_data(data: bytes, head: PictureHead, image: ImageArray) -> bool:
    """Whether a JPEG that has its end lacks data before it, as a repaired file may.

    OpenCV's decoder makes that grey, or coarse in a progressive file, without a word; ffmpeg's
    tells, and is asked where it looks so.
    """
    if not head.is_progressive and not _has_grey_corner(image):
        return False
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "explode"}
    try:
        decoder.decode(av.Packet(data[: head.end]))
    except av.InvalidDataError:
        return True
    return False


def _has_grey_corner(image: ImageArray) -> bool:
    """Whether 8x8 pixels in some corner are 128, what libjpeg puts where data is missing."""
    corners = [image[rows, columns] for rows in _ENDS for columns in _ENDS]
    return any((corner == 128).all() for corner in corners)


_ENDS = (slice(None, 8), slice(-8, None))
