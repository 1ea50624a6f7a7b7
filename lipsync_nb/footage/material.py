"""Footage as an avatar needs it: upright, of square pixels and even size, at one rate."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import groupby
from pathlib import Path

from lipsync_nb.avatar.frame_source import (
    IMAGE_SUFFIXES,
    PICTURES_FOLDER,
    VIDEO_FILE,
    numbered,
    rate_beside,
)
from lipsync_nb.errors import AvatarError, NotFoundError
from lipsync_nb.media.imaging import resize
from lipsync_nb.media.picture_files import read_picture
from lipsync_nb.media.rates import DEFAULT_RATE, rate_text, recorded_rate
from lipsync_nb.media.timeline import frames_on_screen
from lipsync_nb.media.video import VideoFile
from lipsync_nb.media.video_index import OpenVideo, VideoIndex, errors_of
from lipsync_nb.system.inputs import given_path
from lipsync_nb.types.arrays import ImageArray

# Transfer functions of ISO/IEC 23091-2 whose pictures are made for other screens.
_HDR = {16: "PQ", 18: "HLG"}


class Footage:
    """The frames of a video, or of pictures in the order of their names.

    Attributes:
        path: the file or folder.
        files: the pictures, or the video alone.
        fps: frames a second, exact.
        picks: the recorded frame of each frame.
        num_recorded: frames of the video, or pictures.
        width, height: of each frame, in pixels; even.
        pixel_aspect: of the recorded pixels, which become square.
        notes: what is odd and how it is taken, a line each.
    """

    def __init__(self, path: Path, files: Sequence[Path], fps: Fraction | None) -> None:
        self.path, self.files = path, tuple(files)
        self._video: VideoFile | None = None
        self.notes: tuple[str, ...] = ()
        self.pixel_aspect = Fraction(1)
        if len(files) == 1 and files[0].suffix.lower() not in IMAGE_SUFFIXES:
            self._video = VideoFile(files[0])
            index = self._video.index
            self.num_recorded, stored = len(self._video), index.first.shape
            self.pixel_aspect = index.first.pixel_aspect
            own, is_constant = recorded_rate(index.times, index.time_base)
            self.fps = fps or own
            self.picks = self._picked(index)
            self._note_rate(is_constant)
            self.notes += _notes_of_frame(files[0])
        else:
            self.num_recorded, stored = len(files), read_picture(files[0]).shape
            told = rate_beside(path) if path.is_dir() else None
            self.fps = fps or told or DEFAULT_RATE
            times = range(len(files)), 1 / (told or self.fps)
            self.picks = frames_on_screen(*times, self.fps)
            self._note_rate(is_constant=True)
        self._stored = stored
        self._set_size(stored[1], stored[0])

    def __len__(self) -> int:
        return len(self.picks)

    @property
    def scale(self) -> tuple[float, float]:
        """What a recorded pixel's x and y are multiplied by."""
        if self.pixel_aspect == 1:
            return 1.0, 1.0
        return self.width / self._stored[1], self.height / self._stored[0]

    def _picked(self, index: VideoIndex) -> list[int]:
        try:
            return frames_on_screen(index.times, index.time_base, self.fps)
        except AvatarError as error:
            raise AvatarError(f"{self.files[0]}: {error}") from error

    def _note_rate(self, is_constant: bool) -> None:
        count = len(self.picks)
        name = self.files[0].name if self._video is not None else self.path.name
        if self.picks == list(range(self.num_recorded)):
            return
        kind = "at another rate" if is_constant else "at a variable rate"
        self.notes += (
            f"{name} was recorded {kind}: {rate_text(self.fps)} a second are taken by their "
            f"times, {count} for {self.num_recorded}.",
        )

    def _set_size(self, width: int, height: int) -> None:
        """Square pixels by enlarging the shorter side; a row or column less where it is odd."""
        aspect, name = self.pixel_aspect, self.files[0].name
        wide = round(width * aspect) if aspect > 1 else width
        high = round(height / aspect) if aspect < 1 else height
        self.width, self.height = wide - wide % 2, high - high % 2
        if not (self.width and self.height):
            raise AvatarError(f"{self.files[0]}: is {width}x{height}, expected 2x2 or more.")
        if aspect != 1:
            self.notes += (
                f"{name}: pixels of {aspect.numerator}:{aspect.denominator} become square, "
                f"{width}x{height} is {self.width}x{self.height} now.",
            )
        elif (wide, high) != (self.width, self.height):
            self.notes += (f"{name}: is {width}x{height}, cut to {self.width}x{self.height}.",)

    def _shaped(self, image: ImageArray) -> ImageArray:
        if self.pixel_aspect != 1:
            return resize(image, self.width, self.height, "cubic")
        return image[: self.height, : self.width]

    def read(self, index: int) -> ImageArray:
        """One frame, uint8 ``[H, W, 3]`` BGR."""
        number = self.picks[index]
        if self._video is not None:
            return self._shaped(self._video.read(number))
        return self._shaped(self._picture(number))

    def _picture(self, number: int) -> ImageArray:
        image = read_picture(self.files[number])
        if image.shape != self._stored:
            found, first = (f"{shape[1]}x{shape[0]}" for shape in (image.shape, self._stored))
            raise AvatarError(
                f"{self.files[number]}: is {found}, expected {first} as the first picture."
            )
        return image

    def frames(self) -> Iterator[tuple[ImageArray, int]]:
        """Each frame that differs, uint8 ``[H, W, 3]`` BGR, and how often it comes in a row.

        Raises:
            AvatarError: a frame is not readable, or the video breaks off.
        """
        runs = ((number, len(list(same))) for number, same in groupby(self.picks))
        if self._video is None:
            for number, count in runs:
                yield self._shaped(self._picture(number)), count
            return
        wanted, count = next(runs)
        for number, frame in enumerate(self._video.decoded()):
            if number == wanted:
                yield self._shaped(self._video.bgr(frame)), count
                wanted, count = next(runs, (-1, 0))


