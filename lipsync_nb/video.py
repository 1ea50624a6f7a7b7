"""Video in and out, through ffmpeg's libraries (PyAV)."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from .errors import AvatarError, OutputError
from .imaging import bgr_to_i420, i420_planes, i420_to_bgr, pad_to_even, write_image
from .records import SAMPLE_RATE, ImageArray, RenderConfig, Speech

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
AAC_SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
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


def open_sink(
    path: str | Path, speech: Speech, fps: int, config: RenderConfig, threads: int = 0
) -> Mp4Sink | ImageFolderSink:
    """Sink by the look of the path: ``.mp4`` is a video, a name without suffix a folder.

    Args:
        threads: of the video encoder; 0 leaves the choice to it.

    Raises:
        OutputError: another suffix, or a place that cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() == ".mp4":
        return Mp4Sink(path, speech, fps, config, threads)
    if path.suffix == "" or path.is_dir():
        return ImageFolderSink(path, config)
    raise OutputError(
        f"{path}: found suffix {path.suffix}, expected .mp4 or a folder name for pictures."
    )


def _parent_of(path: Path) -> Path:
    parent = path.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"{path}: its folder {parent} does not exist.")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{path}: its folder {parent} is not writable.")
    return parent


class ImageFolderSink:
    """A folder of numbered JPEG or PNG frames: ``000000.jpg``, ``000001.jpg``, ...

    Args:
        path: the folder; it must be new or empty, and appears when all frames are in it.
    """

    def __init__(self, path: str | Path, config: RenderConfig) -> None:
        self.path = Path(path)
        parent = _parent_of(self.path)
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise OutputError(f"{self.path}: already there, expected a new or empty folder.")
        self._config = config
        self._partial = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.partial-", dir=parent))
        self._count = 0

    def __enter__(self) -> ImageFolderSink:
        return self

    def write(self, image: ImageArray) -> None:
        if image.ndim == 2:
            image = i420_to_bgr(image)
        name = self._partial / f"{self._count:06d}.{self._config.image_format}"
        write_image(name, image, self._config.jpeg_quality)
        self._count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            shutil.rmtree(self._partial, ignore_errors=True)
            return
        self._partial.chmod(0o755)
        os.replace(self._partial, self.path)


# The fast presets leave out what makes a still background cheap; it costs little time and saves
# three quarters of the bytes at the same quality. Seven B-frames without a search for where they
# fit take a fifth less time and bytes than three that are searched, and 0.4 dB.
_MACROBLOCK_TREE = "mbtree=1:rc-lookahead=10"
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
    """

    def __init__(
        self,
        path: str | Path,
        speech: Speech,
        fps: int,
        config: RenderConfig,
        threads: int = 0,
    ) -> None:
        self.path = Path(path)
        parent = _parent_of(self.path)
        if self.path.is_dir():
            raise OutputError(f"{self.path}: is a folder, expected a file name.")
        self._fps, self._config, self._speech = fps, config, speech
        self._threads = threads
        handle, name = tempfile.mkstemp(
            prefix=f".{self.path.stem}.partial-", suffix=".mp4", dir=parent
        )
        os.close(handle)
        self._partial = Path(name)
        self._container = av.open(name, "w", options={"movflags": "+faststart"})
        self._video: Any = None
        self._planes: ImageArray | None = None
        self._sound: _SoundTrack | None = None
        self._count = 0

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
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        self._video = stream
        if self._speech.samples is not None:
            self._sound = _SoundTrack(self._container, self._speech, self._config.audio_bitrate)

    def write(self, image: ImageArray) -> None:
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
        self._partial.chmod(0o644)
        os.replace(self._partial, self.path)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        except (av.FFmpegError, OSError) as failure:
            raise OutputError(f"{self.path}: cannot be written ({failure}).") from failure
        finally:
            if self._sound is not None:
                self._sound.close()
            if self._partial.exists():
                self._discard()

    def _discard(self) -> None:
        # A container whose header was never written cannot be closed in order.
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self._container.close()
        self._partial.unlink(missing_ok=True)


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


class _SoundTrack:
    """Streams the speech's own sound into the container, up to the time of the pictures."""

    def __init__(self, container: Any, speech: Speech, bit_rate: int) -> None:
        self._source, rate, channels = _open_sound(speech)
        self._container = container
        layout = "mono" if channels == 1 else "stereo"
        self._stream = container.add_stream("aac", rate=rate, layout=layout)
        self._stream.bit_rate = bit_rate
        self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        self._rate = rate
        self._blocks = self._resample()
        self._written = 0
        self._rest: np.ndarray | None = None
        self._layout = layout

    def _resample(self) -> Iterator[np.ndarray]:
        for frame in self._source:
            frame.pts = None
            for block in self._resampler.resample(frame):
                yield block.to_ndarray()
        for block in self._resampler.resample(None):
            yield block.to_ndarray()

    def write_until(self, seconds: float) -> None:
        """Encode the samples up to this time, as far as there are any."""
        wanted = round(seconds * self._rate) - self._written
        while wanted > 0:
            block = self._rest if self._rest is not None else next(self._blocks, None)
            if block is None:
                return
            part, rest = block[:, :wanted], block[:, wanted:]
            self._rest = rest if rest.shape[1] else None
            self._encode(part)
            wanted -= part.shape[1]

    def _encode(self, samples: np.ndarray) -> None:
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format="fltp", layout=self._layout
        )
        frame.sample_rate = self._rate
        frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
        self._container.mux(self._stream.encode(frame))
        self._written += samples.shape[1]

    def finish(self, seconds: float) -> None:
        """Write what is left up to the end of the pictures and flush the encoder."""
        self.write_until(seconds)
        self._container.mux(self._stream.encode(None))

    def close(self) -> None:
        """Close the speech's file."""
        self._blocks.close()  # type: ignore[attr-defined]
        self._source.close()


def _open_sound(speech: Speech) -> tuple[Any, int, int]:
    """Frames of the speech's sound, the sample rate to encode at and the number of channels."""
    if speech.path is None:
        return _memory_frames(speech), SAMPLE_RATE, 1
    with av.open(str(speech.path)) as container:
        context = container.streams.audio[0].codec_context
        rate = context.sample_rate if context.sample_rate in AAC_SAMPLE_RATES else 48_000
        channels = context.layout.nb_channels
    return _file_frames(speech.path), rate, channels


def _file_frames(path: Path) -> Iterator[av.AudioFrame]:
    with av.open(str(path)) as container:
        yield from container.decode(container.streams.audio[0])


def _memory_frames(speech: Speech) -> Iterator[av.AudioFrame]:
    samples = speech.samples if speech.samples is not None else np.zeros(0, np.float32)
    for start in range(0, len(samples), SAMPLE_RATE):
        block = np.ascontiguousarray(samples[None, start : start + SAMPLE_RATE], np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        yield frame
