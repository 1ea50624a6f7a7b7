"""Files that are read in: regular ones alone, and no more of them than is sane."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from lipsync_nb.errors import LipsyncError

# Pipes would wait for a writer.
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


def open_file(path: str | Path) -> BinaryIO:
    """Open a regular file; folders, pipes, sockets and devices may never end, or never begin.

    Raises:
        OSError: it is none, is not there, or cannot be read.
    """
    handle = os.open(path, _FLAGS)
    try:
        check_regular(os.fstat(handle).st_mode)
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(mode: int) -> None:
    """Raise `OSError` where this is the mode of anything else than a regular file."""
    if not stat.S_ISREG(mode):
        raise OSError(f"it is {what_it_is(mode)}, expected a file")


def what_it_is(mode: int) -> str:
    """What else than a regular file has this mode."""
    return "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"


def read_file(path: str | Path, kind: type[LipsyncError], most_bytes: int) -> bytes:
    """Read a whole file.

    Args:
        kind: of error that is raised.
        most_bytes: a larger file is refused before it is read.

    Raises:
        LipsyncError: of that kind: it is no regular file, too large, or cannot be read.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            content = b"" if size > most_bytes else file.read(most_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise kind(f"{path}: cannot be read ({reason}).") from error
    size = max(size, len(content))
    if size > most_bytes:
        found, most = f"{size / 1e6:,.1f} MB", f"{most_bytes / 1e6:,.1f} MB"
        raise kind(f"{path}: found a file of {found}, expected at most {most}.")
    return content
