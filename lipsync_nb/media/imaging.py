"""The one place that imports OpenCV, with the few picture operations that every stage shares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lipsync_nb.errors import MissingLibraryError, OutputError
from lipsync_nb.system.quiet import Shared, Undo
from lipsync_nb.types.arrays import FloatArray, ImageArray

try:
    import cv2
except ImportError as error:
    raise MissingLibraryError(
        f"OpenCV cannot start ({error}). On a bare Debian or Ubuntu server install its system "
        "libraries: apt-get install libgl1 libglib2.0-0"
    ) from error

INTERPOLATIONS = {
    "cubic": cv2.INTER_CUBIC,
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
}


# Limited-range BT.709 (ITU-R BT.709-6, items 3.2 to 3.4), with the columns in BGR order.
_KB, _KR = 0.0722, 0.2126
_KG = 1 - _KB - _KR
_BGR_TO_YCBCR = (
    np.array(
        [
            [219 * _KB, 219 * _KG, 219 * _KR],
            [112, -112 * _KG / (1 - _KB), -112 * _KR / (1 - _KB)],
            [-112 * _KB / (1 - _KR), -112 * _KG / (1 - _KR), 112],
        ]
    )
    / 255
)
_BLACK = np.array([16, 128, 128])
_YCBCR_TO_BGR = np.linalg.inv(_BGR_TO_YCBCR)
# BGR and 1 to Y, Cb, Cr: float32 ``[3, 4]``.
TO_YCBCR = np.hstack([_BGR_TO_YCBCR, _BLACK[:, None]]).astype(np.float32)
_TO_BGR = np.hstack([_YCBCR_TO_BGR, -(_YCBCR_TO_BGR @ _BLACK)[:, None]]).astype(np.float32)


@dataclass(frozen=True)
class Turn:
    """How a stored picture becomes upright: rows and columns changed, then mirrored.

    Attributes:
        transpose: rows become columns, about the diagonal from the upper left.
        flip_x, flip_y: mirrored left to right, top to bottom, after that.
    """

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False


def resize(
    image: ImageArray, width: int, height: int, interpolation: str, out: ImageArray | None = None
) -> ImageArray:
    """Resize uint8 ``[h, w, 3]`` to ``[height, width, 3]`` with OpenCV's named interpolation.

    Args:
        out: written to and returned, where given (its rows may be those of a larger picture).
    """
    if image.shape[:2] == (height, width):
        if out is None:
            return image.copy()
        out[:] = image
        return out
    code = INTERPOLATIONS[interpolation]
    result = cv2.resize(image, (width, height), dst=out, interpolation=code)
    return np.asarray(result, np.uint8)


# OpenCV 4 has these functions at its top.
_log: Any = getattr(cv2.utils, "logging", cv2)
_SILENT = 0


def _silence_opencv() -> Undo:
    level = _log.getLogLevel()
    _log.setLogLevel(_SILENT)
    return partial(_log.setLogLevel, level)


# What OpenCV's codecs find is told by an error of ours; its lines on the console say less.
_silent_opencv = Shared(_silence_opencv)


def decode_image(data: bytes) -> ImageArray | None:
    """The picture in a file's bytes as uint8 ``[h, w, 3]`` BGR, or None where there is none."""
    try:
        with _silent_opencv:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if image is None else np.asarray(image, np.uint8)


def read_image(path: str | Path) -> ImageArray | None:
    """Read a picture as uint8 ``[h, w, 3]`` BGR, or None where it is not one."""
    try:
        return decode_image(Path(path).read_bytes())
    except OSError:
        return None


def check_picture_name(path: Path) -> Path:
    """Tell, before the work, that a picture's name is of no format that can be written.

    Raises:
        OutputError: OpenCV does not know the suffix.
    """
    if not cv2.haveImageWriter(f"picture{path.suffix}"):
        raise _unknown_format(path)
    return path


def _unknown_format(path: Path) -> OutputError:
    return OutputError(f"{path}: found suffix {path.suffix or 'none'}, expected .jpg or .png.")


def write_image(path: Path, image: ImageArray, jpeg_quality: int = 95) -> None:
    """Write uint8 ``[h, w, 3]`` BGR as the picture format that the suffix names.

    Raises:
        OutputError: the file cannot be written, or OpenCV does not know the format.
    """
    try:
        path.write_bytes(encode_picture(image, path.suffix, jpeg_quality))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}).") from error
    except cv2.error as error:
        raise _unknown_format(path) from error


