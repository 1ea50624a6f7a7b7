"""The files that an avatar's frames come from, and the ways to read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from joblib import Parallel, delayed

from .cache import ReopenedFrames, patch_of
from .errors import AvatarError
from .imaging import bgr_to_i420, read_image
from .records import Box, ImageArray, Pixels
from .video import VIDEO_SUFFIXES, VideoFile, iter_video, iter_video_planes

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
PICTURES_FOLDER, VIDEO_FILE = "full_body_img", "full_body_video.mp4"
_WINDOW = 64

StoredFrame = tuple[ImageArray, ImageArray | None]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class FrameSource:
    """The pictures of an avatar in order, or its one video.

    Attributes:
        files: one picture a frame, or the video alone.
        is_video: which of the two.
    """

    files: tuple[Path, ...]
    is_video: bool

    @cached_property
    def _video(self) -> VideoFile:
        return VideoFile(self.files[0])

    @cached_property
    def count(self) -> int:
        """Number of frames; those of a video are counted without decoding them."""
        return len(self._video) if self.is_video else len(self.files)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """``(H, W, 3)`` of the first frame."""
        if self.is_video:
            return next(iter_video(self.files[0])).shape
        return read_picture(self.files[0]).shape

    def read(self, index: int) -> ImageArray:
        """Open the file and read one frame, uint8 ``[H, W, 3]`` BGR."""
        return self._video.read(index) if self.is_video else read_picture(self.files[index])

    def reopened(self) -> ReopenedFrames:
        """The frames, each read from its file at every access."""
        return ReopenedFrames(self.read, self.count, self.shape)

    def frames(self) -> Iterator[ImageArray]:
        """All frames in order, uint8 ``[H, W, 3]`` BGR."""
        if self.is_video:
            return iter_video(self.files[0])
        return _in_parallel(read_picture, self.files)

    def stored(self, boxes: Sequence[Box], pixels: Pixels) -> Iterator[StoredFrame]:
        """All frames as they are kept: BGR and None, or I420 and the BGR patch at the box.

        A video is decoded to I420 directly.

        Raises:
            AvatarError: a frame is not readable, or there are more of them than boxes.
        """
        if pixels == "bgr":
            return ((frame, None) for frame in self.frames())
        if self.is_video:
            return self._stored_video(boxes)
        return _in_parallel(_planar_picture, list(zip(self.files, boxes, strict=True)))

    def _stored_video(self, boxes: Sequence[Box]) -> Iterator[StoredFrame]:
        for index, (picture, frame) in enumerate(iter_video_planes(self.files[0])):
            if index >= len(boxes):
                raise AvatarError(f"{self.files[0]}: has more frames than the {len(boxes)} boxes.")
            yield picture, patch_of(frame, boxes[index])


def find_frames(root: Path) -> FrameSource:
    """The frames of an avatar: a picture, a video, or a folder in one of the known layouts.

    Raises:
        AvatarError: there are none, or a number is missing.
    """
    if root.is_file():
        return FrameSource((root,), root.suffix.lower() in VIDEO_SUFFIXES)
    if (root / PICTURES_FOLDER).is_dir():
        return FrameSource(tuple(numbered(root / PICTURES_FOLDER, IMAGE_SUFFIXES)), False)
    video = root / VIDEO_FILE
    if video.is_file():
        return FrameSource((video,), True)
    raise AvatarError(
        f"{root}: found no frames, expected {PICTURES_FOLDER}/ with pictures or {VIDEO_FILE}."
    )


def numbered(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files 0, 1, 2, ... of a folder in the order of their numbers, none missing."""
    files = [f for f in folder.iterdir() if f.suffix.lower() in suffixes and f.stem.isdecimal()]
    if not files:
        raise AvatarError(
            f"{folder}: found no numbered files, expected 0{suffixes[0]}, 1{suffixes[0]}, ..."
        )
    files.sort(key=lambda file: int(file.stem))
    for number, file in enumerate(files):
        if int(file.stem) != number:
            raise AvatarError(
                f"{folder}: found {file.name} after number {number - 1}, "
                f"expected {number}{file.suffix}."
            )
    return files


def _planar_picture(item: tuple[Path, Box]) -> StoredFrame:
    file, box = item
    image = read_picture(file)
    if image.shape[0] % 2 or image.shape[1] % 2:
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise AvatarError(f"{file}: is {size}, I420 needs even sizes.")
    return bgr_to_i420(image), patch_of(image, box)


def _in_parallel(read: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Read in windows; errors come back as values, so that no worker is left behind."""
    waiting = iter(items)
    attempt = delayed(partial(_try, read))
    with Parallel(n_jobs=-1, prefer="threads") as parallel:
        while window := list(islice(waiting, _WINDOW)):
            for result in parallel(attempt(item) for item in window):
                if isinstance(result, AvatarError):
                    raise result
                yield result


def _try(read: Callable[[Item], Result], item: Item) -> Result | AvatarError:
    try:
        return read(item)
    except AvatarError as error:
        return error


def read_picture(path: Path) -> ImageArray:
    """Read one picture, uint8 ``[H, W, 3]`` BGR.

    Raises:
        AvatarError: it is not readable, or truncated.
    """
    if not _is_complete(path):
        raise AvatarError(f"{path}: the picture is truncated.")
    image = read_image(str(path))
    if image is None:
        raise AvatarError(f"{path}: not a readable picture.")
    return image


def _is_complete(path: Path) -> bool:
    """Whether a JPEG or PNG has its end marker (OpenCV fills what is missing with grey)."""
    data = path.read_bytes()
    if data[:2] == b"\xff\xd8":
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    if data[:4] == b"\x89PNG":
        return b"IEND" in data[-32:]
    return True
