"""The runs of a session, and their videos, which are kept while the session lasts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.errors import OutputError
from lipsync_nb.media.imaging import read_image
from lipsync_nb.media.video import VideoFile, iter_video
from lipsync_nb.notebook.displays import config_text
from lipsync_nb.pipeline.batches import order_of
from lipsync_nb.pipeline.render import RenderResult
from lipsync_nb.system.outputs import scratch_folder
from lipsync_nb.types.arrays import ImageArray, IndexArray
from lipsync_nb.types.records import Speech

_PICTURES = (".jpg", ".png")


@dataclass(frozen=True, eq=False)
class Run:
    """One render of a session.

    Attributes:
        number: from 1.
        name: what it was, in a word: of its preset, or of its settings.
        video: its video, which stays where another run writes to the same place; or its folder.
    """

    number: int
    name: str
    avatar: Avatar
    speech: Speech | None
    result: RenderResult
    video: Path

    @property
    def label(self) -> str:
        """As all views call it."""
        return f"{self.number}: {self.name}"

    @property
    def order(self) -> IndexArray:
        """The recording's frame of each frame, int64."""
        result = self.result
        return order_of(len(self.avatar), result.num_frames, result.config)

    def reader(self) -> Callable[[int], ImageArray]:
        """Gives any frame, uint8 ``[H, W, 3]`` BGR, of the recording's size.

        Raises:
            OutputError: its video, or its pictures, were removed.
        """
        if self.video.is_file():
            video = VideoFile(self.video)
            return lambda index: self._unpadded(video.read(index))
        files = self._pictures()
        return lambda index: _picture(files[index])

    def frames(self) -> Iterator[ImageArray]:
        """All frames in order; raises as `reader`."""
        if self.video.is_file():
            yield from map(self._unpadded, iter_video(self.video))
        else:
            yield from map(_picture, self._pictures())

    def _unpadded(self, image: ImageArray) -> ImageArray:
        """A video's frame without the column or row that made an odd size even."""
        return image[: self.avatar.height, : self.avatar.width]

    def _pictures(self) -> list[Path]:
        files: list[Path] = []
        if self.video.is_dir():
            files = sorted(file for file in self.video.iterdir() if file.suffix in _PICTURES)
        if len(files) != self.result.num_frames:
            raise OutputError(
                f"{self.result.path}: was removed or changed since run {self.number}, "
                "expected its frames; run it again."
            )
        return files


def _picture(file: Path) -> ImageArray:
    image = read_image(str(file))
    if image is None:
        raise OutputError(f"{file}: was removed or damaged, expected a picture; run it again.")
    return image


class Runs:
    """Numbers runs, and keeps the video of each in a temporary folder until it is closed.

    A link is kept where that is possible: it takes no room, and stays where the name is written
    to by a later run.
    """

    def __init__(self) -> None:
        self._folder = ExitStack()
        self._place: Path | None = None
        self.all: list[Run] = []

    def add(
        self, avatar: Avatar, speech: Speech | None, result: RenderResult, name: str = ""
    ) -> Run:
        """Number another run, and keep its video."""
        number = len(self.all) + 1
        run = Run(
            number, name or config_text(result.config), avatar, speech, result,
            self._kept(result.path, number),
        )  # fmt: skip
        self.all.append(run)
        return run

    def close(self) -> None:
        """Let go of all of them."""
        self.all = []
        self._folder.close()
        self._place = None

    def _kept(self, path: Path, number: int) -> Path:
        if not path.is_file():
            return path
        if self._place is None:
            self._place = self._folder.enter_context(scratch_folder())
        kept = self._place / f"run {number}.mp4"
        try:
            os.link(path, kept)
        except OSError:
            try:
                shutil.copyfile(path, kept)
            except OSError:
                # There is no room: it is looked at where it is.
                return path
        return kept
