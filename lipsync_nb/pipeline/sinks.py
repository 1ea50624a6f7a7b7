"""Where finished frames go: a video with sound, or a folder of pictures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import av
import numpy as np
from av.video.reformatter import ColorRange

from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import OutputError
from lipsync_nb.media.imaging import (
    bgr_to_i420,
    encode_picture,
    i420_planes,
    i420_to_bgr,
    pad_to_even,
)
from lipsync_nb.media.soundtrack import SoundTrack
from lipsync_nb.system.outputs import (
    Partial,
    cannot_write,
    check_output,
    check_output_file,
    refuse_inputs,
)
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Speech

_BT709 = 1
_SQUARE = Fraction(1)
_FASTSTART = {"movflags": "+faststart"}


class Sink(Protocol):
    """Where finished frames go; a context manager that shows its result only when complete."""

    path: Path

    def __enter__(self) -> Sink: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def write(self, image: ImageArray) -> None:
        """Take one frame, uint8 ``[H, W, 3]`` BGR, or ``[H * 3 / 2, W]`` I420 (BT.709).

        The array is not used after the call.
        """


def is_video(path: Path) -> bool:
    """Whether an output of this name is a video; others are folders of pictures."""
    return path.suffix.lower() == ".mp4"


def open_sink(
    path: str | Path,
    speech: Speech,
    fps: int,
    config: RenderConfig,
    threads: int = 0,
    pixel_aspect: Fraction = _SQUARE,
) -> Mp4Sink | ImageFolderSink:
    """Sink by the look of the path: ``.mp4`` is a video, a name without suffix a folder.

    Args:
        threads: of the video encoder; 0 leaves the choice to it.
        pixel_aspect: width of a pixel by its height, which a video is marked with.

    Raises:
        OutputError: another suffix, or a place that cannot be written.
    """
    path = check_output(path)
    if is_video(path):
        return Mp4Sink(path, speech, fps, config, threads, pixel_aspect)
    if path.suffix == "" or path.is_dir():
        return ImageFolderSink(path, config)
    raise OutputError(
        f"{path}: found suffix {path.suffix}, expected .mp4 or a folder name for pictures."
    )


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """An error of the system, or of ffmpeg, while an output is written is one sentence."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise cannot_write(path, error) from error


def _check_not_empty(path: Path, count: int) -> None:
    if count == 0:
        raise OutputError(f"{path}: there were no frames to write, expected one at least.")


class ImageFolderSink:
    """A folder of numbered JPEG or PNG frames: ``000000.jpg``, ``000001.jpg``, ...

    Args:
        path: the folder; it must be new or empty, and appears when all frames are in it.
    """

    def __init__(self, path: str | Path, config: RenderConfig) -> None:
        self.path = check_output(path)
        if self.path.is_symlink():
            raise OutputError(f"{self.path}: is a link, expected a new or empty folder.")
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise OutputError(f"{self.path}: already there, expected a new or empty folder.")
        if self.path.resolve() == Path.cwd():
            raise OutputError(f"{self.path}: is the folder you are in, expected a new one.")
        self._config = config
        with _told(self.path):
            self._partial = Partial(self.path, is_folder=True)
        self._count = 0

    def __enter__(self) -> ImageFolderSink:
        return self

    def write(self, image: ImageArray) -> None:
        if image.ndim == 2:
            image = i420_to_bgr(image)
        suffix = f".{self._config.image_format}"
        content = encode_picture(image, suffix, self._config.jpeg_quality)
        with _told(self.path):
            (self._partial.path / f"{self._count:06d}{suffix}").write_bytes(content)
        self._count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                _check_not_empty(self.path, self._count)
                with _told(self.path):
                    self._partial.put_in_place()
        finally:
            self._partial.discard()


# The fast presets leave out what makes a still background cheap; it costs little time and saves
# three quarters of the bytes at the same quality. Seven B-frames without a search for where they
# fit take a fifth less time and bytes than three that are searched, and 0.4 dB.
_MACROBLOCK_TREE = "mbtree=1:rc-lookahead=8"
_PRESET_EXTRAS = {
    "ultrafast": {"x264-params": _MACROBLOCK_TREE},
    "superfast": {"x264-params": f"{_MACROBLOCK_TREE}:bframes=7:b-adapt=0"},
}


