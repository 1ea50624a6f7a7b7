"""Frames that are decoded once, and measured: broken, frozen, the face's sharpness and light."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np

from lipsync_nb.avatar.frame_source import FrameSource
from lipsync_nb.errors import AvatarError
from lipsync_nb.system.limits import available_cores
from lipsync_nb.system.steps import told
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Box, ModelSpec

from .face import FaceMeasure, crop_of, look_at_face, measure_face
from .findings import Evidence, Finding, Part
from .frames import (
    STRIP_FRAMES,
    Sampled,
    brokenness,
    frames_to_sample,
    movements,
    reason_of,
    small_grey,
)

# A frame's number, and its picture or why there is none.
Read = tuple[int, ImageArray | str]


class _Measured:
    """What is kept of the frames that were decoded.

    Attributes:
        faces: the face of each frame by its number; None: its box is not known.
        changes: of frames 1, 2, ... from the one before, as far as they follow each other.
    """

    def __init__(self) -> None:
        self.faces: dict[int, FaceMeasure | None] = {}
        self.changes: list[float] = []
        self._before: np.ndarray | None = None

    def add(self, number: int, image: ImageArray, face: FaceMeasure | None) -> None:
        """Take the next frame."""
        if number == len(self.faces):
            small = small_grey(image)
            if self._before is not None:
                self.changes.append(float(np.abs(small - self._before).mean()))
            self._before = small
        self.faces[number] = face


def look_at_pictures(
    source: FrameSource, boxes: Sequence[Box] | None, spec: ModelSpec, fps: float
) -> tuple[Part, Evidence]:
    """Decode the first frames of a recording, and some of all of it; measure them.

    Args:
        source: its frames.
        boxes: of each frame; None: they are not known.
        spec: of the network that gets the crops.
        fps: frames a second.

    Raises:
        AvatarError: not even the number of frames can be told.
    """
    count = source.count
    wanted = frames_to_sample(count, source.shape[1], source.shape[0])
    strip = sorted(set(np.linspace(0, count - 1, STRIP_FRAMES).astype(int).tolist()))
    measured = _Measured()
    shown: dict[int, ImageArray] = {}
    broken: list[tuple[int, str]] = []
    others = [number for number in strip if number >= wanted]
    read = chain(_first(source, wanted), _pictures(source, others))
    for number, found in told("looking at frames", read, wanted + len(others)):
        if isinstance(found, str):
            broken.append((number, found))
            continue
        if number in strip:
            shown[number] = found
        box = boxes[number] if boxes is not None else None
        face = None if box is None else measure_face(found, box, spec)
        measured.add(number, found, face)
    sampled = Sampled(tuple(measured.faces), tuple(broken), wanted == count)
    part = _judged(source, measured, sampled, fps)
    return part, _evidence(shown, boxes, spec)


def _judged(source: FrameSource, measured: _Measured, sampled: Sampled, fps: float) -> Part:
    findings: list[Finding] = [brokenness(sampled, source.count)]
    moved = () if sampled.broken else movements(source, measured.changes, fps)
    part = Part((), (*findings, *moved))
    faces = [face for face in measured.faces.values() if face is not None]
    return part + look_at_face(faces, 1 + len(measured.changes)) if faces else part


def _first(source: FrameSource, wanted: int) -> Iterator[Read]:
    """The first frames, each with its number; a video that breaks ends there."""
    if not source.is_video:
        yield from _pictures(source, range(wanted))
        return
    number = -1
    try:
        for number, image in enumerate(source.frames(wanted)):
            yield number, np.ascontiguousarray(image)
    except AvatarError as error:
        yield number + 1, reason_of(error, source)


def _pictures(source: FrameSource, numbers: Sequence[int]) -> Iterator[Read]:
    read = _reader(source)
    with ThreadPoolExecutor(available_cores()) as pool:
        for first in range(0, len(numbers), 4 * available_cores()):
            yield from pool.map(read, numbers[first : first + 4 * available_cores()])


def _reader(source: FrameSource) -> Callable[[int], Read]:
    height, width = source.shape[:2]

    def read(number: int) -> Read:
        try:
            image = source.read(number)
        except AvatarError as error:
            return number, reason_of(error, source)
        if image.shape[:2] != (height, width):
            size = f"{image.shape[1]}x{image.shape[0]}"
            return number, f"frame {number} is {size}, the first is {width}x{height}"
        return number, image

    return read


def _evidence(
    shown: dict[int, ImageArray], boxes: Sequence[Box] | None, spec: ModelSpec
) -> Evidence:
    if boxes is None:
        return Evidence(tuple((number, image, None) for number, image in shown.items()))
    frames = tuple((number, image, boxes[number]) for number, image in shown.items())
    crop = None
    if frames:
        _, image, box = frames[len(frames) // 2]
        crop = crop_of(image, box, spec) if box is not None else None
    return Evidence(frames, crop, tuple(box.width for box in boxes))
