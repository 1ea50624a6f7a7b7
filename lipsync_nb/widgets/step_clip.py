"""A small clip of two runs side by side, and how alike they are; it knows no widgets."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from lipsync_nb.avatar.frame_source import FrameSource
from lipsync_nb.errors import LipsyncError
from lipsync_nb.experiments.quality import likeness, psnr_db
from lipsync_nb.media.containers import open_alone
from lipsync_nb.media.h264 import H264Settings, open_h264
from lipsync_nb.media.imaging import bgr_to_i420, resize
from lipsync_nb.media.video import decoding_on
from lipsync_nb.system.limits import memory_given_back
from lipsync_nb.types.arrays import ImageArray, IndexArray
from lipsync_nb.types.records import Box

Pictures = Iterator[ImageArray]
_HALF_WIDTH, _CRF, _PRESET = 640, 16, "ultrafast"
_MOST_KEPT, _SSIM_FRAMES = 400, 40


class Unwanted(Exception):
    """Raised where a clip is not wanted any more."""


@dataclass(frozen=True)
class Alike:
    """How alike two runs are, within the face box, where they can differ.

    Attributes:
        psnr_db: of the mean squared error over all frames; 100 where they are identical.
        ssim: the mean of `num_ssim` frames; None without scikit-image.
        worst: the frame with the largest squared error, and its PSNR.
    """

    psnr_db: float
    ssim: float | None
    num_ssim: int
    worst: int
    worst_db: float


@dataclass
class Pair:
    """What a clip is made of.

    Attributes:
        left, right: give the pictures in order, uint8 ``[H, W, 3]`` BGR, all of one size.
        boxes: the face box of each frame.
        sound: an mp4 whose sound the clip gets; None: it is silent.
        is_compared: whether `Alike` is wanted.
    """

    left: Callable[[], Pictures]
    right: Callable[[], Pictures]
    boxes: Sequence[Box]
    fps: Fraction
    sound: Path | None
    is_compared: bool


def make_clip(
    pair: Pair, tell: Callable[[int], None], stop: threading.Event
) -> tuple[bytes, Alike | None]:
    """Encode a pair, 640 pixels a side at most; gives the mp4, and how alike they are.

    Args:
        tell: called with the number of frames that are done.
        stop: ends it.

    Raises:
        Unwanted: it was stopped.
        LipsyncError: a picture is not readable.
    """
    content, count = io.BytesIO(), len(pair.boxes)
    meter = _Meter(count) if pair.is_compared else None
    # FFmpeg writes an mp4 to what can be gone back in.
    with av.open(content, "w", format="mp4") as container:
        encoder: Any = None
        for number, left, right in _pairs(pair):
            if stop.is_set():
                raise Unwanted
            if encoder is None:
                settings = _settings(left, pair.fps)
                encoder = open_h264(container, settings)
                sound = _Sound(container, pair.sound)
            if meter is not None:
                meter.add(left, right, pair.boxes[number])
            container.mux(list(encoder.write(_planes(left, right, settings), number)))
            tell(number + 1)
        container.mux(list(encoder.finish()))
        sound.copy(Fraction(count) / pair.fps)
        encoder.close()
    return content.getvalue(), None if meter is None else meter.alike


def recorded(source: FrameSource, order: IndexArray) -> Pictures:
    """The recording's own frames in this order; of a video so many at a time, each decoded once."""
    if not source.is_video:
        yield from (source.read(int(index)) for index in order)
        return
    for first in range(0, len(order), _MOST_KEPT):
        part = order[first : first + _MOST_KEPT].tolist()
        with decoding_on():
            kept = {index: _small(source.read(index)) for index in sorted(set(part))}
        yield from (kept[index] for index in part)


def _pairs(pair: Pair) -> Iterator[tuple[int, ImageArray, ImageArray]]:
    pictures = zip(range(len(pair.boxes)), pair.left(), pair.right(), strict=False)
    for number, left, right in pictures:
        if left.shape != right.shape:
            left = _fitted(left, right)
        yield number, left, right


