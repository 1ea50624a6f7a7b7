"""A video whose finished segments are kept in files, so that a later run goes on from them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import OutputError
from lipsync_nb.media.h264 import H264Settings, check_encoder, open_segments
from lipsync_nb.media.packets import read_packets, write_packets
from lipsync_nb.system.outputs import check_output_file, write_file
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Speech

from .sinks import Mp4Sink, planes_of, told, video_settings

# Three minutes at 25 frames a second.
RESUMED_FRAMES = 4500
_KEY_FILE, _LOCK_FILE, _SUFFIX = "key", "lock", ".part"


def is_resumed(config: RenderConfig, num_frames: int) -> bool:
    """Whether a video of so many frames is made in parts that are kept."""
    return config.resume == "on" or (config.resume == "auto" and num_frames >= RESUMED_FRAMES)


def parts_folder(path: str | Path) -> Path:
    """Where the parts of a video are kept until it is complete: hidden, beside it."""
    target = Path(os.path.realpath(path))
    return target.parent / f".{target.name}.lipsync-parts"


@dataclass(frozen=True)
class VideoForm:
    """What a video is like.

    Attributes:
        width, height: of the frames in pixels; an odd one is padded by one.
        fps: frames a second, exactly.
        pixel_aspect: width of a pixel by its height.
        threads: of the encoder; they decide no bit.
    """

    width: int
    height: int
    fps: Fraction
    pixel_aspect: Fraction = Fraction(1)
    threads: int = 0

    def settings(self, config: RenderConfig) -> H264Settings:
        """How it is encoded."""
        width, height = self.width + self.width % 2, self.height + self.height % 2
        return video_settings(width, height, self.fps, config, self.threads, self.pixel_aspect)


class Parts:
    """The folder of a video's parts: part k holds the frames of segment k, encoded.

    Args:
        path: of the video.
        key: of what it is made from, see `clip_key`; parts of something else are removed.

    Raises:
        OutputError: the folder cannot be written, or another process makes something else there.
    """

    def __init__(self, path: str | Path, key: str) -> None:
        self.path, self.folder, self._key = Path(path), parts_folder(path), key
        with told(self.path):
            self.folder.mkdir(exist_ok=True)
        if self._found_key() != key:
            with self.claimed():
                pass

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Entered while a video is put together of them, by one process at a time.

        Raises:
            OutputError: another process has them, or they cannot be written.
        """
        lock = FileLock(self.folder / _LOCK_FILE, is_singleton=False)
        with told(self.path):
            try:
                lock.acquire(blocking=False)
            except Timeout as error:
                raise OutputError(f"{self.path}: another process is making it.") from error
        try:
            if self._found_key() != self._key:
                self._begin()
            yield
        finally:
            lock.release()

    def _begin(self) -> None:
        """Remove what is of something else."""
        with told(self.path):
            for file in self.folder.glob(f"*{_SUFFIX}"):
                file.unlink(missing_ok=True)
            write_file(self.folder / _KEY_FILE, self._key.encode())

    def _found_key(self) -> str:
        with suppress(OSError, UnicodeDecodeError):
            return (self.folder / _KEY_FILE).read_text(encoding="ascii")
        return ""

    @property
    def is_empty(self) -> bool:
        """Whether no part is there."""
        return not any(self.folder.glob(f"*{_SUFFIX}"))

    def file(self, number: int) -> Path:
        """Where a part is kept."""
        return self.folder / f"{number:06d}{_SUFFIX}"

    def read(self, number: int) -> list[Any] | None:
        """The packets of a part, or None where it is not there; a damaged one is removed."""
        try:
            return read_packets(self.file(number), self._key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, ArithmeticError, RecursionError):
            with suppress(OSError):
                self.file(number).unlink()
            return None

    def write(self, number: int, packets: list[Any]) -> None:
        """Keep a part.

        Raises:
            OutputError: it cannot be written.
        """
        with told(self.path):
            write_packets(self.file(number), packets, self._key)

    def num_complete(self, segment_frames: int, num_frames: int) -> int:
        """Parts that are there from the first on, each with as many frames as it should have."""
        number = 0
        while number * segment_frames < num_frames:
            if not self.is_complete(number, segment_frames, num_frames):
                break
            number += 1
        return number

    def is_complete(self, number: int, segment_frames: int, num_frames: int) -> bool:
        """Whether a part is there, with as many frames as it should have."""
        packets = self.read(number)
        wanted = min(segment_frames, num_frames - number * segment_frames)
        return packets is not None and len(packets) == wanted

    def remove(self) -> None:
        """The video is there, or nothing of it: they are needed no more."""
        shutil.rmtree(self.folder, ignore_errors=True)


