"""What a render will take: memory, disk and time; time from frames that were rendered just now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import LipsyncError
from lipsync_nb.pipeline.render import count_frames
from lipsync_nb.pipeline.timing import Timings
from lipsync_nb.system.limits import free_memory_bytes
from lipsync_nb.types.records import Speech

from .findings import Fact, Finding, Part, Severity

TRIAL_FRAMES = 48
_MOST_OF_FREE = 0.8
_LONGEST_NAME = 17
# Features are kept in 8 bits in FP32 renders, and as float32 in others.
_PACKED = 4


class Rendered(Protocol):
    """What a render tells of itself; see `RenderResult`."""

    @property
    def num_frames(self) -> int:
        """Output frames."""

    @property
    def timings(self) -> Timings:
        """Of its stages."""

    @property
    def provider(self) -> str:
        """What the generator ran on."""

    @property
    def notes(self) -> Sequence[str]:
        """What was chosen."""

    @property
    def shortfalls(self) -> Sequence[str]:
        """What was asked for and could not be had."""


def look_at_memory(
    avatar: Avatar, config: RenderConfig, speech: Speech | None, feature_bytes: int
) -> Part:
    """Memory of the template and of features, against what is free.

    Args:
        feature_bytes: of one template frame's features in float32; 0: none are kept.
    """
    template = avatar.estimate_memory(config.cache, config.pixels)
    frames = len(avatar)
    if speech is not None:
        frames = min(frames, _output_frames(avatar, config, speech))
    packed = feature_bytes // (_PACKED if config.precision == "fp32" else 1)
    features = 0 if config.feature_cache == "off" else frames * packed
    features = min(features, config.feature_cache_mb * 1_000_000)
    free = free_memory_bytes()
    total = template.ram_bytes + features
    facts = (
        Fact("render", "template", f"{template.ram_bytes / 1e6:.0f} MB in RAM, "
             f"{template.file_bytes / 1e6:.0f} MB in files ({template.pixels})"),
        Fact("render", "features", f"up to {features / 1e6:.0f} MB, {packed / 1e6:.1f} MB a frame"
             if features else "none are kept"),
    )  # fmt: skip
    return Part(facts, (judge_memory(total, free),))


def judge_memory(total: int, free: int) -> Finding:
    """Whether a render that takes so many bytes fits into those that are free."""
    text = f"a render takes about {total / 1e6:,.0f} MB beside the network's own"
    if total <= _MOST_OF_FREE * free:
        return Finding("render", "ok", f"{text}, {free / 1e6:,.0f} MB are free")
    advice = "Use cache='mmap', a smaller feature_cache_mb, a shorter recording or smaller frames."
    severity: Severity = "problem" if total > free else "hint"
    return Finding("render", severity, f"{text}, {free / 1e6:,.0f} MB are free", advice)


def _output_frames(avatar: Avatar, config: RenderConfig, speech: Speech) -> int:
    """Frames of a render, to one or two; of a speech that may not fit the avatar too."""
    count = max(1, round(speech.duration_seconds * avatar.fps))
    return min(config.max_frames or count, count)


def look_at_time(
    avatar: Avatar,
    config: RenderConfig,
    speech: Speech | None,
    trial: Callable[[], Rendered],
) -> Part:
    """Render some frames, and say how long all of them would take at that pace.

    Args:
        speech: to be rendered; None: there is none yet.
        trial: renders `TRIAL_FRAMES` frames at most.
    """
    try:
        done = trial()
    except (LipsyncError, MemoryError) as error:
        text = f"a trial render failed: {str(error).rstrip('.') or 'there is not enough memory'}"
        return Part((), (Finding("render", "problem", text, "Mend this first."),))
    pace, start = done.timings.steady_fps, done.timings.begin_seconds
    text = f"{done.num_frames} frames, opened in {start:.1f} s, then {pace:.1f} a second"
    facts = [Fact("render", "tried just now", f"{text} on {done.provider}")]
    if speech is not None and pace:
        count = count_frames(avatar, speech, config)
        facts.append(Fact("render", "this speech", f"{count} frames, about {count / pace:.0f} s "
                          "at this pace"))  # fmt: skip
    facts += [fact_of(note) for note in done.notes]
    found = [Finding("render", "ok", "a trial render went through")]
    advice = "See what it says; the pictures are right, and it took longer or more."
    found += [Finding("render", "hint", text.rstrip("."), advice) for text in done.shortfalls]
    return Part(tuple(facts), tuple(found))


def fact_of(note: str) -> Fact:
    """Most notes are ``feature cache on: ...``; of others all is the value."""
    name, _, rest = note.partition(": ")
    is_named = rest and len(name) <= _LONGEST_NAME
    return Fact("render", name, rest) if is_named else Fact("render", "note", note)
