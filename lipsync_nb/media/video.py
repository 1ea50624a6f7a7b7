"""Video in, through ffmpeg's libraries (PyAV): in order, or single frames."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from lipsync_nb.errors import AvatarError
from lipsync_nb.types.arrays import ImageArray

from .imaging import turned, turned_i420
from .video_index import Entry, OpenVideo, VideoIndex, errors_of, read_index

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
_BT709 = 1

_Convert = Callable[[av.VideoFrame], ImageArray]
_places: ContextVar[dict[VideoFile, _Cursor] | None] = ContextVar("_places", default=None)


@contextmanager
def decoding_on() -> Iterator[None]:
    """Single frames that are read meanwhile in ascending order, by this thread, are decoded once.

    Each video stays open where its last frame was found: the next one is decoded from there, where
    that is less than from the packet that it can be decoded from.
    """
    places: dict[VideoFile, _Cursor] = {}
    token = _places.set(places)
    try:
        yield
    finally:
        _places.reset(token)
        for cursor in places.values():
            cursor.close()


def iter_video(path: str | Path) -> Iterator[ImageArray]:
    """Yield the frames of a video as uint8 ``[H, W, 3]`` BGR, upright, in presentation order.

    Colours follow the file's own tags; untagged files are read as BT.601, as OpenCV does.

    Raises:
        AvatarError: the file is not decodable, holds no pictures, is damaged or breaks off.
    """
    video = VideoFile(path)
    for frame in video.decoded():
        yield video.bgr(frame)


class VideoFile:
    """A video: its frames in order, or any one of them. Several threads may read.

    A frame is what decoding from the start gives. Single frames are decoded from a packet that is
    known to give the same, the file opened anew for each, except while `decoding_on`. Where none is
    known they are decoded from the start; then the place that was read last is remembered, so that
    reading on is decoding on.

    Args:
        path: the file. Its packets are listed once; where they do not tell the frames, these are
            decoded once to count them.

    Raises:
        AvatarError: the file is not readable as a video, or breaks off.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.index = read_index(path)
        self._by_count = False
        self._lock = threading.Lock()
        self._cursor: _Cursor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_cursor": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __len__(self) -> int:
        return len(self.index)

    def count_exactly(self) -> None:
        """Count the frames by decoding them, where the packets told their number so far."""
        if not self.index.is_exact:
            self.index = read_index(self.path, exactly=True)

    def decoded(self) -> Iterator[av.VideoFrame]:
        """All frames in order, as ffmpeg's; see `bgr` and `i420`.

        Raises:
            AvatarError: a frame is damaged, or there are other numbers of them than listed.
        """
        count = 0
        with OpenVideo(self.path) as video, errors_of(self.path):
            for frame in video.container.decode(video.stream):
                yield self._checked(count, frame)
                count += 1
        if count != len(self):
            what = "breaks off after" if count < len(self) else "has more than its packets tell:"
            raise AvatarError(f"{self.path}: {what} {count} of {len(self)} frames.")

    def _checked(self, index: int, frame: av.VideoFrame) -> av.VideoFrame:
        if frame.is_corrupt:
            raise AvatarError(f"{self.path}: frame {index} is damaged.")
        return frame

    def bgr(self, frame: av.VideoFrame) -> ImageArray:
        """A decoded frame as uint8 ``[H, W, 3]`` BGR, upright."""
        return np.ascontiguousarray(self.bgr_view(frame))

    def bgr_view(self, frame: av.VideoFrame) -> ImageArray:
        """As `bgr`, but its rows may lie apart: for pixels that are copied from it."""
        plane: Any = frame.reformat(format="bgr24").planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
        image = rows[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)
        return turned(image, self.index.first.turn)

    def i420(self, frame: av.VideoFrame) -> ImageArray:
        """A decoded frame as uint8 ``[H * 3 / 2, W]`` I420 (BT.709, limited range), upright.

        Files that are tagged BT.709 are taken as they are; others are converted to it.

        Raises:
            AvatarError: the height or width is odd.
        """
        if frame.width % 2 or frame.height % 2:
            size = f"{frame.width}x{frame.height}"
            raise AvatarError(f"{self.path}: is {size}, I420 needs even sizes.")
        limited = frame.color_range in (ColorRange.UNSPECIFIED, ColorRange.MPEG)
        if frame.format.name != "yuv420p" or frame.colorspace != _BT709 or not limited:
            frame = frame.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
        return turned_i420(frame.to_ndarray().astype(np.uint8, copy=False), self.index.first.turn)

    def read(self, index: int) -> ImageArray:
        """Frame of this number, uint8 ``[H, W, 3]`` BGR, equal to that of `iter_video`.

        Raises:
            AvatarError: it cannot be decoded.
        """
        return self._read(index, self.bgr)

    def read_i420(self, index: int) -> ImageArray:
        """Frame of this number as `i420` gives it, uint8 ``[H * 3 / 2, W]``."""
        return self._read(index, self.i420)

    def _read(self, index: int, convert: _Convert) -> ImageArray:
        if not 0 <= index < len(self):
            raise AvatarError(f"{self.path}: found no frame {index} of {len(self)}.")
        entry = None if self._by_count else self.index.entry_of(index)
        try:
            return self._found(index, entry, convert)
        except _LostError:
            # The file's own list is not what decoding gives: from here on frames are counted.
            self._by_count = True
        try:
            return self._found(index, None, convert)
        except _LostError as error:
            raise AvatarError(f"{self.path}: found no frame {index} of {len(self)}.") from error

    def _found(self, index: int, entry: Entry | None, convert: _Convert) -> ImageArray:
        if entry is None:
            return self._counted(index, convert)
        places = _places.get()
        if places is None:
            with closing(_Cursor(self.path, self.index, entry)) as cursor:
                return convert(self._checked(index, cursor.at(index)))
        image, places[self] = self._from_place(places.pop(self, None), index, entry, convert)
        return image

    def _counted(self, index: int, convert: _Convert) -> ImageArray:
        """A frame that is found by counting, from where the last one was found or the start."""
        # Converted before another thread gets the place: two may not use one of ffmpeg's frames.
        image, cursor = self._from_place(self._exchanged(None), index, None, convert)
        other = self._exchanged(cursor)
        if other is not None:
            other.close()
        return image

    def _from_place(
        self, cursor: _Cursor | None, index: int, entry: Entry | None, convert: _Convert
    ) -> tuple[ImageArray, _Cursor]:
        """A frame and its place, from an earlier place or from an entry, whichever is nearer."""
        try:
            if cursor is None or not cursor.reaches(index, entry):
                if cursor is not None:
                    cursor.close()
                cursor = _Cursor(self.path, self.index, entry)
            return convert(self._checked(index, cursor.at(index))), cursor
        except BaseException:
            if cursor is not None:
                cursor.close()
            raise

    def _exchanged(self, cursor: _Cursor | None) -> _Cursor | None:
        """Leave a place for the next reader, and take the one that was left."""
        with self._lock:
            self._cursor, found = cursor, self._cursor
        return found


