"""What a clip is made from, as one hash: it is made again only where that changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.loading import load_avatar
from lipsync_nb.pipeline.identity import avatar_text, config_text, file_digest, used_text
from lipsync_nb.system.quiet import without_warnings

from .jobs import ClipJob


class Fingerprints:
    """Hashes of what clips are made from; each file and avatar is read once.

    For the time of a call: what changes on the disk meanwhile is not seen.
    """

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._avatars: dict[tuple[str, ...], tuple[Avatar, str]] = {}

    def of(self, job: ClipJob) -> str:
        """Of avatar, networks, speech and those fields that decide what is seen and heard.

        Raises:
            LipsyncError: one of them is not there or not usable.
        """
        avatar, text = self.avatar(job)
        used = used_text(avatar, job.config)
        parts = [text, self._file(job.speech), config_text(job.config), used]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def avatar(self, job: ClipJob) -> tuple[Avatar, str]:
        """The job's avatar, loaded, and the hash of it and its networks."""
        options = {"boxes": job.boxes, "box": job.box, "spec": job.spec, "fps": job.fps}
        networks = job.generator, job.audio_encoder
        key = str(job.avatar), *(str(network or "") for network in networks), repr(options)
        if key not in self._avatars:
            # What is odd about it is told with each clip's notes.
            with without_warnings:
                avatar = load_avatar(job.avatar, *networks, **options)  # type: ignore[arg-type]
            self._avatars[key] = avatar, avatar_text(avatar)
        return self._avatars[key]

    def _file(self, path: str | Path) -> str:
        name = os.path.abspath(path)
        if name not in self._files:
            self._files[name] = file_digest(path)
        return self._files[name]