def discard_parts(path: str | Path) -> None:
    """A video is there, made in one piece: what a run that was broken off left of it is not needed.

    Where another process is at work with them, they are its own.
    """
    folder = parts_folder(path)
    # A name that is too long for a folder is none, and no error.
    if not os.path.isdir(folder):
        return
    lock = FileLock(folder / _LOCK_FILE, is_singleton=False)
    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError):
        return
    try:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.release()
    if sys.platform == "win32":
        shutil.rmtree(folder, ignore_errors=True)


class PartWriter:
    """Frames in, parts out, from a part on; a context manager.

    Args:
        parts: where they go.
        settings: how they are encoded.
        first: number of the first part that is written.
    """

    def __init__(self, parts: Parts, settings: H264Settings, first: int) -> None:
        self._parts, self._number = parts, first
        self._frames = first * settings.segment_frames
        self._encoder = open_segments(settings, self._keep)
        self._planes: ImageArray | None = None

    def _keep(self, packets: Any) -> None:
        self._parts.write(self._number, list(packets))
        self._number += 1

    def __enter__(self) -> PartWriter:
        return self

    def write(self, image: ImageArray) -> None:
        """Take one frame, see `Sink`."""
        planes = planes_of(image, self._planes)
        if image.ndim == 3:
            self._planes = planes
        with told(self._parts.path):
            _exhaust(self._encoder.write(planes, self._frames))
        self._frames += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                with told(self._parts.path):
                    _exhaust(self._encoder.finish())
        finally:
            self._encoder.close()


def _exhaust(packets: Any) -> None:
    for _ in packets:
        pass


class PartsSink:
    """As `Mp4Sink`, in segments that are files of their own until the video is complete.

    The video is put together of them as they are, and the sound is encoded then. A run that is
    broken off in any way leaves them; the next one for the same video, made from the same, goes
    on after the last that is complete.

    Args:
        path: the ``.mp4`` file, replaced only when the new one is complete.
        speech, config: see `Mp4Sink`.
        form: what the video is like.
        key: of what it is made from.
        num_frames: of the whole video.

    Attributes:
        num_kept: frames that were there.
        num_frames: of the whole video.

    Raises:
        OutputError: the place cannot be written, or another process is making this video.
    """

    def __init__(
        self,
        path: str | Path,
        speech: Speech,
        config: RenderConfig,
        form: VideoForm,
        key: str,
        num_frames: int,
    ) -> None:
        self.path = check_output_file(path)
        check_encoder(config.encoder, self.path)
        self._speech, self._config, self._form = speech, config, form
        self.num_frames, self._settings = num_frames, form.settings(config)
        self._parts, self._claim = Parts(self.path, key), ExitStack()
        self._claim.enter_context(self._parts.claimed())
        with ExitStack() as undone:
            undone.push(self._claim)
            first = self._parts.num_complete(self._settings.segment_frames, num_frames)
            self.num_kept = min(num_frames, first * self._settings.segment_frames)
            self._writer = PartWriter(self._parts, self._settings, first)
            undone.pop_all()
        self.notes = _notes(self.num_kept, num_frames)

    def __enter__(self) -> PartsSink:
        return self

    def write(self, image: ImageArray) -> None:
        self._writer.write(image)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._writer.__exit__(kind, error, trace)
            if kind is None:
                join_parts(
                    self.path, self._speech, self._config, self._form, self._parts, self.num_frames
                )
            is_needed = kind is not None and not self._parts.is_empty
            if not is_needed and sys.platform != "win32":
                # While they are claimed: whoever comes next begins with a folder of its own.
                self._parts.remove()
        finally:
            self._claim.close()
        if not is_needed and sys.platform == "win32":
            self._parts.remove()


def join_parts(
    path: Path,
    speech: Speech,
    config: RenderConfig,
    form: VideoForm,
    parts: Parts,
    num_frames: int,
) -> None:
    """Put a video together of all its parts, with the sound.

    Raises:
        OutputError: a part is missing, or the video cannot be written.
    """
    settings = form.settings(config)
    with Mp4Sink(path, speech, form.fps, config, form.threads, form.pixel_aspect) as sink:
        for packets in _whole(path, parts, settings.segment_frames, num_frames):
            sink.write_encoded(packets, settings.width, settings.height)


def _whole(path: Path, parts: Parts, segment_frames: int, num_frames: int) -> Iterator[list[Any]]:
    for number in range(-(-num_frames // segment_frames)):
        packets = parts.read(number)
        if packets is None:
            raise OutputError(f"{path}: its part {number} is gone or damaged; render it again.")
        yield packets


def _notes(num_kept: int, num_frames: int) -> tuple[str, ...]:
    if not num_kept:
        return ()
    return (f"{num_kept} of {num_frames} frames were there, made in parts before.",)
