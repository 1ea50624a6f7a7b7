"""Avatars from disk: frames, boxes and networks, in any of the known layouts."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .cache import (
    MemoryReport,
    PlanarFrames,
    Template,
    check_boxes,
    estimate_template,
)
from .errors import AvatarError, NotFoundError
from .prepared import open_or_write, prepared_key
from .records import SYNCTALK_328, Box, CachePolicy, ModelSpec, Pixels
from .sources import FrameSource, find_frames, numbered

NUM_LANDMARKS = 110
LEFT_CONTOUR, RIGHT_CONTOUR, NOSE_BRIDGE = 1, 31, 52
GENERATOR_FILES = ("models/generator.onnx", "checkpoint/model_best.onnx")
AUDIO_ENCODER_FILE = "models/audio_encoder.onnx"
LANDMARKS_FOLDER, RECTANGLES_FILE = "landmarks", "cache/crop_rectangles.json"
BoxSource = Literal["auto", "landmarks", "rectangles"]


@dataclass(frozen=True, eq=False)
class Avatar:
    """A recorded person, ready to speak.

    Attributes:
        name: the folder's name.
        template: frames and boxes.
        generator: the network that paints, or None where the folder has none.
        audio_encoder: the network from mel windows to features, or None.
        path: where it was loaded from.
    """

    name: str
    template: Template
    generator: Path | None
    audio_encoder: Path | None
    path: Path

    def __repr__(self) -> str:
        size = f"{self.template.width}x{self.template.height}"
        return f"Avatar({self.name!r}, {len(self.template)} frames of {size})"


def demo_folder() -> Path:
    """Folder of the demo avatar: within the installed package, or of the clone.

    Raises:
        NotFoundError: neither is there.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "demo", package.parent / "data" / "demo"):
        if (folder / AUDIO_ENCODER_FILE).is_file():
            return folder
    raise NotFoundError(f"{package.parent / 'data' / 'demo'}: the demo avatar is not installed.")


def demo_speeches() -> dict[str, Path]:
    """The demo's speech files by name."""
    files = sorted((demo_folder() / "speech").glob("*.flac"))
    return {file.stem: file for file in files}


def load_avatar(
    path: str | Path,
    generator: str | Path | None = None,
    audio_encoder: str | Path | None = None,
    *,
    boxes: BoxSource = "auto",
    box: Sequence[int] | None = None,
    spec: ModelSpec = SYNCTALK_328,
    cache: CachePolicy = "memory",
    pixels: Pixels = "bgr",
) -> Avatar:
    """Load an avatar's frames, boxes and the paths of its networks.

    Args:
        path: ``"demo"``; a folder with ``full_body_img/`` or ``full_body_video.mp4``, and with
            ``landmarks/`` or ``cache/crop_rectangles.json``; or one picture or video, with the
            landmarks of a picture beside it (``face.png``, ``face.lms``).
        generator, audio_encoder: networks to use instead of the folder's own.
        boxes: where the face boxes come from; ``auto`` takes the rectangles that belong to a
            video and the landmarks that belong to pictures, else whichever is there.
        box: one face box ``(x1, y1, x2, y2)`` in pixels, half-open, for all frames.
        spec: geometry of the network.
        cache: where frames are kept: ``memory``; ``mmap``, files that are written once beside
            the avatar (or in the user's cache) and mapped; ``none``, read from the avatar's
            own files at every use.
        pixels: how they are kept: ``bgr``, or ``i420`` at half the bytes, which a video encoder
            takes as it is (where it cannot be, ``bgr`` with a warning).

    Raises:
        NotFoundError: the folder or a network that was named does not exist.
        AvatarError: frames or boxes are missing, unreadable or do not fit each other.

    Example:
        >>> load_avatar("demo")
        Avatar('demo', 200 frames of 1280x720)
    """
    root = _root_of(path)
    source = find_frames(root)
    how = (boxes, None if box is None else [int(value) for value in box])

    def read_boxes() -> list[Box]:
        return _load_boxes(root, source.count, boxes, box, source.is_video)

    try:
        template = _load_template(root, source, read_boxes, how, spec, cache, pixels)
    except AvatarError as error:
        raise _named(root, error) from error
    own_generator = _first_file(root, GENERATOR_FILES)
    own_encoder = _first_file(root, (AUDIO_ENCODER_FILE,))
    return Avatar(
        name=root.stem,
        template=template,
        generator=_network(generator, own_generator),
        audio_encoder=_network(audio_encoder, own_encoder),
        path=root,
    )


