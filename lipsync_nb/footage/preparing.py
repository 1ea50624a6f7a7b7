"""From footage to an avatar's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lipsync_nb.errors import AvatarError, ConfigError
from lipsync_nb.media.rates import Rate, rate_of
from lipsync_nb.types.records import Box, ProgressCallback, shown

from .box_paths import (
    BoxPaths,
    checked_drawn,
    checked_point,
    paths_of_drawn,
    paths_of_points,
    paths_of_tracks,
)
from .box_rule import BoxRule, Values, boxes_of_points
from .face_networks import FaceNetworks
from .face_points import GivenPoints, find_points
from .faces import FaceFollower
from .filmstrip import chosen_frames, filmstrip
from .material import Footage, open_footage
from .model_files import HINT, network_files, networks_installed
from .preparation import Jitter, Preparation, numbers_text
from .shots import shots_of
from .smoothing import bridged, jitter_px, jumps, rounded, smoothed
from .workshop import Steps, Workshop, check_new_folder, checked_networks

BoxesFrom = Literal["auto", "landmarks", "network", "square"]
Missing = Literal["bridge", "keep"]
_SMALL_FACE = 100
# Of a box's width, before it is smoothed: then it was on something else in some frames.
_MOST_JITTER = 0.05
_OPTIONS = {
    "square": "box, keyframes", "landmarks": "landmarks", "network": "face_networks, face_at",
}  # fmt: skip


@dataclass(frozen=True)
class Finish:
    """What becomes of boxes that were found.

    Attributes:
        missing: frames without a face get a box between their neighbours' (``bridge``); or stay as
            they were recorded (``keep``), which ``avatar.json`` says of them.
        smoothing_seconds: standard deviation of the weights by which boxes are smoothed; 0: none.
        generator, audio_encoder: networks that go into ``models/``.
        link_networks: as links, instead of copies.
    """

    missing: Missing = "bridge"
    smoothing_seconds: float = 0.06
    generator: str | Path | None = None
    audio_encoder: str | Path | None = None
    link_networks: bool = False

    def __post_init__(self) -> None:
        if self.missing not in ("bridge", "keep"):
            raise ConfigError(f"missing={shown(self.missing)}, expected 'bridge' or 'keep'.")
        seconds = self.smoothing_seconds
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not is_number or not 0 <= seconds <= 2:
            raise ConfigError(f"smoothing_seconds={shown(seconds)}, expected 0 to 2.")


def prepare_avatar(
    footage: str | Path,
    out: str | Path,
    *,
    fps: Rate | None = None,
    boxes: BoxesFrom = "auto",
    landmarks: str | Path | None = None,
    face_networks: str | Path | Sequence[str | Path] = (),
    face_at: tuple[float, float] | None = None,
    box: Sequence[float] | None = None,
    box_frame: int = 0,
    keyframes: Mapping[int, Sequence[float]] | None = None,
    box_rule: BoxRule = "square",
    missing: Missing = "bridge",
    smoothing_seconds: float = 0.06,
    quality: int = 95,
    generator: str | Path | None = None,
    audio_encoder: str | Path | None = None,
    link_networks: bool = False,
    progress: ProgressCallback | None = None,
) -> Preparation:
    """Make an avatar's folder of a video or of pictures: frames, and a face box for each.

    Frames are upright, their pixels square, their sizes even. Memory does not grow with length.
    The folder appears when it is complete; `load_avatar` reads it.

    Args:
        footage: a video that ffmpeg reads, or a folder of pictures.
        out: a new folder.
        fps: frames a second that are taken by their true times: ``25``, ``"30000/1001"``; None: the
            video's own rate (of pictures: what ``avatar.json`` beside them says, or 25).
        boxes: where face boxes come from: ``landmarks`` beside the footage; the face landmark
            ``network``; a drawn ``square``; ``auto``: the first of these that is there, and a
            square before all if ``box`` or ``keyframes`` give one.
        landmarks: a ``.npy`` file ``[frames, points, 2]`` of 110, 68, 468 or 478 points in pixels,
            a ``.lms`` file or a folder of them; default: as they lie beside the footage.
        face_networks: MediaPipe's, a ``.task`` file or two ``.tflite`` files (detector, landmarks);
            default: those of the installed package. None is ever fetched.
        face_at: ``(x, y)``: of several faces the one there, in the first frame that shows a face;
            default: the largest that goes on through the clip.
        box: ``(x1, y1, x2, y2)`` drawn on frame ``box_frame``, in pixels of the upright frame: from
            cheek to cheek, and down from the middle of the nose's bridge. It is followed.
        keyframes: boxes by frame, more of the same, where following needs help.
        box_rule: ``square`` for SyncTalk_2D and Ultralight-Digital-Human; ``outline`` for Wav2Lip:
            boxes of the whole face, from its hair to below its chin, and ``box`` is drawn so.
        missing, smoothing_seconds, generator, audio_encoder, link_networks: see `Finish`.
        quality: of the JPEG files, 1 to 100; 0 writes PNG.
        progress: called after every frame; what it raises ends the work, and nothing is left.

    Raises:
        NotFoundError: footage, landmarks or networks are not there.
        AvatarError: they are damaged, truncated or without pictures; no frame shows a face; a box
            leaves the picture; or nothing says where the face is.
        OutputError: the folder is there already, or cannot be written.
        ConfigError: an option is out of range.
        MissingLibraryError: LiteRT is needed and not installed.

    Example:
        >>> prepare_avatar("me.mov", "me", box=(532, 334, 757, 559))
        Preparation('me', 200 frames of 1280x720)
    """
    finish = Finish(missing, smoothing_seconds, generator, audio_encoder, link_networks)
    _check_quality(quality)
    if box_rule not in ("square", "outline"):
        raise ConfigError(f"box_rule={shown(box_rule)}, expected 'square' or 'outline'.")
    networks = checked_networks(generator, audio_encoder)
    rate = None if fps is None else rate_of(fps)
    drawn = {**({box_frame: box} if box is not None else {}), **(keyframes or {})}
    of_networks = bool(face_networks) or face_at is not None
    ways = {"square": bool(drawn), "landmarks": bool(landmarks), "network": of_networks}
    _check_one_way(boxes, [way for way, is_given in ways.items() if is_given])
    check_new_folder(out, Path(footage))
    material = open_footage(footage, rate)
    if face_at is not None:
        face_at = checked_point(face_at, material.width, material.height)
    given, faces, squares = _box_source(
        material, boxes, landmarks, _listed(face_networks), drawn, face_at
    )
    with Workshop(material, out, quality) as shop:
        if given is not None:
            shop.fill(Steps(len(material), progress))
            found = paths_of_points(given.points, given.path.name, box_rule)
        elif faces is not None:
            follower = FaceFollower(faces, box_rule)
            shop.fill(Steps(len(material), progress), follower.look)
            found = tracked(material, follower, shop.cuts, face_at)
        else:
            step = Steps(len(material), progress, passes=2)
            shop.fill(step)
            found = paths_of_drawn(shop.grey, squares, shop.shots, step, box_rule)
        return finished(shop, found, finish, networks)


def tracked(
    material: Footage,
    follower: FaceFollower,
    cuts: tuple[int, ...],
    face_at: tuple[float, float] | None = None,
    face_frame: int | None = None,
) -> BoxPaths:
    """Boxes of the face that is wanted, of those that were followed through all frames.

    Raises:
        AvatarError: see `chosen_path`.
    """
    try:
        return paths_of_tracks(follower.tracks, len(material), cuts, face_at, face_frame)
    except AvatarError as error:
        raise AvatarError(f"{material.path}: {error}") from error


def _listed(files: str | Path | Sequence[str | Path]) -> list[str | Path]:
    return [files] if isinstance(files, str | Path) else list(files)


def _check_quality(quality: object) -> None:
    is_whole = isinstance(quality, int) and not isinstance(quality, bool)
    if not is_whole or not 0 <= quality <= 100:  # type: ignore[operator]
        raise ConfigError(f"quality={shown(quality)}, expected 1 to 100, or 0 for PNG.")


def _check_one_way(kind: BoxesFrom, given: Sequence[str]) -> None:
    """What is given for another way than is taken would be passed over."""
    asked = list(given) if kind == "auto" else list(dict.fromkeys([kind, *given]))
    if len(asked) > 1:
        found = " and ".join(f"{way} ({_OPTIONS.get(way, 'boxes')})" for way in asked)
        raise ConfigError(f"found options of {found}, expected one way to the face boxes.")


def _box_source(
    material: Footage,
    kind: BoxesFrom,
    landmarks: str | Path | None,
    network_paths: list[str | Path],
    drawn: Mapping[int, Sequence[float]],
    face_at: tuple[float, float] | None,
) -> tuple[GivenPoints | None, FaceNetworks | None, dict[int, Values]]:
    """What the boxes come from: one of landmarks, networks and drawn squares."""
    if kind not in ("auto", "landmarks", "network", "square"):
        raise ConfigError(
            f"boxes={shown(kind)}, expected 'auto', 'landmarks', 'network' or 'square'."
        )
    if kind == "square" or (kind == "auto" and drawn):
        return None, None, checked_drawn(drawn, len(material), material.width, material.height)
    if kind != "network" and not network_paths and face_at is None:
        given = find_points(material, landmarks)
        if given is not None:
            return given, None, {}
        if kind == "landmarks":
            raise AvatarError(
                f"{material.path}: found no landmarks beside it; landmarks=... names them."
            )
    if kind == "network" or network_paths or networks_installed():
        return None, FaceNetworks(*network_files(network_paths)), {}
    raise AvatarError(
        f"{material.path}: found neither landmarks beside it nor face networks, expected "
        f"box=(x1, y1, x2, y2) of its first frame (--box X1,Y1,X2,Y2), or {HINT}."
    )


def finished(
    shop: Workshop, found: BoxPaths, finish: Finish, networks: Mapping[str, Path]
) -> Preparation:
    """Bridge, smooth and write boxes, and give the folder its name.

    Args:
        networks: files by their places in the folder.
    """
    footage = shop.footage
    raw = _seen(found.boxes, footage.width, footage.height)
    cuts = tuple(sorted({*shop.cuts, *jumps(raw)}))
    shots = shots_of(len(raw), cuts)
    known = np.isfinite(raw).all(axis=1)
    if not known.any():
        raise _nowhere(footage, found)
    missing = tuple(np.flatnonzero(~known).tolist())
    sigma = finish.smoothing_seconds * float(footage.fps)
    whole = smoothed(bridged(raw, shots), shots, sigma)
    if found.points is not None:
        # Frames that are missing among the boxes have no points either.
        flat = found.points.reshape(len(raw), -1).copy()
        flat[~known] = np.nan
        points = smoothed(bridged(flat, shots), shots, sigma)
        marks = rounded(points, shots).reshape(found.points.shape)
        values = boxes_of_points(marks.astype(np.float64)).astype(np.int64)
        shop.write_landmarks(marks)
    else:
        values = _whole_boxes(whole, shots)
    boxes = tuple(Box(*row) for row in values.tolist())
    if found.points is None:
        shop.write_boxes(boxes)
    jitter = Jitter(
        jitter_px(raw, shots), jitter_px(whole, shots), jitter_px(values.astype(float), shots)
    )
    unpainted = missing if finish.missing == "keep" else ()
    shop.write_facts(_facts(shop, found, finish, jitter, cuts, missing, unpainted))
    shop.add_networks(networks, finish.link_networks)
    shown = {frame: boxes[frame] for frame in chosen_frames(len(boxes), missing)}
    strip = filmstrip(shop.picture, shown, missing)
    shop.finish()
    return Preparation(
        path=shop.out, source=footage.path, fps=footage.fps, width=footage.width,
        height=footage.height, boxes=boxes, boxes_from=found.origin, jitter=jitter,
        missing=missing, unpainted=unpainted, cuts=cuts,
        warnings=(
            *footage.notes, *found.warnings, *_warnings(shop, boxes, cuts, missing, jitter.found)
        ),
        filmstrip=strip,
    )  # fmt: skip


def _nowhere(footage: Footage, found: BoxPaths) -> AvatarError:
    if np.isfinite(found.boxes).all(axis=1).any():
        return AvatarError(
            f"{footage.path}: the boxes of {found.origin} lie outside the picture in every frame, "
            f"expected pixels of {footage.width}x{footage.height}."
        )
    return AvatarError(f"{footage.path}: found no face in any frame, expected one.")


def _seen(boxes: Values, width: int, height: int) -> Values:
    """Boxes that are wholly outside of the picture are none."""
    outside = (boxes[:, :2] >= (width - 1, height - 1)) | (boxes[:, 2:] <= 1)
    return np.where(outside.any(axis=1, keepdims=True), np.nan, boxes)


def _whole_boxes(boxes: Values, shots: Sequence[range]) -> Any:
    """Boxes in whole pixels, int64 ``[n, 4]``; a square stays one."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    corners = rounded(np.concatenate([boxes[:, :2], sizes], axis=1), shots)
    corners[:, 2:] = np.maximum(1, corners[:, 2:])
    return np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], axis=1)


