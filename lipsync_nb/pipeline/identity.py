"""What a clip is made from, as text and hash: whether work of an earlier run may be used."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import fields
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import NotFoundError
from lipsync_nb.network.files import read_network
from lipsync_nb.system.inputs import open_file
from lipsync_nb.types.records import ModelSpec, Speech

from .voice import detector_here

# Fields of this group decide how fast a clip is made, and not what it looks like; nor does this.
_SPEED, _RESUME = "speed", "resume"
_PART_BYTES = 16_000_000


class Person(Protocol):
    """Whose clip it is: what an `Avatar` gives."""

    @property
    def fingerprint(self) -> str:
        """Of the frames' files and the boxes."""

    @property
    def spec(self) -> ModelSpec:
        """The network's kind."""

    @property
    def fps(self) -> Fraction:
        """Frames a second."""

    @property
    def audio_encoder(self) -> Path | None:
        """The encoder's file, if there is one."""

    @property
    def path(self) -> Path:
        """Its folder or file."""

    @property
    def unpainted(self) -> frozenset[int]:
        """Frames that stay as they were recorded."""

    @property
    def mask_files(self) -> Sequence[Path]:
        """The masks that lie with it."""

    def require_generator(self) -> Path:
        """The generator's file."""


def config_text(config: RenderConfig) -> str:
    """The fields that decide what is seen and heard, as JSON."""
    options = (option for option in fields(config) if option.metadata["group"] != _SPEED)
    names = [option.name for option in options if option.name != _RESUME]
    # Numbers may be NumPy's.
    return json.dumps({name: getattr(config, name) for name in names}, default=int)


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's content.

    Raises:
        NotFoundError: it cannot be read.
    """
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NotFoundError(f"{path}: cannot be read ({reason}).") from error


def avatar_text(avatar: Person) -> str:
    """Frames, those that are not painted, boxes, rate, networks and their kind.

    Raises:
        NetworkError, NotFoundError: there is no generator, or a network cannot be read.
    """
    networks = avatar.require_generator(), avatar.audio_encoder
    # With the weights that lie beside them.
    wholes = (read_network(network) for network in networks if network is not None)
    digests = [hashlib.sha256(whole).hexdigest() for whole in wholes]
    kind = f"{avatar.spec} {avatar.fps} {sorted(avatar.unpainted)}"
    return " ".join([avatar.fingerprint, kind, *digests])


def used_text(avatar: Person, config: RenderConfig) -> str:
    """What else a configuration uses: masks, what INT8 is calibrated on, what finds pauses here.

    Raises:
        AvatarError, NotFoundError: it cannot be read.
    """
    own = avatar.path / avatar.spec.features_file
    parts = [file_digest(own)] if config.precision == "int8" and own.is_file() else []
    if config.silence != "paint":
        parts.append(detector_here(config.silence_detector))
    if config.paste == "feather":
        parts += [_state_text(file) for file in avatar.mask_files]
    return "\n".join(parts)


def _state_text(path: Path) -> str:
    """A file's name, size and time."""
    try:
        state = os.stat(path)
    except OSError as error:
        raise NotFoundError(f"{path}: is not there ({error.strerror}).") from error
    return f"{path.name} {state.st_size} {state.st_mtime_ns}"


def clip_key(avatar: Person, speech: Speech, config: RenderConfig, num_frames: int) -> str:
    """Hash of all that decides a clip's pictures, this package's version too.

    Raises:
        NetworkError, NotFoundError, AvatarError: see `avatar_text` and `used_text`.
    """
    texts = avatar_text(avatar), used_text(avatar, config), config_text(config)
    digest = hashlib.sha256("\n".join([*texts, str(num_frames), version("lipsync_nb")]).encode())
    heard = speech.samples if speech.samples is not None else speech.features
    flat = np.ascontiguousarray(heard).reshape(-1).view(np.uint8)
    for start in range(0, flat.size, _PART_BYTES):
        digest.update(flat[start : start + _PART_BYTES].tobytes())
    return digest.hexdigest()
