"""Avatars from disk: frames, boxes and networks, in any of the known layouts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from joblib import Parallel, delayed

from .cache import Template
from .errors import AvatarError, NotFoundError
from .imaging import read_image
from .records import SYNCTALK_328, Box, ImageArray, ModelSpec
from .video import VIDEO_SUFFIXES, iter_video

NUM_LANDMARKS = 110
LEFT_CONTOUR, RIGHT_CONTOUR, NOSE_BRIDGE = 1, 31, 52
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
GENERATOR_FILES = ("models/generator.onnx", "checkpoint/model_best.onnx")
AUDIO_ENCODER_FILE = "models/audio_encoder.onnx"
RECTANGLES_FILE = "cache/crop_rectangles.json"
BoxSource = Literal["auto", "landmarks", "rectangles"]


@dataclass(frozen=True, eq=False)
class Avatar:
    """A recorded person, ready to speak.

    Attributes:
        name: the folder's name.
        template: frames and boxes in RAM.
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

    Raises:
        NotFoundError: the folder or a network that was named does not exist.
        AvatarError: frames or boxes are missing, unreadable or do not fit each other.

    Example:
        >>> load_avatar("demo")
        Avatar('demo', 200 frames of 1280x720)
    """
    root = demo_folder() if str(path) == "demo" else Path(path)
    if not root.exists():
        raise NotFoundError(f"{root}: no such avatar folder.")
    frames, from_video = _load_frames(root)
    found = _load_boxes(root, len(frames), boxes, box, from_video)
    try:
        template = Template(frames, found, spec)
    except AvatarError as error:
        raise AvatarError(f"{root}: {error}") from error
    own_generator = _first_file(root, GENERATOR_FILES)
    own_encoder = _first_file(root, (AUDIO_ENCODER_FILE,))
    return Avatar(
        name=root.stem,
        template=template,
        generator=_network(generator, own_generator),
        audio_encoder=_network(audio_encoder, own_encoder),
        path=root,
    )


def _first_file(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_file()), None)


def _network(given: str | Path | None, own: Path | None) -> Path | None:
    if given is None:
        return own
    if not Path(given).is_file():
        raise NotFoundError(f"{given}: no such network.")
    return Path(given)


def _load_frames(root: Path) -> tuple[list[ImageArray], bool]:
    """Frames of an avatar, and whether they come from a video."""
    if root.is_file() and root.suffix.lower() in VIDEO_SUFFIXES:
        return list(iter_video(root)), True
    if root.is_file():
        return [_read_picture(root)], False
    if (root / "full_body_img").is_dir():
        files = _numbered(root / "full_body_img", IMAGE_SUFFIXES)
        return _read_pictures(files), False
    video = root / "full_body_video.mp4"
    if video.is_file():
        return list(iter_video(video)), True
    raise AvatarError(
        f"{root}: found no frames, expected full_body_img/ with pictures or full_body_video.mp4."
    )


def _numbered(folder: Path, suffixes: Sequence[str]) -> list[Path]:
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


def _read_pictures(files: Sequence[Path]) -> list[ImageArray]:
    """Read in parallel; errors come back as values, so that no worker is left behind."""
    results = Parallel(n_jobs=-1, prefer="threads")(delayed(_try_picture)(f) for f in files)
    for result in results:
        if isinstance(result, AvatarError):
            raise result
    return list(results)


def _try_picture(path: Path) -> ImageArray | AvatarError:
    try:
        return _read_picture(path)
    except AvatarError as error:
        return error


def _read_picture(path: Path) -> ImageArray:
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
    if (root / "landmarks").is_dir():
        readers["landmarks"] = lambda: _boxes_from_landmarks(root / "landmarks", num_frames)
    if (root / RECTANGLES_FILE).is_file():
        readers["rectangles"] = lambda: _boxes_from_rectangles(root / RECTANGLES_FILE, num_frames)
    return readers


def _boxes_from_landmarks(folder: Path, num_frames: int) -> list[Box]:
    files = _numbered(folder, (".lms",))
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
