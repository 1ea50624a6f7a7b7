"""Where finished frames go: a video with sound, or a folder of pictures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import av

from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import OutputError
from lipsync_nb.media.fragments import FragmentWriter
from lipsync_nb.media.h264 import H264Encoder, H264Settings, check_encoder, open_h264
from lipsync_nb.media.imaging import (
    bgr_to_i420,
    encode_picture,
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

_SQUARE = Fraction(1)
_FASTSTART = {"movflags": "+faststart"}


class Sink(Protocol):
    """Where finished frames go; a context manager that shows its result only when complete.

    Attributes:
        notes: what was chosen, a line each; known once the first frame was written.
    """

    path: Path
    notes: tuple[str, ...]

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
    fps: Fraction | int,
    config: RenderConfig,
    threads: int = 0,
    pixel_aspect: Fraction = _SQUARE,
    fragments: FragmentWriter | None = None,
) -> Mp4Sink | ImageFolderSink:
    """Sink by the look of the path: ``.mp4`` is a video, a name without suffix a folder.

    Args:
        threads: of the video encoder; 0 leaves the choice to it.
        pixel_aspect: width of a pixel by its height, which a video is marked with.
        fragments: gets a video's packets as well, to be played while it is written.

    Raises:
        OutputError: another suffix, a place that cannot be written, or fragments of pictures.
    """
    path = check_output(path)
    if is_video(path):
        return Mp4Sink(path, speech, fps, config, threads, pixel_aspect, fragments)
    if fragments is not None:
        raise OutputError(f"{path}: only a video is played in fragments, expected NAME.mp4.")
    if path.suffix == "" or path.is_dir():
        return ImageFolderSink(path, config)
    raise OutputError(
        f"{path}: found suffix {path.suffix}, expected .mp4 or a folder name for pictures."
    )


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """An error of the system, or of ffmpeg, while an output is written is one sentence."""
    try:
        yield
    except OutputError:
        raise
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
        with told(self.path):
            self._partial = Partial(self.path, is_folder=True)
        self._count = 0
        self.notes: tuple[str, ...] = ()

    def __enter__(self) -> ImageFolderSink:
        return self

    def write(self, image: ImageArray) -> None:
        if image.ndim == 2:
            image = i420_to_bgr(image)
        suffix = f".{self._config.image_format}"
        content = encode_picture(image, suffix, self._config.jpeg_quality)
        with told(self.path):
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
                with told(self.path):
                    self._partial.put_in_place()
        finally:
            self._partial.discard()


class Mp4Sink:
    """H.264 (yuv420p, BT.709) with the speech as AAC, index in front; plays in browsers.

    The sound is cut where the pictures end. Frames of odd size are padded by one pixel, as
    4:2:0 needs even sizes.

    Args:
        path: the ``.mp4`` file, replaced only when the new one is complete.
        speech: its file gives the sound track at its own rate; a feature track gives none.
        fps: frames a second, exactly.
        config: ``crf``, ``preset``, ``encoder``, ``encoders`` and ``audio_bitrate`` are used.
        threads: of x264, see `H264Settings`.
        pixel_aspect: width of a pixel by its height.
        fragments: gets the same packets, to be played while they are written.
    """

    def __init__(
        self,
        path: str | Path,
        speech: Speech,
        fps: Fraction | int,
        config: RenderConfig,
        threads: int = 0,
        pixel_aspect: Fraction = _SQUARE,
        fragments: FragmentWriter | None = None,
    ) -> None:
        self.path = check_output_file(path)
        refuse_inputs(self.path, [speech.path])
        self._fps, self._config, self._speech = Fraction(fps), config, speech
        self._threads, self._pixel_aspect = threads, pixel_aspect
        check_encoder(config.encoder, self.path)
        with told(self.path):
            self._partial = Partial(self.path, ".mp4")
        self._name = _NameForFfmpeg(self._partial.path)
        self._container = self._opened()
        # Segments of several encoders come whole, and the first one late.
        self._encoders = config.encoders or (1 if fragments is not None else 0)
        if fragments is not None:
            self._container = fragments.beside(self._container)
        self._video: H264Encoder | None = None
        self._planes: ImageArray | None = None
        self._sound: SoundTrack | None = None
        self._count = 0
        self.notes: tuple[str, ...] = ()

    def _opened(self) -> Any:
        try:
            with told(self.path):
                return av.open(self._name.text, "w", options=_FASTSTART)
        except OutputError:
            self._name.close()
            self._partial.discard()
            raise

    def __enter__(self) -> Mp4Sink:
        return self

    def _open_streams(self, width: int, height: int) -> H264Encoder:
        settings = replace(
            video_settings(
                width, height, self._fps, self._config, self._threads, self._pixel_aspect
            ),
            encoders=self._encoders,
        )
        self.notes = _notes(settings)
        self._video = open_h264(self._container, settings)
        if self._speech.samples is not None:
            self._sound = SoundTrack(self._container, self._speech, self._config.audio_bitrate)
        return self._video

    def write(self, image: ImageArray) -> None:
        with told(self.path):
            self._write(image)

    def _write(self, image: ImageArray) -> None:
        planes = planes_of(image, self._planes)
        if image.ndim == 3:
            self._planes = planes
        height, width = planes.shape[0] * 2 // 3, planes.shape[1]
        video = self._video or self._open_streams(width, height)
        self._mux(video.write(planes, self._count))
        self._advance(1)

    def _advance(self, frames: int) -> None:
        self._count += frames
        if self._sound is not None:
            self._sound.write_until(self._count / self._fps)

    def write_encoded(self, packets: Sequence[Any], width: int, height: int) -> None:
        """Take frames that are encoded already, with the same settings and their own times.

        Args:
            packets: one a frame, from a frame that needs no other one on.
            width, height: of the pictures, even.
        """
        with told(self.path):
            if self._video is None:
                self._open_streams(width, height)
            stream = self._container.streams.video[0]
            for packet in packets:
                packet.stream = stream
            self._mux(packets)
            self._advance(len(packets))

    def _mux(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            self._container.mux(packet)

    def _finish(self) -> None:
        if self._video is not None:
            self._mux(self._video.finish())
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
                with told(self.path):
                    self._finish()
        finally:
            if self._video is not None:
                self._video.close()
            if self._sound is not None:
                self._sound.close()
            # A container whose header was never written cannot be closed in order.
            with contextlib.suppress(av.FFmpegError, OSError, ValueError):
                self._container.close()
            self._name.close()
            self._partial.discard()


def planes_of(image: ImageArray, out: ImageArray | None = None) -> ImageArray:
    """A frame, BGR or I420, as I420 of even size; ``out`` may be written to, where given."""
    return image if image.ndim == 2 else bgr_to_i420(pad_to_even(image), out)


def video_settings(
    width: int,
    height: int,
    fps: Fraction,
    config: RenderConfig,
    threads: int = 0,
    pixel_aspect: Fraction = _SQUARE,
) -> H264Settings:
    """How a video of this size is encoded, as configured."""
    return H264Settings(
        width,
        height,
        fps,
        config.crf,
        config.preset,
        threads,
        pixel_aspect,
        config.encoders,
        config.encoder,
    )


def _notes(settings: H264Settings) -> tuple[str, ...]:
    """What is not the usual way, a line."""
    if settings.encoder == "x264" and settings.num_encoders == 1:
        return ()
    several = f", {settings.num_encoders} on segments of {settings.segment_frames} frames in turn"
    return (f"encoder: {settings.codec}{several if settings.num_encoders > 1 else ''}.",)


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