def i420_planes(picture: ImageArray) -> tuple[ImageArray, ImageArray, ImageArray]:
    """Views of an I420 picture's planes: luma ``[H, W]``, U and V ``[H/2, W/2]``.

    Args:
        picture: uint8 ``[H * 3 / 2, W]``, the planes one after the other without gaps, H and W
            even: the layout of OpenCV and of ffmpeg's yuv420p.
    """
    height, width = picture.shape[0] * 2 // 3, picture.shape[1]
    chroma = picture[height:].reshape(2, height // 2, width // 2)
    return picture[:height], chroma[0], chroma[1]


def paste_i420(
    picture: ImageArray, image: ImageArray, x: int = 0, y: int = 0, room: ImageArray | None = None
) -> None:
    """Convert a BGR image and write it into an I420 picture, in place.

    BT.709, limited range, chroma the mean of 2x2 pixels: within 2 of 255 of what ffmpeg makes.

    Args:
        picture: uint8 ``[H * 3 / 2, W]`` I420, see `i420_planes`.
        image: uint8 ``[h, w, 3]`` BGR, h and w even.
        x, y: where its upper left corner goes, even pixels.
        room: uint8 ``[>= 6 * h * w]`` for the steps between, where many calls share it.
    """
    height, width = image.shape[:2]
    size = height * width
    room = np.empty(6 * size, np.uint8) if room is None else room[: 6 * size]
    colours = room[: 3 * size].reshape(image.shape)
    channels = list(room[3 * size :].reshape(3, height, width))
    cv2.transform(image, TO_YCBCR, dst=colours)
    cv2.split(colours, channels)
    luma, *chroma = i420_planes(picture)
    luma[y : y + height, x : x + width] = channels[0]
    rows, columns = slice(y // 2, (y + height) // 2), slice(x // 2, (x + width) // 2)
    half = width // 2, height // 2
    for channel, plane in zip(channels[1:], chroma, strict=True):
        cv2.resize(channel, half, dst=plane[rows, columns], interpolation=cv2.INTER_AREA)


def bgr_to_i420(image: ImageArray, out: ImageArray | None = None) -> ImageArray:
    """Convert uint8 ``[H, W, 3]`` BGR of even size to I420 uint8 ``[H * 3 / 2, W]`` (BT.709).

    Args:
        out: written to and returned, where given.

    Example:
        >>> bgr_to_i420(np.zeros((4, 6, 3), np.uint8))[0, 0]
        np.uint8(16)
    """
    height, width = image.shape[:2]
    if out is None:
        out = np.empty((height * 3 // 2, width), np.uint8)
    paste_i420(out, image)
    return out


def i420_to_bgr(picture: ImageArray) -> ImageArray:
    """Convert I420 uint8 ``[H * 3 / 2, W]`` (BT.709, limited) to uint8 ``[H, W, 3]`` BGR."""
    luma, *chroma = i420_planes(picture)
    size = luma.shape[1], luma.shape[0]
    full = [cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST) for plane in chroma]
    return np.asarray(cv2.transform(cv2.merge([luma, *full]), _TO_BGR), np.uint8)


def blend(original: ImageArray, over: ImageArray, weights: FloatArray, out: ImageArray) -> None:
    """Write ``original + weights * (over - original)``, rounded; either as it is at 0 and 1.

    Args:
        original, over, out: uint8 ``[h, w, 3]`` or ``[h, w]``; two of them may be the same.
        weights: float32 ``[h, w]``, 0..1.
    """
    cv2.blendLinear(over, original, weights, np.float32(1) - weights, dst=out)


def halved(field: FloatArray) -> FloatArray:
    """Means of 2x2 values of float32 ``[h, w]``, h and w even."""
    half = field.shape[1] // 2, field.shape[0] // 2
    return np.asarray(cv2.resize(field, half, interpolation=cv2.INTER_AREA), np.float32)


def multiplied(image: ImageArray, field: FloatArray) -> ImageArray:
    """A picture by a smooth field of gains: uint8 ``[h, w, 3]`` by float32 ``[k, k, 3]``.

    The field is enlarged linearly; values are rounded, and cut at 255.
    """
    height, width = image.shape[:2]
    full = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.multiply(image, full, dtype=cv2.CV_8U), np.uint8)


def turned(image: ImageArray, turn: Turn) -> ImageArray:
    """A picture ``[h, w]`` or ``[h, w, 3]`` made upright; the same array where it is so."""
    if turn.transpose:
        image = np.asarray(cv2.transpose(image), np.uint8)
    if turn.flip_x or turn.flip_y:
        code = -1 if turn.flip_x and turn.flip_y else int(turn.flip_x)
        image = np.asarray(cv2.flip(image, code), np.uint8)
    return image


def turned_i420(picture: ImageArray, turn: Turn) -> ImageArray:
    """An I420 picture ``[H * 3 / 2, W]`` made upright, plane by plane."""
    if turn == Turn():
        return picture
    planes = [turned(plane, turn) for plane in i420_planes(picture)]
    width = planes[0].shape[1]
    return np.concatenate([plane.reshape(-1, width) for plane in planes])


def pad_to_even(image: ImageArray) -> ImageArray:
    """Repeat the last row and column where the height or width is odd."""
    bottom, right = image.shape[0] % 2, image.shape[1] % 2
    if not (bottom or right):
        return image
    return np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="edge")


def encode_picture(image: ImageArray, suffix: str = ".jpg", jpeg_quality: int = 85) -> bytes:
    """Bytes of a JPEG or PNG file of uint8 ``[h, w, 3]`` BGR or ``[h, w]`` grey."""
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if suffix == ".jpg" else []
    with _silent_opencv:
        return bytes(cv2.imencode(suffix, image, options)[1])


def blurred(image: ImageArray, sigma: float) -> ImageArray:
    """A picture under a Gaussian blur of ``sigma`` pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def grey(image: ImageArray) -> ImageArray:
    """Uint8 ``[h, w, 3]`` BGR as grey ``[h, w]``, by BT.601's weights."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)


def laplacian(image: ImageArray, sigma: float) -> npt.NDArray[np.float32]:
    """The sum of second derivatives of a grey picture ``[h, w]`` under a Gaussian blur, float32.

    In float: rounding to levels would be noise of its own in dark pictures.
    """
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma)
    return np.asarray(cv2.Laplacian(smooth, cv2.CV_32F), np.float32)


