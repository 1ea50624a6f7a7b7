"""What an inspection finds: facts, findings with a severity, and the pictures that show them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Box
from lipsync_nb.types.rich import Rich

Severity = Literal["ok", "hint", "problem"]
Topic = Literal["file", "frames", "face box", "face", "network", "speech", "render", "machine"]
TOPICS: tuple[Topic, ...] = (
    "file", "frames", "face box", "face", "network", "speech", "render", "machine",
)  # fmt: skip
_PREVENTING = set(TOPICS) - {"machine"}
_COLUMNS, _NAME, _MARK = 98, 18, 9
_MARKS: dict[Severity, str] = {"ok": "ok", "hint": "hint", "problem": "PROBLEM"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: what it is about.
        severity: ``ok``; ``hint``: it works, and could be better; ``problem``: it will be seen or
            heard, or keeps the avatar from talking.
        found: what was found, with its numbers.
        advice: what to do; empty where nothing need be done.
    """

    topic: Topic
    severity: Severity
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Fact:
    """A value that was read, without any judgement."""

    topic: Topic
    name: str
    value: str


@dataclass(frozen=True)
class Part:
    """What one look gives."""

    facts: tuple[Fact, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __add__(self, other: Part) -> Part:
        return Part((*self.facts, *other.facts), (*self.findings, *other.findings))


def joined(parts: Iterable[Part]) -> Part:
    """All of them as one."""
    return sum(parts, Part())


@dataclass(frozen=True, eq=False)
class SoundPicture:
    """A speech as it is drawn.

    Attributes:
        peaks: lowest and highest sample of each column, -1..1.
        seconds: of the whole.
        clipped, pauses: stretches ``(start, end)`` in seconds.
    """

    peaks: tuple[tuple[float, float], ...]
    seconds: float
    clipped: tuple[tuple[float, float], ...] = ()
    pauses: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Evidence:
    """Pictures of what was found.

    Attributes:
        frames: number, picture uint8 ``[h, w, 3]`` BGR, and face box (None: there is none).
        crop: the face box as the network gets it, uint8 ``[s, s, 3]`` BGR.
        widths: of the face box in each frame, in pixels.
        sound: of the speech.
    """

    frames: tuple[tuple[int, ImageArray, Box | None], ...] = ()
    crop: ImageArray | None = None
    widths: tuple[int, ...] = ()
    sound: SoundPicture | None = None


@dataclass(frozen=True, eq=False)
class Inspection(Rich):
    """What was found of an avatar, footage, a network, a checkpoint or a speech.

    Printed, it is text of less than 100 columns; in a notebook, and by `lipsync_nb.write_report`,
    a page with pictures.

    Attributes:
        path: what was inspected.
        kind: what it is, in words.
        lacks: what it needs before it can talk, each in words; empty: nothing is missing.
        facts, findings: in the order of `TOPICS`.
        evidence: pictures.
    """

    path: Path
    kind: str
    lacks: tuple[str, ...]
    facts: tuple[Fact, ...]
    findings: tuple[Finding, ...]
    evidence: Evidence = field(default_factory=Evidence)
    _display: ClassVar[str] = "inspection_displays"

    def __repr__(self) -> str:
        return f"Inspection({self.path.name!r}, {self.kind}: {self.count_text})"

    @property
    def problems(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == "problem")

    @property
    def hints(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == "hint")

    @property
    def count_text(self) -> str:
        """How many problems and hints, in words."""
        return f"{_counted(len(self.problems), 'problem')}, {_counted(len(self.hints), 'hint')}"

    @property
    def verdict(self) -> str:
        """Whether it can talk, and what it lacks, in a sentence."""
        if self.lacks:
            return f"To talk it lacks {', '.join(self.lacks)}."
        if any(finding.topic in _PREVENTING for finding in self.problems):
            return "It has what it needs to talk; the problems will be seen or heard, or stop it."
        return "It has what it needs to talk."

    @property
    def topics(self) -> tuple[Topic, ...]:
        """Those that anything was found of."""
        found = {fact.topic for fact in self.facts} | {f.topic for f in self.findings}
        return tuple(topic for topic in TOPICS if topic in found)

    def facts_of(self, topic: Topic) -> tuple[Fact, ...]:
        return tuple(fact for fact in self.facts if fact.topic == topic)

    def findings_of(self, topic: Topic) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.topic == topic)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield from _wrapped(f"{self.path}: {self.kind}", "", "  ")
        yield from _wrapped(self.verdict, "", "  ")
        for topic in self.topics:
            yield from ("", topic.upper())
            for fact in self.facts_of(topic):
                yield from _wrapped(fact.value, f"  {fact.name:<{_NAME}}", " " * (_NAME + 2))
            for finding in self.findings_of(topic):
                start = f"  {_MARKS[finding.severity]:<{_MARK}}"
                yield from _wrapped(finding.found, start, " " * (_MARK + 2))
                if finding.advice:
                    yield from _wrapped(finding.advice, f"{'':{_MARK}}-> ", " " * (_MARK + 3))
        yield from ("", f"{self.count_text}.")


def _counted(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"


def _wrapped(text: str, first: str, later: str) -> list[str]:
    flat = " ".join(text.split()) or "-"
    return textwrap.wrap(
        flat, _COLUMNS, initial_indent=first, subsequent_indent=later, break_on_hyphens=False
    )
