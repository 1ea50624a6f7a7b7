"""Small videos of every codec, made with PyAV, whose frames carry their number."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from builders import template_frames

from lipsync_nb.types.arrays import ImageArray

SIZE = (96, 64)
COUNT = 24
ENCODERS = {
    "h264": "libx264",
    "hevc": "libx265",
    "mpeg4": "mpeg4",
    "vp9": "libvpx-vp9",
    "mjpeg": "mjpeg",
}


def options_of(codec: str, gop: str, b_frames: int) -> dict[str, str]:
    length, is_open = (1000 if gop == "one key frame" else 8), int(gop == "open")
    if codec == "h264":
        params = f"keyint={length}:min-keyint={length}:scenecut=0:open-gop={is_open}"
        return {"x264-params": f"{params}:bframes={b_frames}:b-adapt=0:threads=1", "crf": "20"}
    if codec == "hevc":
        params = f"keyint={length}:min-keyint={length}:scenecut=0:open-gop={is_open}"
        threads = "pools=none:frame-threads=1:log-level=none"
        return {"x265-params": f"{params}:bframes={b_frames}:b-adapt=0:{threads}", "crf": "20"}
    if codec == "mpeg4":
        return {"g": str(length), "bf": str(b_frames)}
    if codec == "vp9":
        # Frames that are decoded and never shown: those of the hidden references.
        return {"g": str(length), "auto-alt-ref": "1", "lag-in-frames": "8", "cpu-used": "8"}
    return {}


def write_coded(
    path: Path,
    codec: str = "h264",
    gop: str = "closed",
    b_frames: int = 2,
    times: list[int] | None = None,
    rate: Fraction | int = 25,
    pixel_aspect: Fraction | None = None,
) -> Path:
    """A small video of one codec, without sound.

    Args:
        times: its stamps in milliseconds, as many as there are frames; default: by the rate.
    """
    with av.open(str(path), "w") as container:
        options = options_of(codec, gop, b_frames)
        stream: Any = container.add_stream(ENCODERS[codec], rate=rate, options=options)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(numbered_pictures(len(times) if times else COUNT)):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbered_pictures(count: int) -> list[ImageArray]:
    """Pictures that all differ, and carry their number in eight squares of black and white."""
    images = template_frames(count, SIZE)
    for number, image in enumerate(images):
        for bit in range(8):
            image[:12, 12 * bit : 12 * bit + 12] = 235 if number >> bit & 1 else 20
    return images


def number_in(image: ImageArray) -> int:
    squares = [image[3:9, 12 * bit + 3 : 12 * bit + 9].mean() > 128 for bit in range(8)]
    return sum(int(square) << bit for bit, square in enumerate(squares))


# What an MP4's matrix says of the stored rows: (a, b, c, d), see ISO/IEC 14496-12, 6.2.2; and
# what makes them upright.
ORIENTATIONS = {
    "as stored": ((1, 0, 0, 1), lambda image: image),
    "90": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "180": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "270": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "transposed": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    "transversed": ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
}


def set_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Mark an MP4's track with another matrix."""
    data = bytearray(path.read_bytes())
    plain = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = data.index(plain, data.index(b"tkhd"))
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