class Mp4Sink:
    """H.264 (yuv420p, BT.709) with the speech as AAC, index in front; plays in browsers.

    The sound is cut where the pictures end. Frames of odd size are padded by one pixel, as
    4:2:0 needs even sizes.

    Args:
        path: the ``.mp4`` file, replaced only when the new one is complete.
        speech: its file gives the sound track at its own rate; a feature track gives none.
        fps: frames a second.
        config: ``crf``, ``preset`` and ``audio_bitrate`` are used.
        threads: of x264; 0 leaves the choice to it.
        pixel_aspect: width of a pixel by its height.
    """

    def __init__(
        self,
        path: str | Path,
        speech: Speech,
        fps: int,
        config: RenderConfig,
        threads: int = 0,
        pixel_aspect: Fraction = _SQUARE,
    ) -> None:
        self.path = check_output_file(path)
        refuse_inputs(self.path, [speech.path])
        self._fps, self._config, self._speech = fps, config, speech
        self._threads, self._pixel_aspect = threads, pixel_aspect
        with _told(self.path):
            self._partial = Partial(self.path, ".mp4")
        self._name = _NameForFfmpeg(self._partial.path)
        self._container = self._opened()
        self._video: Any = None
        self._planes: ImageArray | None = None
        self._sound: SoundTrack | None = None
        self._count = 0

    def _opened(self) -> Any:
        try:
            with _told(self.path):
                return av.open(self._name.text, "w", options=_FASTSTART)
        except OutputError:
            self._name.close()
            self._partial.discard()
            raise

    def __enter__(self) -> Mp4Sink:
        return self

    def _open_streams(self, planes: ImageArray) -> None:
        options = {"crf": str(self._config.crf), "preset": self._config.preset}
        options |= _PRESET_EXTRAS.get(self._config.preset, {})
        stream = self._container.add_stream("libx264", rate=self._fps, options=options)
        stream.height, stream.width = planes.shape[0] * 2 // 3, planes.shape[1]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, self._fps)
        context.thread_count = self._threads
        if self._pixel_aspect != _SQUARE:
            context.sample_aspect_ratio = self._pixel_aspect
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        self._video = stream
        if self._speech.samples is not None:
            self._sound = SoundTrack(self._container, self._speech, self._config.audio_bitrate)

    def write(self, image: ImageArray) -> None:
        with _told(self.path):
            self._write(image)

    def _write(self, image: ImageArray) -> None:
        planes = image if image.ndim == 2 else self._convert(pad_to_even(image))
        if self._video is None:
            self._open_streams(planes)
        frame = _video_frame(planes)
        frame.pts, frame.time_base = self._count, Fraction(1, self._fps)
        self._container.mux(self._video.encode(frame))
        self._count += 1
        if self._sound is not None:
            self._sound.write_until(self._count / self._fps)

    def _convert(self, image: ImageArray) -> ImageArray:
        self._planes = bgr_to_i420(image, self._planes)
        return self._planes

    def _finish(self) -> None:
        if self._video is not None:
            self._container.mux(self._video.encode(None))
        if self._sound is not None:
            self._sound.finish(self._count / self._fps)
        self._container.close()
        self._partial.put_in_place()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                _check_not_empty(self.path, self._count)
                with _told(self.path):
                    self._finish()
        finally:
            if self._sound is not None:
                self._sound.close()
            # A container whose header was never written cannot be closed in order.
            with contextlib.suppress(av.FFmpegError, OSError, ValueError):
                self._container.close()
            self._name.close()
            self._partial.discard()


class _NameForFfmpeg:
    """A file's name that PyAV can pass on: absolute, so that no colon makes it a protocol.

    PyAV ends the process at a name that is not UTF-8. On Linux the folder of such a file has
    another name for as long as it is held open.
    """

    def __init__(self, path: Path) -> None:
        self._folder: int | None = None
        self.text = os.path.abspath(path)
        try:
            self.text.encode("utf-8")
        except UnicodeEncodeError:
            self._folder = os.open(path.parent, os.O_RDONLY)
            self.text = f"/proc/self/fd/{self._folder}/{path.name}"

    def close(self) -> None:
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None


def _video_frame(planes: ImageArray) -> av.VideoFrame:
    """An I420 picture as ffmpeg's frame, which borrows the array where PyAV can.

    x264 copies the pixels before ``encode`` returns, so that the array is free after it.
    """
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    if height % 4 == 0:
        return av.VideoFrame.from_numpy_buffer(planes, format="yuv420p")
    # PyAV takes the height for a multiple of 4 when it borrows.
    frame = av.VideoFrame(width, height, "yuv420p")
    for target, plane in zip(frame.planes, i420_planes(planes), strict=True):
        lines = np.frombuffer(memoryview(target), np.uint8).reshape(-1, target.line_size)
        lines[: plane.shape[0], : plane.shape[1]] = plane
    return frame
