"""Speech from text, by the espeak-ng program where it is installed."""

from __future__ import annotations

import functools
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lipsync_nb.errors import MissingLibraryError, SpeechError

PROGRAM = "espeak-ng"
LONGEST_TEXT = 5000
SLOWEST, FASTEST, USUAL = 80, 300, 160
_LIST_SECONDS, _SPEAK_SECONDS = 20, 120
# Voices of another program, which is seldom there.
_MBROLA = "mb/"


@dataclass(frozen=True)
class Voice:
    """A language of espeak-ng's: its code, which names the voice, and its name in English."""

    code: str
    name: str


def program() -> str | None:
    """Where espeak-ng lies, or None."""
    return shutil.which(PROGRAM)


def _run(arguments: list[str], text: str = "", seconds: float = _LIST_SECONDS) -> str:
    """Run espeak-ng, without a shell, the text on its standard input; gives what it prints.

    Raises:
        MissingLibraryError: it is not installed.
        SpeechError: it failed, or took too long.
    """
    place = program()
    if place is None:
        raise MissingLibraryError(f"{PROGRAM} is not installed, expected it to speak a text.")
    try:
        done = subprocess.run(
            [place, *arguments], input=text.encode(), capture_output=True, timeout=seconds
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SpeechError(f"{PROGRAM} did not speak the text ({error}).") from error
    if done.returncode != 0:
        reason = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SpeechError(f"{PROGRAM} did not speak the text ({(reason or ['no reason'])[-1]}).")
    return done.stdout.decode("utf-8", "replace")


@functools.cache
def voices() -> tuple[Voice, ...]:
    """The languages that espeak-ng speaks here, by name; none where it is not there, or fails."""
    try:
        listed = _run(["--voices"])
    except (MissingLibraryError, SpeechError):
        return ()
    found: dict[str, str] = {}
    for line in listed.splitlines()[1:]:
        columns = line.split()
        if len(columns) >= 5 and not columns[4].startswith(_MBROLA):
            found.setdefault(columns[1], columns[3].replace("_", " "))
    return tuple(sorted((Voice(c, n) for c, n in found.items()), key=lambda v: v.name))


def speak_to_file(text: str, path: Path, voice: str = "en-us", words_a_minute: int = USUAL) -> None:
    """Write a text as speech: a WAV file, 22,050 Hz mono.

    Args:
        text: of at most `LONGEST_TEXT` letters.
        voice: the code of one of `voices`.
        words_a_minute: `SLOWEST` to `FASTEST`.

    Raises:
        MissingLibraryError: espeak-ng is not installed.
        SpeechError: the text is empty or too long, there is no such voice, or it failed.
    """
    if not text.strip():
        raise SpeechError("the text is empty, expected words to speak.")
    if len(text) > LONGEST_TEXT:
        raise SpeechError(f"the text has {len(text)} letters, expected {LONGEST_TEXT} at most.")
    if program() is not None and voice not in {known.code for known in voices()}:
        raise SpeechError(f"found voice {voice!r}, expected a language that {PROGRAM} lists.")
    speed = min(max(words_a_minute, SLOWEST), FASTEST)
    plain = text.replace("\0", " ").encode("utf-8", "replace").decode()
    options = ["-b", "1", "-v", voice, "-s", str(speed), "-w", str(path)]
    _run(["--stdin", *options], plain, _SPEAK_SECONDS)
