"""The cell that does what a run of the studio did."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.reloading import load_arguments
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import LipsyncError
from lipsync_nb.pipeline.audio_features import load_speech
from lipsync_nb.system.quiet import without_warnings
from lipsync_nb.types.records import SAMPLE_RATE, Speech

_SURPLUS_SECONDS = 1.0


@dataclass(frozen=True)
class Recipe:
    """What a run was made of, as a program names it.

    Attributes:
        avatar: ``demo``, or its path; empty: it cannot be named.
        clip: the name of a speech of the demo; empty: it is none.
        speech: the path of another speech; empty: it cannot be named.
        out: the output.
        avatar_arguments, speech_arguments: what else they are loaded with.
        is_sent: whether the speech came from the page, so that it has no place of its own.
    """

    avatar: str
    clip: str
    speech: str
    out: str
    avatar_arguments: Mapping[str, Any] = field(default_factory=dict)
    speech_arguments: Mapping[str, Any] = field(default_factory=dict)
    is_sent: bool = False

    def code(self, config: RenderConfig) -> str:
        """The cell; of the configuration only what differs from the defaults.

        Example:
            >>> print(Recipe("demo", "hello", "", "a.mp4").code(RenderConfig()))
            import lipsync_nb as lnb
            <BLANKLINE>
            avatar = lnb.load_avatar('demo')
            speech = lnb.load_speech(lnb.demo_speeches()['hello'])
            lnb.render(avatar, speech, 'a.mp4')
        """
        lines = ["import lipsync_nb as lnb", "", self._avatar_line, self._speech_line]
        chosen = _changed(config)
        if chosen:
            lines.append(f"config = lnb.RenderConfig({chosen})")
        given = ", config" if chosen else ""
        lines.append(f"lnb.render(avatar, speech, {self.out!r}{given})")
        return "\n".join(lines)

    @property
    def _avatar_line(self) -> str:
        if not self.avatar:
            return "# avatar: the one that the studio was given"
        return f"avatar = lnb.load_avatar({self.avatar!r}{_more(self.avatar_arguments)})"

    @property
    def _speech_line(self) -> str:
        if self.clip:
            return f"speech = lnb.load_speech(lnb.demo_speeches()[{self.clip!r}])"
        if self.speech:
            return f"speech = lnb.load_speech({self.speech!r}{_more(self.speech_arguments)})"
        return f"# speech: the one that the studio {'got' if self.is_sent else 'was given'}"


class GivenAvatar:
    """An avatar that a program made, and how another one loads it."""

    def __init__(self, avatar: Avatar) -> None:
        self.avatar = avatar

    @cached_property
    def arguments(self) -> dict[str, Any] | None:
        """As `load_arguments` has them; files are read."""
        return load_arguments(self.avatar)


class GivenSpeech:
    """A speech that a program made, and how another one loads it."""

    def __init__(self, speech: Speech) -> None:
        self.speech = speech

    @cached_property
    def arguments(self) -> dict[str, Any] | None:
        """The arguments of `load_speech`, beside its path; None where none give this speech.

        The file is read.
        """
        speech = self.speech
        if speech.path is None:
            return None
        whole = speech.duration_seconds + _SURPLUS_SECONDS
        try:
            with without_warnings:
                found = load_speech(speech.path, whole)
        except (LipsyncError, OSError):
            return None
        if not _are_equal(found.features, speech.features) or not _have_one_sound(found, speech):
            return None
        if found.samples is None or speech.samples is None:
            return {} if found.samples is speech.samples else None
        count = len(speech.samples)
        if not _are_equal(found.samples[:count], speech.samples):
            return None
        return {} if len(found.samples) == count else {"max_seconds": _seconds_of(count)}


def _are_equal(one: Any, other: Any) -> bool:
    return (one is None and other is None) or bool(np.array_equal(one, other))


def _have_one_sound(one: Speech, other: Speech) -> bool:
    """Whether the sound tracks of their videos are the same."""
    if one.sound is None or other.sound is None:
        return one.sound is other.sound
    count = one.sound.num_bytes
    if count != other.sound.num_bytes:
        return False
    step = 2**20
    starts = range(0, count, step)
    return all(one.sound.read_at(k, step) == other.sound.read_at(k, step) for k in starts)


def _seconds_of(count: int) -> float:
    """So many seconds that `load_speech` takes this number of samples."""
    exact = count / SAMPLE_RATE
    tried = round(exact, 3), exact
    fitting = (s for s in tried if math.ceil(s * SAMPLE_RATE) == count)
    return next(fitting, (count - 0.5) / SAMPLE_RATE)


def _more(arguments: Mapping[str, Any]) -> str:
    return "".join(f", {name}={value!r}" for name, value in arguments.items())


def _changed(config: RenderConfig) -> str:
    """The fields that differ from the defaults, as arguments."""
    values = {
        option.name: (getattr(config, option.name), option.default) for option in fields(config)
    }
    return ", ".join(
        f"{name}={_plain(value)!r}" for name, (value, usual) in values.items() if value != usual
    )


def _plain(value: object) -> object:
    """A number of NumPy's as one of Python's."""
    return value.item() if isinstance(value, np.generic) else value