class _LostError(Exception):
    """Decoding gave other frames than the file's list says."""


class _Cursor:
    """A place in an open video, from which frames are decoded one after the other.

    Args:
        entry: where decoding starts; None: at the start, where frames are counted alone.
    """

    def __init__(self, path: str | Path, index: VideoIndex, entry: Entry | None) -> None:
        self._index, self._entry = index, entry
        self._video = OpenVideo(path)
        self._next = 0 if entry is None else index.first_from(entry)
        self._last: av.VideoFrame | None = None
        try:
            self._frames = self._decoded() if entry is None else self._decoded_from(entry)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._last = None
        self._video.close()

    def reaches(self, index: int, entry: Entry | None) -> bool:
        """Whether going on from here gives this frame of the file that is there now.

        Args:
            entry: where it can be decoded from; from here it is at most as much.
        """
        is_last = index == self._next - 1 and self._last is not None
        is_near = entry is None or self._next >= self._index.first_from(entry)
        return (is_last or (index >= self._next and is_near)) and self._video.is_current()

    def _decoded(self) -> Iterator[av.VideoFrame]:
        return iter(self._video.container.decode(self._video.stream))

    def _decoded_from(self, entry: Entry) -> Iterator[av.VideoFrame]:
        """Frames from an entry on; those before its time may lack what they refer to."""
        try:
            self._video.container.seek(entry.seek_time, stream=self._video.stream, backward=True)
            packets = self._video.container.demux(self._video.stream)
            first = next(packets)
        except (av.FFmpegError, OSError, StopIteration) as error:
            raise _LostError from error
        number = self._index.numbers.get(first.pts)
        if number is None or number > entry.number:
            raise _LostError
        frames = (frame for packet in chain([first], packets) for frame in packet.decode())
        return (frame for frame in frames if frame.pts is None or frame.pts >= entry.pts)

    def at(self, index: int) -> av.VideoFrame:
        while self._next <= index:
            self._last = self._following()
            self._next += 1
        if self._last is None:
            raise _LostError
        return self._last

    def _following(self) -> av.VideoFrame:
        """The next frame; what goes wrong after an entry may be right from the start."""
        try:
            with errors_of(self._video.path):
                frame = next(self._frames, None)
        except AvatarError as error:
            if self._entry is None:
                raise
            raise _LostError from error
        if frame is None:
            raise _LostError
        if self._entry is not None and (
            frame.is_corrupt or frame.pts != self._index.times[self._next]
        ):
            raise _LostError
        return frame