def _root_of(path: str | Path) -> Path:
    root = demo_folder() if str(path) == "demo" else Path(path)
    if not root.exists():
        raise NotFoundError(f"{root}: no such avatar folder.")
    return root


def _named(root: Path, error: AvatarError) -> AvatarError:
    """The error with the avatar's path in front, where it names none."""
    text = str(error)
    return error if text.startswith(str(root)) else AvatarError(f"{root}: {text}")


def _first_file(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_file()), None)


def _network(given: str | Path | None, own: Path | None) -> Path | None:
    if given is None:
        return own
    if not Path(given).is_file():
        raise NotFoundError(f"{given}: no such network.")
    return Path(given)


def _load_template(
    root: Path,
    source: FrameSource,
    read_boxes: Callable[[], list[Box]],
    how: tuple[object, ...],
    spec: ModelSpec,
    cache: CachePolicy,
    pixels: Pixels,
) -> Template:
    """The template under a cache policy; ``how`` is what the boxes depend on beside files."""
    pixels = _usable_pixels(root, source, cache, pixels)
    if cache == "mmap":
        key = prepared_key(_files_behind(root, source), pixels, *how)
        prepared = open_or_write(
            root,
            key,
            lambda: _inside(read_boxes(), source),
            lambda found: source.stored(found, pixels),
            spec.fps,
        )
        if prepared is not None:
            return Template(prepared.frames, prepared.boxes, spec, "mmap")
    if cache == "none":
        return Template(source.reopened(), read_boxes(), spec, "none")
    if pixels == "bgr":
        frames = list(source.frames())
        return Template(frames, read_boxes(), spec)
    boxes = _inside(read_boxes(), source)
    pictures, patches = zip(*source.stored(boxes, pixels), strict=True)
    return Template(PlanarFrames(pictures, patches, boxes), boxes, spec)


def _inside(boxes: list[Box], source: FrameSource) -> list[Box]:
    check_boxes(boxes, source.shape[1], source.shape[0])
    return boxes


def _usable_pixels(root: Path, source: FrameSource, cache: CachePolicy, pixels: Pixels) -> Pixels:
    """``bgr`` in place of ``i420``, with a warning, where that cannot be."""
    if pixels == "bgr":
        return "bgr"
    height, width = source.shape[:2]
    if cache == "none":
        reason = "cache 'none' keeps no frames"
    elif width % 2 or height % 2:
        reason = f"I420 needs even sizes, found {width}x{height}"
    else:
        return "i420"
    warnings.warn(f"{root}: {reason}; pixels 'bgr' are used instead.", stacklevel=2)
    return "bgr"


def _files_behind(root: Path, source: FrameSource) -> list[Path]:
    """The files that frames and boxes are read from, in a fixed order."""
    boxes = [root.with_suffix(".lms"), root / RECTANGLES_FILE]
    landmarks = sorted((root / LANDMARKS_FOLDER).glob("*.lms"))
    return [*source.files, *landmarks, *(file for file in boxes if file.is_file())]


def estimate_memory(
    avatar: str | Path | tuple[int, int, int],
    cache: CachePolicy = "memory",
    pixels: Pixels = "bgr",
    *,
    boxes: BoxSource = "auto",
    box: Sequence[int] | None = None,
    spec: ModelSpec = SYNCTALK_328,
) -> MemoryReport:
    """What a template will cost under a cache policy, before it is loaded.

    Args:
        avatar: as `load_avatar` takes it (its first frame and its boxes are read); or width and
            height in pixels and the number of frames.
        cache, pixels, boxes, box, spec: as for `load_avatar`.

    Example:
        >>> print(estimate_memory((1280, 720, 500), "mmap", "i420").frames_bytes)
        691200000
    """
    if isinstance(avatar, tuple):
        width, height, count = avatar
        return estimate_template(width, height, count, cache, pixels, spec)
    root = _root_of(avatar)
    source = find_frames(root)
    found = _load_boxes(root, source.count, boxes, box, source.is_video)
    height, width = source.shape[:2]
    return estimate_template(width, height, found, cache, pixels, spec)


