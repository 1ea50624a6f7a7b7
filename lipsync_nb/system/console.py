"""What is said on a console, which may be closed, full, or read no further."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO

# A write raises OSError where a disk is full or a pipe broken, ValueError where a file is closed.
CONSOLE_ERRORS = (OSError, ValueError)


def tell(text: object) -> None:
    """Print a result on stdout, where somebody listens."""
    with suppress(*CONSOLE_ERRORS):
        print(text, flush=True)


def say(sentence: str, is_below: bool = False) -> None:
    """Print one line about the work on stderr, where somebody listens.

    Args:
        is_below: a progress bar is left in the line before.
    """
    if sys.stderr is not None:
        line = "lipsync-nb: " + _printable(sentence)
        with suppress(*CONSOLE_ERRORS):
            print("\n" * is_below + line, file=sys.stderr, flush=True)


def _printable(text: str) -> str:
    """A name from outside may hold line breaks, and codes that a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def prepare_console() -> None:
    """Let names that a console's encoding does not have be printed, with escapes.

    Standard streams that are closed are opened to nowhere: else the next file that is opened
    would take their number, and get what the libraries write on stderr.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def leave_console() -> None:
    """Write out what is waiting; what cannot be does not count.

    Python ends with status 120 where its last flush fails.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            _flush(stream)


def _flush(stream: TextIO) -> None:
    try:
        stream.flush()
    except CONSOLE_ERRORS:
        with suppress(*CONSOLE_ERRORS):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
            stream.flush()
