"""Where an avatar's folder is made: under a name of its own until it is complete."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lipsync_nb.avatar.face_boxes import LANDMARKS_FOLDER, RECTANGLES_FILE
from lipsync_nb.avatar.frame_source import FACTS_FILE, PICTURES_FOLDER
from lipsync_nb.errors import LipsyncError, OutputError
from lipsync_nb.media.imaging import decode_grey, encode_picture, read_image
from lipsync_nb.network.files import parse_network, read_network
from lipsync_nb.system.limits import available_cores
from lipsync_nb.system.outputs import Partial, cannot_write, check_output
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Box, Progress, ProgressCallback

from .material import Footage
from .shots import CutFinder, shots_of

_GENERATOR, _AUDIO_ENCODER = "models/generator.onnx", "models/audio_encoder.onnx"
OnPicture = Callable[[int, ImageArray, bool], None]


class Steps:
    """Counts what is done of a known number of frames, and tells it.

    Args:
        frames: how many there are.
        passes: how often each is looked at; what is told is frames, not looks.
    """

    def __init__(self, frames: int, progress: ProgressCallback | None, passes: int = 1) -> None:
        self._total, self._progress, self._passes = frames * passes, progress, passes
        self._done, self._start = 0, time.monotonic()

    def __call__(self, count: int = 1) -> None:
        """So many more are done; what the callback raises ends the work."""
        before, self._done = self._done, min(self._done + count, self._total)
        done = self._done // self._passes
        if self._progress is not None and done > before // self._passes:
            elapsed = time.monotonic() - self._start
            self._progress(Progress(done, self._total // self._passes, elapsed))


class Workshop:
    """An avatar's folder in the making; closed before it is complete, it leaves nothing.

    Args:
        footage: what it is made of.
        out: the folder's name, which must be free.
        quality: of the JPEG files, 1 to 100; 0 writes PNG, which loses nothing.

    Attributes:
        cuts: frames that begin another shot, once the pictures are there.

    Raises:
        OutputError: the name is taken, its place cannot be written, or the footage lies within it.
    """

    def __init__(self, footage: Footage, out: str | Path, quality: int = 95) -> None:
        self.footage, self.out = footage, check_new_folder(out, footage.path)
        self._suffix, self._quality = (".jpg", quality) if quality else (".png", 0)
        self.cuts: tuple[int, ...] = ()
        self.is_filled = False
        try:
            self._partial = Partial(self.out, is_folder=True)
        except OSError as error:
            raise cannot_write(self.out, error) from error

    def __enter__(self) -> Workshop:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove it, unless it was finished."""
        self._partial.discard()

    def fill(self, step: Callable[[int], None], on_picture: OnPicture | None = None) -> None:
        """Write the pictures, and note the cuts; they are never all in memory.

        Args:
            step: called with the number of frames after each that were written.
            on_picture: called with each picture, its frame, and whether it begins a shot.

        Raises:
            AvatarError: a frame is not readable.
            OutputError: the disk is full, or cannot be written.
        """
        finder, frame = CutFinder(), 0
        folder = self._partial.path / PICTURES_FOLDER
        waiting: deque[Future[None]] = deque()
        cores = available_cores()
        with _as_output_errors(self.out), ThreadPoolExecutor(cores, "pictures") as pool:
            folder.mkdir()
            for image, count in self.footage.frames():
                names = [folder / f"{frame + i}{self._suffix}" for i in range(count)]
                waiting.append(pool.submit(_write, names, image, self._quality))
                is_cut = finder.begins_shot(image, count)
                if on_picture is not None:
                    for i in range(count):
                        on_picture(frame + i, image, is_cut and i == 0)
                while len(waiting) > 2 * cores:
                    waiting.popleft().result()
                frame += count
                step(count)
            for written in waiting:
                written.result()
        self.cuts, self.is_filled = tuple(finder.cuts), True

    @property
    def shots(self) -> list[range]:
        """The frames of each shot."""
        return shots_of(len(self.footage), self.cuts)

    def _file(self, frame: int) -> Path:
        return self._partial.path / PICTURES_FOLDER / f"{frame}{self._suffix}"

    def grey(self, frame: int, shrink: int = 1) -> ImageArray:
        """A written picture in grey, uint8 ``[h, w]``."""
        with _as_output_errors(self.out):
            image = decode_grey(self._file(frame).read_bytes(), shrink)
        if image is None:
            raise OutputError(f"{self.out}: picture {frame} was changed while it was made.")
        return image

    def picture(self, frame: int) -> ImageArray:
        """A written picture, uint8 ``[H, W, 3]`` BGR."""
        image = read_image(self._file(frame))
        if image is None:
            raise OutputError(f"{self.out}: picture {frame} was changed while it was made.")
        return image

    def write_boxes(self, boxes: tuple[Box, ...]) -> None:
        """Write the face boxes as rectangles."""
        entries = {str(i): {"rect": list(box.corners)} for i, box in enumerate(boxes)}
        self._write_text(RECTANGLES_FILE, json.dumps(entries, separators=(",", ":")))

    def write_landmarks(self, points: np.ndarray) -> None:
        """Write landmarks, int64 ``[n, 110, 2]``, a file each frame."""
        for frame, face in enumerate(points.tolist()):
            lines = "".join(f"{x} {y}\n" for x, y in face)
            self._write_text(f"{LANDMARKS_FOLDER}/{frame}.lms", lines)

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Write what is known of the frames besides their boxes."""
        self._write_text(FACTS_FILE, json.dumps(facts, indent=1) + "\n")

    def _write_text(self, name: str, text: str) -> None:
        path = self._partial.path / name
        with _as_output_errors(self.out):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def add_networks(self, networks: Mapping[str, Path], linked: bool) -> None:
        """Copy networks to their places, each one file with all its weights; or link to them."""
        for name, file in networks.items():
            target = self._partial.path / name
            with _as_output_errors(self.out):
                target.parent.mkdir(exist_ok=True)
                if linked:
                    os.symlink(os.path.abspath(file), target)
                else:
                    target.write_bytes(read_network(file))

    def finish(self) -> None:
        """Give it its name: it is complete."""
        with _as_output_errors(self.out):
            if os.path.lexists(self.out):
                raise OutputError(f"{self.out}: exists already, expected the name of a new folder.")
            self._partial.put_in_place()


@contextmanager
def _as_output_errors(out: Path) -> Iterator[None]:
    """What the system says of the files in the body becomes an `OutputError`."""
    try:
        yield
    except LipsyncError:
        raise
    except OSError as error:
        raise cannot_write(out, error) from error


def _write(names: list[Path], image: ImageArray, quality: int) -> None:
    content = encode_picture(image, names[0].suffix, quality)
    for name in names:
        name.write_bytes(content)


def check_new_folder(out: str | Path, source: Path) -> Path:
    """An output folder's path, told before the work where it cannot be made.

    Raises:
        OutputError: it is there already, cannot be made, or the footage lies within it.
    """
    path = check_output(out)
    if path.exists() and (path.resolve() in (source.resolve(), *source.resolve().parents)):
        raise OutputError(f"{path}: holds the footage ({source}), expected another folder.")
    if os.path.lexists(path):
        raise OutputError(f"{path}: exists already, expected the name of a new folder.")
    return path


def checked_networks(
    generator: str | Path | None, audio_encoder: str | Path | None
) -> dict[str, Path]:
    """Networks that go into the folder, by their places in it.

    Raises:
        NotFoundError: one is not there, or its file of weights.
        NetworkError: one cannot be read, or is none.
    """
    given = {_GENERATOR: generator, _AUDIO_ENCODER: audio_encoder}
    found = {name: Path(path) for name, path in given.items() if path is not None}
    for path in found.values():
        parse_network(path, read_network(path))
    return found
