"""Picture files read strictly: whole, of a sane size, whatever follows the picture's end."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av

from lipsync_nb.errors import AvatarError
from lipsync_nb.system.inputs import read_file
from lipsync_nb.system.limits import check_pixels
from lipsync_nb.types.arrays import ImageArray

from .containers import open_alone
from .imaging import decode_image

MOST_BYTES = 2**30

# A marker within a scan's data: neither a stuffed byte, nor a restart, nor a fill byte.
_MARKER = re.compile(rb"\xff(?![\x00\xd0-\xd7\xff])", re.DOTALL)
_SOI, _EOI, _SOS = b"\xff\xd8", 0xD9, 0xDA
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_ARITHMETIC = 0xC9  # from there on: bits are not whole
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNG = b"\x89PNG\r\n\x1a\n"
# What a decoder makes of a byte at most: pixels of a JPEG (a bit for 8x8 of them), and bytes of
# zlib's stream (RFC 1951: 258 of them for two bits).
_MOST_PIXELS_A_BYTE, _MOST_BYTES_A_BYTE = 512, 1032


@dataclass(frozen=True)
class PictureHead:
    """What a picture file says of itself.

    Attributes:
        width, height: as stored, in pixels; 0 where it breaks off before that.
        end: where its picture ends, in bytes; None: its end is missing.
        is_progressive: a JPEG of several scans.
        is_damaged: a part that the picture needs differs from its check sum.
        least_bytes: what so many pixels take in this format, however even they are.
    """

    width: int
    height: int
    end: int | None
    is_progressive: bool = False
    is_damaged: bool = False
    least_bytes: int = 0


def read_picture(path: Path) -> ImageArray:
    """Read one picture, uint8 ``[H, W, 3]`` BGR, turned as its Exif mark says.

    Raises:
        AvatarError: it is not readable, truncated, or too large for this machine.
    """
    data = read_file(path, AvatarError, MOST_BYTES)
    head = head_of(data) or _head_by_ffmpeg(data)
    if head is None:
        raise AvatarError(f"{path}: not a readable picture.")
    check_pixels(path, head.width, head.height)
    if head.end is None or len(data) < head.least_bytes:
        raise AvatarError(f"{path}: the picture is truncated.")
    if head.is_damaged or (image := decode_image(data)) is None:
        raise AvatarError(f"{path}: the picture is damaged or truncated.")
    if data[:2] == _SOI and _lacks_data(data, head, image):
        raise AvatarError(f"{path}: the picture is truncated.")
    return image


def read_grey(path: Path) -> ImageArray:
    """Read one PNG of grey levels, uint8 ``[H, W]``; the same checks as of `read_picture`.

    Raises:
        AvatarError: it is not readable, is in colours, or has other than 8 bits.
    """
    image = read_picture(path)
    data = read_file(path, AvatarError, MOST_BYTES)
    depth = data[24] if data.startswith(_PNG) else 8
    if depth > 8:
        raise AvatarError(f"{path}: found levels of {depth} bits, expected 8.")
    grey = image[..., 0]
    if (image != grey[..., None]).any():
        raise AvatarError(f"{path}: found colours, expected grey levels of 8 bits.")
    return grey.copy()


def head_of(data: bytes) -> PictureHead | None:
    """Size and end of a JPEG, PNG, WebP or BMP file; None for any other."""
    for start, read in _READERS:
        if data.startswith(start):
            return read(data)
    return None


def _jpeg(data: bytes) -> PictureHead:
    """Marker by marker (ITU-T T.81, annex B), over thumbnails within segments."""
    width = height = least = 0
    progressive = False
    at = 2
    while (found := _MARKER.search(data, at)) and found.start() + 1 < len(data):
        marker, at = data[found.start() + 1], found.start() + 2
        if marker == _EOI:
            return PictureHead(width, height, at, progressive, least_bytes=least)
        if marker in _FRAMES and at + 7 <= len(data):
            height = int.from_bytes(data[at + 3 : at + 5], "big")
            width = int.from_bytes(data[at + 5 : at + 7], "big")
            progressive = marker in _PROGRESSIVE
            least = width * height // _MOST_PIXELS_A_BYTE if marker < _ARITHMETIC else 0
        if marker != 0x01:
            at += int.from_bytes(data[at : at + 2], "big")
    return PictureHead(width, height, None, progressive)


def _png(data: bytes) -> PictureHead:
    """Chunk by chunk (W3C PNG, 5.3)."""
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    at, damaged = len(_PNG), False
    while at + 12 <= len(data):
        kind, start = data[at + 4 : at + 8], at + 4
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        # Chunks whose name begins with a small letter are passed over by decoders.
        if kind[:1].isupper() and at <= len(data):
            found = zlib.crc32(memoryview(data)[start : at - 4])
            damaged |= found != int.from_bytes(data[at - 4 : at], "big")
        if kind == b"IEND":
            end = at if at <= len(data) else None
            least = height * (1 + width * data[24] // 8) // _MOST_BYTES_A_BYTE
            return PictureHead(width, height, end, is_damaged=damaged, least_bytes=least)
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


def _head_by_ffmpeg(data: bytes) -> PictureHead | None:
    """Of any other format; None where ffmpeg finds no picture, or one beyond its own limits."""
    try:
        with open_alone(io.BytesIO(data)) as container:
            for stream in container.streams.video:
                if stream.codec_context is not None and stream.width and stream.height:
                    return PictureHead(stream.width, stream.height, len(data))
    except (av.FFmpegError, OSError, ValueError):
        pass
    return None


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
