"""The files that an avatar's frames come from, and the ways to read them."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np

from lipsync_nb.errors import AvatarError, ConfigError
from lipsync_nb.media.imaging import Turn, bgr_to_i420
from lipsync_nb.media.picture_files import read_picture
from lipsync_nb.media.rates import DEFAULT_RATE, rate_of, rate_text, recorded_rate
from lipsync_nb.media.timeline import frames_on_screen, mean_rate
from lipsync_nb.media.video import VideoFile
from lipsync_nb.system.inputs import read_file
from lipsync_nb.system.limits import available_cores
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Box, Pixels, shown

from .cache import ReopenedFrames, StoredFrame, patch_of, patch_view

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
PICTURES_FOLDER, VIDEO_FILE = "full_body_img", "full_body_video.mp4"
FACTS_FILE, MASKS_FOLDER = "avatar.json", "masks"
_MOST_FACTS_BYTES = 2**20
_WINDOW = 64

Keep = Callable[[ImageArray], ImageArray]
Item = TypeVar("Item")
Result = TypeVar("Result")


class FrameSource:
    """The pictures of an avatar in order, or its one video, each at a steady rate.

    It keeps what it finds out about the files: a video's index, and the first picture's size.

    Args:
        files, is_video: see below.
        fps: frames a second that are given, taken by the recording's true times; None: as many as
            were recorded, see `recorded_rate`.
        pictures_fps: the rate that pictures were taken at, where it is known.

    Attributes:
        files: one picture a frame, or the video alone.
        is_video: which of the two.
    """

    def __init__(
        self,
        files: tuple[Path, ...],
        is_video: bool,
        fps: Fraction | None = None,
        pictures_fps: Fraction | None = None,
    ) -> None:
        self.files, self.is_video = files, is_video
        self._wanted_fps, self._pictures_fps = fps, pictures_fps

    def __repr__(self) -> str:
        what = "video" if self.is_video else f"{len(self.files)} pictures"
        return f"FrameSource({what}, {self.files[0].parent})"

    @cached_property
    def _video(self) -> VideoFile:
        return VideoFile(self.files[0])

    @property
    def fps(self) -> Fraction:
        """Frames a second that are given, exactly: 30000/1001 for 29.97."""
        return self._wanted_fps or self._recorded[0]

    @cached_property
    def _recorded(self) -> tuple[Fraction, bool]:
        """The recording's own rate, and whether it is constant."""
        if not self.is_video:
            return self._pictures_fps or self._wanted_fps or DEFAULT_RATE, True
        return recorded_rate(self._video.index.times, self._video.index.time_base)

    @cached_property
    def _picks(self) -> list[int]:
        """The recorded frame of each frame."""
        times, time_base = self._times
        try:
            return frames_on_screen(times, time_base, self.fps)
        except AvatarError as error:
            raise AvatarError(f"{self.files[0]}: {error}") from error

    @property
    def _times(self) -> tuple[Sequence[int], Fraction]:
        """When each recorded frame is shown, and the unit in seconds."""
        if self.is_video:
            return self._video.index.times, self._video.index.time_base
        return range(len(self.files)), 1 / self._recorded[0]

    @cached_property
    def _pictures(self) -> tuple[Path, ...]:
        """The file of each frame, where they are pictures."""
        return tuple(self.files[pick] for pick in self._picks)

    @property
    def picks(self) -> Sequence[int]:
        """The recorded frame of each frame; frame i itself at the recording's own rate."""
        return self._picks

    @property
    def is_as_recorded(self) -> bool:
        """Whether each recorded frame is taken once, in order."""
        return self._picks == list(range(self.num_recorded))

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self._picks)

    @property
    def num_recorded(self) -> int:
        """Number of pictures, or of frames in the video."""
        return len(self._video) if self.is_video else len(self.files)

    def count_exactly(self) -> None:
        """Count a video's frames by decoding them, where its packets told their number so far."""
        if self.is_video:
            self._video.count_exactly()
            for known in ("_picks", "_recorded"):
                self.__dict__.pop(known, None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the frames, a line each: pictures that are lost, another rate."""
        name, notes = self.files[0].name if self.is_video else PICTURES_FOLDER, []
        if self.is_video and self._video.index.num_lost:
            lost = self._video.index.num_lost
            all_of_them = self.num_recorded + lost
            notes.append(f"{name}: {lost} of its {all_of_them} pictures give no frame.")
        if not self.is_as_recorded:
            rate, is_constant = mean_rate(*self._times), self._recorded[1]
            varying = "" if is_constant else ", at a rate that varies"
            notes.append(
                f"{name} was recorded at {rate:.4g} frames a second{varying}: "
                f"{rate_text(self.fps)} a second are taken by their times, {self.count} for "
                f"{self.num_recorded}."
            )
        return tuple(notes)

    @property
    def reading(self) -> str:
        """How the files are read, where that is not one frame after the other as stored."""
        turn = self._video.index.first.turn if self.is_video else Turn()
        turned = "" if turn == Turn() else repr(turn)
        return turned if self.is_as_recorded else f"{turned}{self._picks}"

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """``(H, W, 3)`` of the first frame."""
        return self._video.index.first.shape if self.is_video else read_picture(self.files[0]).shape

    @property
    def sample_aspect_ratio(self) -> Fraction:
        """Width of a pixel by its height; 1 for pictures."""
        return self._video.index.first.pixel_aspect if self.is_video else Fraction(1)

    def read(self, index: int) -> ImageArray:
        """Open the file and read one frame, uint8 ``[H, W, 3]`` BGR."""
        if self.is_video:
            return self._video.read(self._picks[index])
        return read_picture(self._pictures[index])

    def read_planes(self, index: int) -> ImageArray:
        """Read one frame as `stored` gives it for ``i420``, uint8 ``[H * 3 / 2, W]``."""
        if self.is_video:
            return self._video.read_i420(self._picks[index])
        file = self._pictures[index]
        return _planar(file, read_picture(file))

    def read_patch(self, boxes: Sequence[Box], index: int) -> ImageArray:
        """Read what `stored` gives beside the picture for ``i420``: BGR at the widened box."""
        return patch_of(self.read(index), boxes[index])

    def reopened(self) -> ReopenedFrames:
        """The frames, each read from its file at every access."""
        return ReopenedFrames(self.read, self.count, self.shape)

    def frames(self, stop: int | None = None) -> Iterator[ImageArray]:
        """The frames in order, uint8 ``[H, W, 3]`` BGR; only the first ``stop``, where given."""
        if not self.is_video:
            return _in_parallel(read_picture, self._pictures[:stop])
        return (image for image, _ in self.stored([], "bgr", stop))

    def stored(
        self,
        boxes: Sequence[Box],
        pixels: Pixels,
        stop: int | None = None,
        keep: Keep = np.ascontiguousarray,
    ) -> Iterator[StoredFrame]:
        """The frames as they are kept: BGR and None, or I420 and the BGR patch at the box.

        A video is decoded to I420 directly.

        Args:
            stop: only so many, the first.
            keep: what is given for an array of a video that goes as the next frame comes.

        Raises:
            AvatarError: a frame is not readable.
        """
        if self.is_video:
            return self._from_video(boxes, pixels, stop, keep)
        if pixels == "bgr":
            return ((frame, None) for frame in self.frames(stop))
        return _in_parallel(_planar_picture, list(zip(self._pictures, boxes, strict=True))[:stop])

    def _from_video(
        self, boxes: Sequence[Box], pixels: Pixels, stop: int | None, keep: Keep
    ) -> Iterator[StoredFrame]:
        """The picked frames, each converted once; decoding ends with the last that is wanted."""
        wanted = self._picks[:stop]
        slot = 0
        for number, frame in enumerate(self._video.decoded()):
            end = bisect_right(wanted, number, slot)
            if slot < end:
                yield from self._converted(frame, boxes[slot:end], end - slot, pixels, keep)
            slot = end
            if slot == len(wanted) < self.count:
                return

    def _converted(
        self, frame: av.VideoFrame, boxes: Sequence[Box], count: int, pixels: Pixels, keep: Keep
    ) -> list[StoredFrame]:
        """A frame as it is kept, so often; nothing else of it is held when this returns."""
        image = self._video.bgr_view(frame)
        if pixels == "bgr":
            return [(keep(image), None)] * count
        planes = keep(self._video.i420(frame))
        return [(planes, keep(patch_view(image, box))) for box in boxes]


def find_frames(
    root: Path, fps: Fraction | None = None, usual: Fraction = DEFAULT_RATE
) -> FrameSource:
    """The frames of an avatar: a picture, a video, or a folder in one of the known layouts.

    Args:
        fps: see `FrameSource`; what pictures were taken at is in ``avatar.json`` beside them.
        usual: the rate of pictures where neither tells one.

    Raises:
        AvatarError: there are none, or a number is missing.
    """
    if root.is_file():
        is_video = root.suffix.lower() not in IMAGE_SUFFIXES
        return FrameSource((root,), is_video, fps if is_video else fps or usual)
    if (root / PICTURES_FOLDER).is_dir():
        files = tuple(numbered(root / PICTURES_FOLDER, IMAGE_SUFFIXES))
        told = rate_beside(root)
        return FrameSource(files, False, fps if told else fps or usual, told)
    video = root / VIDEO_FILE
    if os.path.lexists(video):
        return FrameSource((video,), True, fps)
    raise AvatarError(
        f"{root}: found no frames, expected {PICTURES_FOLDER}/ with pictures or {VIDEO_FILE}."
    )


def rate_beside(root: Path) -> Fraction | None:
    """The rate that a folder's pictures were taken at, from its ``avatar.json``, where it says so.

    Raises:
        AvatarError: the file is not readable, or its ``fps`` is no rate.
    """
    facts = facts_beside(root)
    if "fps" not in facts:
        return None
    try:
        return rate_of(facts["fps"])
    except ConfigError as error:
        raise AvatarError(f"{root / FACTS_FILE}: {error}") from error


def facts_beside(root: Path) -> dict[str, Any]:
    """What a folder's ``avatar.json`` says of its pictures; nothing where there is none.

    Raises:
        AvatarError: the file is not readable.
    """
    path = root / FACTS_FILE
    if not os.path.lexists(path):
        return {}
    try:
        facts = json.loads(read_file(path, AvatarError, _MOST_FACTS_BYTES).decode("utf-8"))
    except AvatarError:
        raise
    except (ValueError, RecursionError) as error:
        raise AvatarError(f"{path}: not readable as JSON ({error}).") from error
    if not isinstance(facts, dict):
        kind = type(facts).__name__
        raise AvatarError(f'{path}: found a {kind}, expected {{"fps": "30000/1001"}}.')
    return facts


def unpainted_beside(root: Path, source: FrameSource) -> frozenset[int]:
    """The frames that stay as they were recorded, as a folder's ``avatar.json`` says.

    Raises:
        AvatarError: the file is not readable, or its ``unpainted`` no list of recorded frames.
    """
    if source.is_video or root.is_file():
        return frozenset()
    wanted = facts_beside(root).get("unpainted", [])
    frames = range(source.num_recorded)
    is_list = isinstance(wanted, list) and all(type(n) is int and n in frames for n in wanted)
    if not is_list:
        raise AvatarError(
            f"{root / FACTS_FILE}: found unpainted {shown(wanted)}, expected a list of frames, "
            f"0 to {source.num_recorded - 1}."
        )
    recorded = set(wanted)
    return frozenset(i for i, pick in enumerate(source.picks) if pick in recorded)


def masks_folder(root: Path) -> Path:
    """Where the masks of an avatar's folder or file lie, if there are any."""
    return (root if root.is_dir() else root.parent) / MASKS_FOLDER


def mask_files(root: Path) -> list[Path]:
    """The mask pictures of an avatar in order; none where there is no such folder.

    Raises:
        AvatarError: a number is missing, or the folder is empty.
    """
    folder = masks_folder(root)
    return numbered(folder, (".png",)) if folder.is_dir() else []


def numbered(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files 0, 1, 2, ... or 1, 2, 3, ... of a folder in the order of their numbers.

    Raises:
        AvatarError: there are none, one is missing, or two bear the same number.
    """
    try:
        found = list(folder.iterdir())
    except OSError as error:
        raise AvatarError(f"{folder}: cannot be read ({error.strerror}).") from error
    files = [f for f in found if f.suffix.lower() in suffixes and f.stem.isdecimal()]
    if not files:
        raise AvatarError(
            f"{folder}: found no numbered files, expected 0{suffixes[0]}, 1{suffixes[0]}, ..."
        )
    files.sort(key=lambda file: (int(file.stem), file.name))
    first = min(int(files[0].stem), 1)
    for number, file in enumerate(files, first):
        if int(file.stem) != number:
            raise AvatarError(f"{folder}: {_wrong_number(files, number - first, number)}")
    return files


def _wrong_number(files: Sequence[Path], position: int, expected: int) -> str:
    file = files[position]
    if position == 0:
        return f"found {file.name} as the first, expected 0{file.suffix} or 1{file.suffix}."
    before = files[position - 1]
    if int(before.stem) == int(file.stem):
        return f"found {before.name} and {file.name}, expected one file of each number."
    return f"found {file.name} after number {expected - 1}, expected {expected}{file.suffix}."


def _planar(file: Path, image: ImageArray) -> ImageArray:
    if image.shape[0] % 2 or image.shape[1] % 2:
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise AvatarError(f"{file}: is {size}, I420 needs even sizes.")
    return bgr_to_i420(image)


def _planar_picture(item: tuple[Path, Box]) -> StoredFrame:
    file, box = item
    image = read_picture(file)
    return _planar(file, image), patch_of(image, box)


def _in_parallel(read: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Read in windows, with a thread a core."""
    waiting = iter(items)
    with ThreadPoolExecutor(available_cores(), "pictures") as pool:
        while window := list(islice(waiting, _WINDOW)):
            yield from pool.map(read, window)