def _load_boxes(
    root: Path, num_frames: int, source: BoxSource, box: Sequence[int] | None, from_video: bool
) -> list[Box]:
    if box is not None:
        return [Box(*map(int, box))] * num_frames
    readers = _box_readers(root, num_frames)
    preferred = ["rectangles", "landmarks"] if from_video else ["landmarks", "rectangles"]
    for kind in preferred if source == "auto" else [source]:
        if kind in readers:
            return readers[kind]()
    wanted = "landmarks/ or " + RECTANGLES_FILE if source == "auto" else source
    if root.is_file():
        wanted = f"{root.with_suffix('.lms').name} beside it, or box=(x1, y1, x2, y2)"
    raise AvatarError(f"{root}: found no face boxes, expected {wanted}.")


def _box_readers(root: Path, num_frames: int) -> dict[str, Callable[[], list[Box]]]:
    """The ways to get boxes that this avatar's files allow."""
    readers: dict[str, Callable[[], list[Box]]] = {}
    beside = root.with_suffix(".lms")
    if root.is_file() and beside.is_file():
        readers["landmarks"] = lambda: [_box_of_file(beside)]
    if (root / LANDMARKS_FOLDER).is_dir():
        readers["landmarks"] = lambda: _boxes_from_landmarks(root / LANDMARKS_FOLDER, num_frames)
    if (root / RECTANGLES_FILE).is_file():
        readers["rectangles"] = lambda: _boxes_from_rectangles(root / RECTANGLES_FILE, num_frames)
    return readers


def _boxes_from_landmarks(folder: Path, num_frames: int) -> list[Box]:
    files = numbered(folder, (".lms",))
    if len(files) != num_frames:
        raise AvatarError(
            f"{folder}: found {len(files)} landmark files, "
            f"expected {num_frames} as there are frames."
        )
    return [_box_of_file(file) for file in files]


def _box_of_file(file: Path) -> Box:
    landmarks = read_landmarks(file)
    try:
        return box_from_landmarks(landmarks)
    except AvatarError as error:
        raise AvatarError(f"{file}: {error}") from error


def read_landmarks(path: str | Path) -> np.ndarray:
    """Read a ``.lms`` file: int64 ``[110, 2]``, x and y in pixels of the full frame.

    Raises:
        AvatarError: the file does not hold 110 lines of two numbers.
    """
    try:
        points = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except (ValueError, OSError) as error:
        raise AvatarError(f"{path}: not readable as landmarks ({error}).") from error
    if points.shape != (NUM_LANDMARKS, 2):
        raise AvatarError(
            f"{path}: found {len(points)} lines, expected {NUM_LANDMARKS} lines of 'x y'."
        )
    return points.astype(np.int64)


def box_from_landmarks(landmarks: np.ndarray) -> Box:
    """Face box of 110 landmarks, by the published script's rule.

    A square from the left to the right contour (points 1 and 31), down from the nose bridge (52).

    Args:
        landmarks: int ``[110, 2]``.
    """
    x1, x2 = int(landmarks[LEFT_CONTOUR, 0]), int(landmarks[RIGHT_CONTOUR, 0])
    y1 = int(landmarks[NOSE_BRIDGE, 1])
    return Box(x1, y1, x2, y1 + x2 - x1)


def _boxes_from_rectangles(path: Path, num_frames: int) -> list[Box]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise AvatarError(f"{path}: not readable as JSON ({error}).") from error
    if not isinstance(entries, dict) or len(entries) != num_frames:
        found = len(entries) if isinstance(entries, dict) else type(entries).__name__
        raise AvatarError(
            f"{path}: found {found} rectangles, expected {num_frames} as there are frames."
        )
    return [_rectangle(path, entries, index) for index in range(num_frames)]


def _rectangle(path: Path, entries: dict[str, Any], index: int) -> Box:
    try:
        x1, y1, x2, y2 = (int(value) for value in entries[str(index)]["rect"])
        return Box(x1, y1, x2, y2)
    except (KeyError, TypeError, ValueError) as error:
        raise AvatarError(
            f'{path}: entry "{index}" is not usable ({error}), '
            'expected {"rect": [x1, y1, x2, y2]} with x1 < x2 and y1 < y2.'
        ) from error