def outlined(
    image: ImageArray,
    corners: tuple[int, int, int, int],
    colour: tuple[int, int, int] = (80, 220, 80),
    shown_width: int = 0,
) -> ImageArray:
    """A copy with a rectangle drawn in it; ``colour`` is BGR.

    Args:
        corners: x1, y1, x2, y2 in pixels, half-open, as of a face box.
        shown_width: that the picture is shrunk to afterwards: the line is 2 px thick there.
            Otherwise it is for 720 rows.
    """
    x1, y1, x2, y2 = corners
    copy = np.ascontiguousarray(image.copy())
    scale = image.shape[1] / shown_width if shown_width else image.shape[0] / 720
    thickness = max(1, round(2 * scale))
    cv2.rectangle(copy, (x1, y1), (x2 - 1, y2 - 1), colour, thickness)
    return copy


def shrunk(image: ImageArray, width: int) -> ImageArray:
    """The picture at this width where it is wider, by area."""
    if image.shape[1] <= width:
        return image
    return resize(image, width, max(1, round(image.shape[0] * width / image.shape[1])), "area")


def coloured(levels: npt.NDArray[np.float32], low: float, high: float) -> ImageArray:
    """Levels float ``[h, w]`` between ``low`` and ``high`` as BGR in OpenCV's magma colours."""
    scale = 255 / max(high - low, 1e-9)
    grey = np.clip((levels - low) * scale, 0, 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(grey, cv2.COLORMAP_MAGMA), np.uint8)


def cut_square(
    image: ImageArray,
    x: float,
    y: float,
    side: float,
    angle: float,
    size: int,
    is_padded: bool = False,
) -> ImageArray:
    """A square of a picture, turned, as a picture of ``size`` by ``size`` pixels.

    Args:
        x, y: its middle, in pixels.
        side: in pixels.
        angle: clockwise, in radians.
        is_padded: black outside of the picture, instead of its border repeated.
    """
    # Linear interpolation takes four pixels alone: what is much larger is shrunk by area then.
    whole = max(1, int(side / size)) * size
    scale = side / whole
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    # The middle of a pixel is half a pixel from its corner.
    half = (whole - 1) / 2
    matrix = np.array([[a, -b, x - 0.5 - half * (a - b)], [b, a, y - 0.5 - half * (a + b)]])
    border = cv2.BORDER_CONSTANT if is_padded else cv2.BORDER_REPLICATE
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cut = cv2.warpAffine(image, matrix, (whole, whole), flags=flags, borderMode=border)
    return resize(np.asarray(cut, np.uint8), size, size, "area")


_GREY = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def decode_grey(data: bytes, shrink: int = 1) -> ImageArray | None:
    """The picture in a file's bytes as uint8 ``[h, w]``, or None where there is none.

    Args:
        shrink: 1, 2, 4 or 8: so many times smaller, which a JPEG gives in less time.
    """
    with _silent_opencv:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _GREY[shrink])
    return None if image is None else np.asarray(image, np.uint8)
