"""Avatars from disk: frames, boxes and networks, in any of the known layouts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from lipsync_nb.errors import AvatarError, NotFoundError
from lipsync_nb.media.rates import Rate, rate_of
from lipsync_nb.system.inputs import given_path
from lipsync_nb.system.limits import memory_given_back
from lipsync_nb.types.records import ModelSpec

from .avatar import GENERATOR_FILES, Avatar, fingerprint_of, named
from .face_boxes import BoxSource, find_boxes
from .families import spec_for
from .frame_source import find_frames, unpainted_beside

AUDIO_ENCODER_FILE = "models/audio_encoder.onnx"


def demo_folder() -> Path:
    """Folder of the demo avatar: within the installed package, or of the clone.

    Raises:
        NotFoundError: neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "demo", package.parent / "data" / "demo"):
        if (folder / AUDIO_ENCODER_FILE).is_file():
            return folder
    raise NotFoundError(f"{package.parent / 'data' / 'demo'}: the demo avatar is not installed.")


def demo_speeches() -> dict[str, Path]:
    """The demo's speech files by name."""
    files = sorted((demo_folder() / "speech").glob("*.flac"))
    return {file.stem: file for file in files}


@memory_given_back()
def load_avatar(
    path: str | Path,
    generator: str | Path | None = None,
    audio_encoder: str | Path | None = None,
    *,
    boxes: BoxSource = "auto",
    box: Sequence[int] | None = None,
    spec: str | ModelSpec = "auto",
    fps: Rate | None = None,
) -> Avatar:
    """Find and check an avatar's frames, boxes and networks; only the first frame is decoded.

    Args:
        path: ``"demo"``; a folder with ``full_body_img/`` or ``full_body_video.mp4``, and with
            ``landmarks/`` or ``cache/crop_rectangles.json``; or one picture or video, with the
            landmarks of a picture beside it (``face.png``, ``face.lms``). Files are numbered from
            0 or 1. A video is turned upright.
        generator, audio_encoder: networks to use instead of the folder's own.
        boxes: where the face boxes come from; ``auto`` takes the rectangles that belong to a
            video and the landmarks that belong to pictures, else whichever is there.
        box: one face box ``(x1, y1, x2, y2)`` in pixels, half-open, for all frames.
        spec: the network's family: ``auto``, the one that its inputs and output belong to; the
            name of a known one (``wav2lip-96``, see `lipsync_nb.types.families`); or a `ModelSpec`.
            A network of no known family is told by `Avatar.require_generator`, before a render.
        fps: frames a second that it is rendered at: ``25``, ``29.97``, ``"30000/1001"``; a
            recording of another rate is taken by its true times. Default: a video's own rate (where
            that varies, the nearest usual one); for pictures what ``avatar.json`` says, else the
            family's, 25 for most.

    Raises:
        ConfigError: ``fps`` is no rate, or there is no family of this name.
        NotFoundError: the folder or a network that was named does not exist.
        AvatarError: frames or boxes are missing, truncated or do not fit each other. A frame
            that turns out unreadable later is reported by `Avatar.open_template`.

    Example:
        >>> load_avatar("demo")
        Avatar('demo', 200 frames of 1280x720)
    """
    wanted = None if fps is None else rate_of(fps)
    root = _root_of(path)
    network = _network(generator, root, GENERATOR_FILES)
    known, unknown = spec_for(spec, network)
    try:
        source = find_frames(root, wanted, Fraction(known.fps))
        # A file that is no video says so here, before face boxes are looked for.
        notes = source.notes
        found = find_boxes(root, source, boxes, box, known)
        unpainted = unpainted_beside(root, source)
        notes = (*notes, *found.notes)
    except AvatarError as error:
        raise named(root, error) from error
    for note in notes:
        warnings.warn(f"{root}: {note}", stacklevel=2)
    return Avatar(
        name=root.stem if root.is_file() else root.name,
        source=source,
        boxes=found.boxes,
        boxes_from=found.origin,
        fingerprint=fingerprint_of(source, found.boxes),
        spec=known,
        generator=network,
        audio_encoder=_network(audio_encoder, root, (AUDIO_ENCODER_FILE,)),
        path=root,
        notes=notes,
        unknown=unknown,
        unpainted=unpainted,
    )


def _root_of(path: str | Path) -> Path:
    root = (
        demo_folder()
        if str(path) == "demo"
        else given_path(path, "the folder or file of an avatar")
    )
    try:
        os.stat(root)
    except (OSError, ValueError) as error:
        raise NotFoundError(f"{root}: no such avatar folder.") from error
    # "." and ".." have no name of their own.
    return root if root.name not in ("", "..") else Path(os.path.abspath(root))


def _network(given: str | Path | None, root: Path, names: Sequence[str]) -> Path | None:
    if given is None:
        return next((root / name for name in names if os.path.lexists(root / name)), None)
    found = given_path(given, "a network's file")
    if not os.path.lexists(found):
        raise NotFoundError(f"{given}: no such network.")
    return found