def open_footage(path: str | Path, fps: Fraction | None = None) -> Footage:
    """Footage of a video, a picture, or a folder.

    Args:
        path: a file, or a folder with ``full_body_img/``, ``full_body_video.mp4`` or pictures,
            which are taken in the order of their names, numbers in these by their value.
        fps: frames a second that are taken, by their true times; None: the recording's own rate,
            which ``avatar.json`` beside pictures says; 25 where nothing does.

    Raises:
        NotFoundError: it is not there.
        AvatarError: it holds no pictures, or is damaged or truncated.
    """
    path = given_path(path, "a video or a folder of pictures")
    if not path.exists():
        raise NotFoundError(f"{path}: no such video or folder.")
    return Footage(path, _files_of(path) if path.is_dir() else (path,), fps)


def _files_of(folder: Path) -> Sequence[Path]:
    if (folder / PICTURES_FOLDER).is_dir():
        return numbered(folder / PICTURES_FOLDER, IMAGE_SUFFIXES)
    if (folder / VIDEO_FILE).exists():
        return (folder / VIDEO_FILE,)
    try:
        found = [
            file
            for file in folder.iterdir()
            # What begins with a point is hidden: macOS leaves ``._name.jpg`` beside each.
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
        ]
    except OSError as error:
        raise AvatarError(f"{folder}: cannot be read ({error.strerror}).") from error
    if not found:
        raise AvatarError(
            f"{folder}: found no pictures, expected .jpg or .png files, {PICTURES_FOLDER}/ or "
            f"{VIDEO_FILE}."
        )
    return sorted(found, key=_by_numbers)


def _by_numbers(file: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", file.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _notes_of_frame(file: Path) -> tuple[str, ...]:
    """What a video's first frame says of its colours and lines."""
    with OpenVideo(file, threaded=False) as video, errors_of(file):
        frame = next(video.container.decode(video.stream), None)
    if frame is None:
        return ()
    notes = []
    if int(frame.color_trc or 0) in _HDR:
        notes.append(
            f"{file.name}: is HDR ({_HDR[int(frame.color_trc)]}): its colours are taken without "
            "tone mapping, and look pale; record in standard range, or convert it before."
        )
    if frame.interlaced_frame:
        notes.append(
            f"{file.name}: is interlaced: each frame holds two moments, which combs what moves; "
            "deinterlace it before."
        )
    return tuple(notes)
