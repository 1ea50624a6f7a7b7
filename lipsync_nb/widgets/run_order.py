"""What a run is to make, as it was when its button was pressed."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.system.outputs import scratch_folder

from .recipe import GivenAvatar, GivenSpeech, Recipe

PREVIEW_SECONDS = 2


@dataclass
class RunOrder:
    """One run: its output, how it is made, and what a program calls it.

    Attributes:
        recipe: as far as it is known without reading a file, see `named`.
        out: what is written; of a preview a temporary file, which goes when this is closed.
        spared: the output that a preview does not write, as it was asked for.
        avatar, speech: what was given to the studio, where that is used.
    """

    recipe: Recipe
    out: Path
    config: RenderConfig
    is_preview: bool = False
    spared: str = ""
    avatar: GivenAvatar | None = None
    speech: GivenSpeech | None = None
    _folder: ExitStack = field(default_factory=ExitStack)

    def for_preview(self) -> RunOrder:
        """The same for the first seconds alone, into a temporary file.

        Raises:
            OutputError: there is no room for it.
        """
        folder = ExitStack()
        place = folder.enter_context(scratch_folder())
        out = self.out
        # An empty name, and a root's, take no other in their place.
        name = out.with_name(f"{out.stem}.preview.mp4") if out.name else out / "preview.mp4"
        return replace(
            self,
            recipe=replace(self.recipe, out=str(name)),
            out=place / "preview.mp4",
            is_preview=True,
            spared=str(out) if out.name else "the output",
            _folder=folder,
        )

    @property
    def wanted(self) -> RenderConfig | Callable[[Avatar], RenderConfig]:
        """How it is made, as a job takes it."""
        return _shortened(self.config) if self.is_preview else self.config

    def named(self) -> Recipe:
        """The recipe; how that was made which the studio was given is found out in its files."""
        recipe = self.recipe
        if self.avatar is not None:
            found = self.avatar.arguments
            path = str(self.avatar.avatar.path) if found is not None else ""
            recipe = replace(recipe, avatar=path, avatar_arguments=found or {})
        if self.speech is not None:
            found = self.speech.arguments
            path = str(self.speech.speech.path) if found is not None else ""
            recipe = replace(recipe, speech=path, speech_arguments=found or {})
        return recipe

    def close(self) -> None:
        """Remove a preview's file."""
        self._folder.close()


def _shortened(config: RenderConfig) -> Callable[[Avatar], RenderConfig]:
    """The same for the first seconds of an avatar alone."""

    def of(avatar: Avatar) -> RenderConfig:
        count = math.ceil(PREVIEW_SECONDS * avatar.fps)
        return replace(config, max_frames=min(config.max_frames or count, count))

    return of
