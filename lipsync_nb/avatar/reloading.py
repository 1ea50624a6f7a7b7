"""With which arguments an avatar is loaded again, told from the avatar itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lipsync_nb.errors import LipsyncError
from lipsync_nb.system.quiet import without_warnings
from lipsync_nb.types.families import FAMILIES

from .avatar import GENERATOR_FILES, Avatar
from .families import spec_for
from .loading import AUDIO_ENCODER_FILE, load_avatar

_GIVEN_BOX = "box "


def is_same(one: Avatar, other: Avatar) -> bool:
    """Whether renders take the same of both: frames, boxes, rate, networks and their family."""
    return _facts(one) == _facts(other)


def load_arguments(avatar: Avatar) -> dict[str, Any] | None:
    """The arguments of `load_avatar`, beside the path, that give an avatar like this one.

    Those whose defaults give it are left out. None: no arguments do, as for an avatar that was
    changed after it was loaded, or whose files were.
    """
    fixed = {**_networks(avatar), **_family(avatar)}
    with without_warnings:
        for varied in _tried(avatar):
            arguments = {**fixed, **varied}
            with suppress(LipsyncError, OSError):
                if is_same(load_avatar(avatar.path, **arguments), avatar):
                    return arguments
    return None


def _facts(avatar: Avatar) -> tuple[object, ...]:
    places = avatar.path, avatar.generator, avatar.audio_encoder
    return (
        *(None if place is None else os.path.realpath(place) for place in places),
        avatar.fingerprint,
        avatar.boxes,
        avatar.boxes_from,
        avatar.fps,
        avatar.spec,
        avatar.unknown,
        avatar.unpainted,
        avatar.notes,
    )


def _networks(avatar: Avatar) -> dict[str, Any]:
    """The networks that are not the folder's own."""
    found = {
        "generator": (avatar.generator, GENERATOR_FILES),
        "audio_encoder": (avatar.audio_encoder, (AUDIO_ENCODER_FILE,)),
    }
    return {
        name: str(file)
        for name, (file, usual) in found.items()
        if file is not None and file != _first_of(avatar.path, usual)
    }


def _first_of(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if os.path.lexists(root / name)), None)


def _family(avatar: Avatar) -> dict[str, Any]:
    """The family's name, where it is not the one that the generator belongs to."""
    if spec_for("auto", avatar.generator) == (avatar.spec, avatar.unknown):
        return {}
    return next(({"spec": name} for name, spec in FAMILIES.items() if spec == avatar.spec), {})


def _tried(avatar: Avatar) -> Iterator[dict[str, Any]]:
    """Boxes and rates that may be meant, those that are the default first."""
    boxes: list[dict[str, Any]] = [{}, {"boxes": avatar.boxes_from}]
    if avatar.boxes_from.startswith(_GIVEN_BOX):
        boxes = [{"box": tuple(json.loads(avatar.boxes_from.removeprefix(_GIVEN_BOX)))}]
    rate = avatar.fps
    fps = int(rate) if rate.denominator == 1 else str(rate)
    for box in boxes:
        yield box
        yield {**box, "fps": fps}