def _fitted(left: ImageArray, right: ImageArray) -> ImageArray:
    """The left picture in the size of the right one: kept small, or of another avatar."""
    height, width = right.shape[:2]
    return resize(left, width, height, "cubic")


def _small(image: ImageArray) -> ImageArray:
    height, width = image.shape[:2]
    if width <= _HALF_WIDTH:
        return image
    return resize(image, _HALF_WIDTH, round(height * _HALF_WIDTH / width), "area")


def _settings(image: ImageArray, fps: Fraction) -> H264Settings:
    height, width = image.shape[:2]
    scale = min(1.0, _HALF_WIDTH / width)
    half, rows = (max(2, 2 * round(scale * side / 2)) for side in (width, height))
    return H264Settings(2 * half, rows, fps, _CRF, _PRESET, threads=1)


def _planes(left: ImageArray, right: ImageArray, settings: H264Settings) -> ImageArray:
    half, rows = settings.width // 2, settings.height
    joined = np.hstack([resize(image, half, rows, "area") for image in (left, right)])
    return bgr_to_i420(joined)


class _Sound:
    """The sound of a finished video, as it is."""

    def __init__(self, container: Any, path: Path | None) -> None:
        self._container, self._path = container, path
        self._stream: Any = None
        if path is None:
            return
        with open(path, "rb") as file, open_alone(file) as source:
            if source.streams.audio:
                self._stream = container.add_stream_from_template(source.streams.audio[0])

    def copy(self, seconds: Fraction) -> None:
        """Up to this time."""
        if self._stream is None or self._path is None:
            return
        with open(self._path, "rb") as file, open_alone(file) as source:
            for packet in source.demux(source.streams.audio[0]):
                if packet.dts is None or packet.pts * packet.time_base >= seconds:
                    continue
                packet.stream = self._stream
                self._container.mux(packet)


class _Meter:
    """Differences of two runs, frame by frame."""

    def __init__(self, count: int) -> None:
        self._errors: list[float] = []
        self._step = max(1, -(-count // _SSIM_FRAMES))
        self._ssim: list[float] = []

    def add(self, left: ImageArray, right: ImageArray, box: Box) -> None:
        one, other = (image[box.rows, box.columns] for image in (left, right))
        if len(self._errors) % self._step == 0:
            score = likeness(other[None], one[None]).ssim
            self._ssim += [] if score is None else [score]
        difference = one.astype(np.float32) - other
        self._errors.append(float((difference**2).mean()))

    @property
    def alike(self) -> Alike:
        errors = np.array(self._errors)
        worst = int(errors.argmax())
        mean = float(np.mean(self._ssim)) if self._ssim else None
        return Alike(
            psnr_db(float(errors.mean())), mean, len(self._ssim), worst, psnr_db(errors[worst])
        )


class ClipMaker:
    """Makes clips in a thread, one at a time; the one before is not wanted any more.

    Args:
        on_state: called in the thread with how far it is, or why there is none, in words.
        on_done: called in the thread with the clip.
    """

    def __init__(
        self,
        on_state: Callable[[str], None],
        on_done: Callable[[bytes, Alike | None], None],
    ) -> None:
        self._on_state, self._on_done = on_state, on_done
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, pair: Pair) -> None:
        """Make a clip of this pair."""
        self.stop()
        self._stop = threading.Event()
        work = (pair, self._stop)
        self._thread = threading.Thread(target=self._work, args=work, name="clip", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Not wanted any more; returns when the thread has ended."""
        self._stop.set()
        self.wait()
        self._thread = None

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Until it is made."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_seconds)

    @memory_given_back()
    def _work(self, pair: Pair, stop: threading.Event) -> None:
        count, told = len(pair.boxes), -1

        def tell(done: int) -> None:
            nonlocal told
            part = 10 * (10 * done // count)
            if part != told:
                told = part
                self._on_state(f"made ready to be played: {part} %")

        try:
            clip, alike = make_clip(pair, tell, stop)
        except Unwanted:
            return
        except (LipsyncError, OSError, av.FFmpegError) as error:
            self._on_state(f"cannot be played: {error}")
            return
        if not stop.is_set():
            self._on_done(clip, alike)
