"""The one place that imports OpenCV, with the few picture operations that every stage shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import MissingLibraryError, OutputError
from .records import Box, ImageArray

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


def resize(image: ImageArray, width: int, height: int, interpolation: str) -> ImageArray:
    """Resize uint8 ``[h, w, 3]`` to ``[height, width, 3]`` with OpenCV's named interpolation."""
    if image.shape[:2] == (height, width):
        return image.copy()
    code = INTERPOLATIONS[interpolation]
    return np.asarray(cv2.resize(image, (width, height), interpolation=code), np.uint8)


def crop_face(frame: ImageArray, box: Box, size: int, interpolation: str) -> ImageArray:
    """Cut the face box out of a frame and resize it to uint8 ``[size, size, 3]`` (BGR)."""
    return resize(frame[box.rows, box.columns], size, size, interpolation)


def read_image(path: str) -> ImageArray | None:
    """Read a picture as uint8 ``[h, w, 3]`` BGR, or None where it is not one."""
    image = cv2.imread(path, cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(image, np.uint8)


def write_image(path: Path, image: ImageArray, jpeg_quality: int = 95) -> None:
    """Write uint8 ``[h, w, 3]`` BGR as the picture format that the suffix names.

    Raises:
        OutputError: the file cannot be written.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if path.suffix == ".jpg" else []
    if not cv2.imwrite(str(path), image, options):
        raise OutputError(f"{path}: cannot be written.")


def pad_to_even(image: ImageArray) -> ImageArray:
    """Repeat the last row and column where the height or width is odd."""
    bottom, right = image.shape[0] % 2, image.shape[1] % 2
    if not (bottom or right):
        return image
    return np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="edge")


def quiet_opencv() -> None:
    """Keep OpenCV's and its codecs' log lines off the console."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


quiet_opencv()
