"""Video in, through ffmpeg's libraries (PyAV)."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from .errors import AvatarError
from .records import ImageArray

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
_BT709 = 1


def iter_video(path: str | Path) -> Iterator[ImageArray]:
    """Yield the frames of a video as uint8 ``[H, W, 3]`` BGR, in presentation order.

    Colours follow the file's own tags; untagged files are read as BT.601, as OpenCV does.

    Raises:
        AvatarError: the file is not decodable, holds no pictures, or breaks off.
    """
    for frame in _decode(path):
        yield _bgr(frame)


def iter_video_planes(path: str | Path) -> Iterator[tuple[ImageArray, ImageArray]]:
    """Yield each frame twice: I420 as decoded, and BGR as `iter_video` gives it.

    Files that are tagged BT.709 are taken as they are; others are converted to it.

    Yields:
        uint8 ``[H * 3 / 2, W]`` I420 (BT.709, limited range), and uint8 ``[H, W, 3]`` BGR.

    Raises:
        AvatarError: as `iter_video`, or the height or width is odd.
    """
    for frame in _decode(path):
        if frame.width % 2 or frame.height % 2:
            raise AvatarError(f"{path}: is {frame.width}x{frame.height}, I420 needs even sizes.")
        yield _i420(frame), _bgr(frame)


def _bgr(frame: av.VideoFrame) -> ImageArray:
    return frame.to_ndarray(format="bgr24").astype(np.uint8, copy=False)


def _i420(frame: av.VideoFrame) -> ImageArray:
    limited = frame.color_range in (ColorRange.UNSPECIFIED, ColorRange.MPEG)
    if frame.format.name != "yuv420p" or frame.colorspace != _BT709 or not limited:
        frame = frame.reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
    return frame.to_ndarray().astype(np.uint8, copy=False)


def _decode(path: str | Path) -> Iterator[av.VideoFrame]:
    with _open_video(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        count = 0
        for frame in container.decode(stream):
            yield frame
            count += 1
        if count < stream.frames:
            raise AvatarError(f"{path}: breaks off after {count} of {stream.frames} frames.")


@contextlib.contextmanager
def _open_video(path: str | Path) -> Iterator[Any]:
    """The opened file; ffmpeg's errors in the body become `AvatarError`."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise AvatarError(f"{path}: found no pictures, expected a video.")
            yield container
    except av.FFmpegError as error:
        raise AvatarError(f"{path}: not decodable as video ({error.strerror}).") from error


class VideoFile:
    """A video whose frames are read one by one, the file opened anew for each.

    Args:
        path: the file. Its packets are listed once, without decoding them.

    Raises:
        AvatarError: the file is not readable as a video.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        with _open_video(path) as container:
            packets = container.demux(container.streams.video[0])
            times = [p.pts for p in packets if p.size and not p.is_discard]
        known = [time for time in times if time is not None]
        self._count = len(times)
        self._times = sorted(known) if len(set(known)) == len(times) else []

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> ImageArray:
        """Frame of this number, uint8 ``[H, W, 3]`` BGR, equal to that of `iter_video`.

        Decodes from the key frame before it, or from the start where frames bear no times.
        """
        with _open_video(self.path) as container:
            frame = self._find(container, index)
            if frame is None:
                raise AvatarError(f"{self.path}: found no frame {index} of {self._count}.")
            return _bgr(frame)

    def _find(self, container: Any, index: int) -> av.VideoFrame | None:
        stream = container.streams.video[0]
        frames = container.decode(stream)
        if not self._times:
            return next(itertools.islice(frames, index, None), None)
        container.seek(self._times[index], stream=stream, backward=True)
        wanted = self._times[index]
        return next((frame for frame in frames if frame.pts == wanted), None)
