"""Pictures are read whole or not at all, whatever follows them and whatever they claim."""

import os
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from builders import template_frames

from lipsync_nb.errors import AvatarError, OutputError
from lipsync_nb.media.imaging import read_image, write_image
from lipsync_nb.media.picture_files import read_picture
from lipsync_nb.types.arrays import ImageArray

FORMS = {
    "baseline": (".jpg", []),
    "progressive": (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    "restarts": (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
    "png": (".png", []),
    "bmp": (".bmp", []),
    "webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 80]),
    "lossless webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
}
EXIF_TURNS = {1: 0, 3: 2, 6: -1, 8: 1}


def texture() -> ImageArray:
    return template_frames(1, (96, 64))[0]


def grey() -> ImageArray:
    return np.full((64, 96, 3), 128, np.uint8)


def encoded(name: str, image: ImageArray) -> bytes:
    suffix, options = FORMS[name]
    return bytes(cv2.imencode(suffix, image, options)[1])


def read(tmp_path: Path, data: bytes) -> ImageArray:
    path = tmp_path / "p"
    path.write_bytes(data)
    return read_picture(path)


@pytest.mark.parametrize("image", [texture(), grey()], ids=["texture", "grey"])
@pytest.mark.parametrize("name", FORMS)
def test_whole_pictures_and_what_follows_them(tmp_path: Path, name: str, image: ImageArray) -> None:
    data = encoded(name, image)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    for after in (b"", b"\0" * 9, b"\xff\xd9 and a video" * 50, data):
        np.testing.assert_array_equal(read(tmp_path, data + after), expected)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("part", [0.35, 0.7, 0.98])
def test_truncated_pictures(tmp_path: Path, name: str, part: float) -> None:
    data = encoded(name, texture())
    with pytest.raises(AvatarError, match=r"p: the picture is .*truncated\.$"):
        read(tmp_path, data[: int(len(data) * part)])


@pytest.mark.parametrize("name", ["baseline", "progressive", "restarts", "png"])
@pytest.mark.parametrize("part", [0.35, 0.7, 0.9])
def test_an_end_that_was_put_on_does_not_hide_what_is_missing(
    tmp_path: Path, name: str, part: float
) -> None:
    data = encoded(name, texture())
    end = b"\xff\xd9" if FORMS[name][0] == ".jpg" else data[-12:]
    with pytest.raises(AvatarError, match=r"p: the picture is .*truncated\.$"):
        read(tmp_path, data[: int(len(data) * part)] + end)


def exif_segment(orientation: int, thumbnail: bytes = b"") -> bytes:
    """An APP1 segment with one entry, the orientation, and a thumbnail's bytes after it."""
    tiff = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", 0x112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff + thumbnail
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize("orientation", EXIF_TURNS)
def test_exif_marks_turn_a_picture(tmp_path: Path, orientation: int) -> None:
    data = encoded("baseline", texture())
    plain = read(tmp_path, data)
    turned = read(tmp_path, data[:2] + exif_segment(orientation) + data[2:])
    np.testing.assert_array_equal(turned, np.rot90(plain, EXIF_TURNS[orientation]))


def test_a_thumbnails_end_is_not_the_pictures(tmp_path: Path) -> None:
    data = encoded("baseline", texture())
    marked = data[:2] + exif_segment(1, encoded("baseline", texture()[:32, :32])) + data[2:]
    np.testing.assert_array_equal(read(tmp_path, marked), read(tmp_path, data))
    with pytest.raises(AvatarError, match="the picture is truncated"):
        read(tmp_path, marked[: len(marked) * 3 // 4])


def claiming(name: str, width: int, height: int) -> bytes:
    """A small picture whose header says that it is large."""
    data = bytearray(encoded(name, texture()))
    if name == "png":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif name == "bmp":
        data[18:26] = struct.pack("<ii", width, -height)
    else:
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("name", ["png", "bmp", "baseline"])
def test_huge_claims_are_not_believed(tmp_path: Path, name: str) -> None:
    with pytest.raises(AvatarError, match="is 60000x20000 pixels, expected at most 100 million"):
        read(tmp_path, claiming(name, 60_000, 20_000))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a readable picture"),
        (b"x", "not a readable picture"),
        (b"\xff\xd8", "not a readable picture"),
        (b"\xff\xd8\xff", "the picture is truncated"),
        (b"\x89PNG\r\n\x1a\n", "the picture is truncated"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(AvatarError, match=rf"p: {message}\.$"):
        read(tmp_path, data)


def test_a_picture_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AvatarError, match=r"none\.png: cannot be read"):
        read_picture(tmp_path / "none.png")


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
@pytest.mark.parametrize("suffix", [b".png", b".jpg"])
def test_names_that_are_no_text(tmp_path: Path, suffix: bytes) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9" + suffix)
    write_image(path, texture())
    found = read_image(path)
    assert found is not None
    np.testing.assert_array_equal(found, read_picture(path))


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be written \(No such file"):
        write_image(tmp_path / "no" / "p.png", texture())
    with pytest.raises(OutputError, match=r"found suffix \.xyz, expected \.jpg or \.png"):
        write_image(tmp_path / "p.xyz", texture())
