"""A long video in parts that several workers render, each its own."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.types.records import Speech

from .identity import clip_key
from .parts import Parts, PartWriter
from .render import FrameStream, count_frames, form_of, planned
from .timing import Timings


class PartPlan:
    """The parts of a video; `render` with ``resume="on"`` puts them together.

    Args:
        avatar, speech, path, config: see `render`.

    Attributes:
        num_parts: of the whole video.
    """

    def __init__(self, avatar: Avatar, speech: Speech, path: str | Path, config: RenderConfig):
        self._avatar, self._speech, self._path = avatar, speech, Path(path)
        self._config = replace(config, resume="on")
        self._plan = planned(self._config)
        self._settings = form_of(avatar, self._plan).settings(self._config)
        self._num_frames = count_frames(avatar, speech, self._config)
        self.num_parts = -(-self._num_frames // self._settings.segment_frames)

    def open_parts(self) -> Parts:
        """The folder of the parts, made where it is not there."""
        key = clip_key(self._avatar, self._speech, self._config, self._num_frames)
        return Parts(self._path, key)

    def render(self, numbers: range) -> Timings:
        """Render parts that follow each other, but for those at their beginning that are there.

        Returns:
            What it took, and how many frames were made.

        Raises:
            LipsyncError: as of `render`.
        """
        timings = Timings()
        parts, size, count = self.open_parts(), self._settings.segment_frames, self._num_frames
        first = next((n for n in numbers if not parts.is_complete(n, size, count)), numbers.stop)
        frames = range(first * size, min(numbers.stop * size, count))
        if not frames:
            return timings
        stream = FrameStream(
            self._avatar, self._speech, self._config, timings, True, self._plan, frames
        )
        writer = PartWriter(parts, self._settings, first)
        with writer, closing(iter(stream)) as pictures:
            for frame in pictures:
                writer.write(frame.picture)
                stream.recycle(frame)
        timings.finish(len(stream))
        return timings