def _facts(
    shop: Workshop,
    found: BoxPaths,
    finish: Finish,
    jitter: Jitter,
    cuts: tuple[int, ...],
    missing: tuple[int, ...],
    unpainted: tuple[int, ...],
) -> dict[str, Any]:
    """What ``avatar.json`` says."""
    return {
        "fps": str(shop.footage.fps),
        "source": shop.footage.path.name,
        "boxes_from": found.origin,
        "smoothing_seconds": finish.smoothing_seconds,
        "jitter_px": {"found": round(jitter.found, 4), "written": round(jitter.written, 4)},
        "cuts": list(cuts),
        "bridged": [] if unpainted else list(missing),
        "unpainted": list(unpainted),
    }


def _warnings(
    shop: Workshop,
    boxes: Sequence[Box],
    cuts: tuple[int, ...],
    missing: tuple[int, ...],
    jitter: float,
) -> list[str]:
    """What to look at in the boxes, a line each."""
    width, height, lines = shop.footage.width, shop.footage.height, []
    if missing:
        lines.append(f"no face in {numbers_text(missing)}: look at these frames.")
    if cuts:
        lines.append(f"scene cuts at {numbers_text(cuts)}: an avatar is best one shot.")
    outside = tuple(i for i, box in enumerate(boxes) if not box.is_inside(width, height))
    if outside:
        lines.append(f"the box leaves the picture in {numbers_text(outside)}, and is cut there.")
    size = int(np.median([box.width for box in boxes]))
    if jitter > _MOST_JITTER * size:
        share = f"{jitter:.1f} px of {size}"
        lines.append(f"the box trembled by {share} as it was found: look at the filmstrip.")
    if size < _SMALL_FACE:
        lines.append(f"the face is small: its box is {size} px wide, 200 or more look well.")
    return lines
