"""Files that are read in: regular ones alone, and no more of them than is sane."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from lipsync_nb.errors import LipsyncError, NotFoundError

# Pipes would wait for a writer.
_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOCTTY"):
    _FLAGS |= getattr(os, _name, 0)


def given_path(path: str | Path, expected: str) -> Path:
    """The path of an input; an empty name would be the current folder's.

    Raises:
        NotFoundError: it is empty.
    """
    if not str(path):
        raise NotFoundError(f"found an empty name, expected {expected}.")
    return Path(path)


def open_handle(
    path: str | Path, check: Callable[[os.stat_result], object], follow: bool = True
) -> int:
    """Open a file for reading, without waiting for anybody; gives the handle.

    Args:
        check: raises where a file is not taken; it gets the status of the one that is open.
        follow: where a link leads.

    Raises:
        OSError: it is not there, cannot be read, or is a link that is not followed.
    """
    handle = os.open(path, _FLAGS if follow else _FLAGS | getattr(os, "O_NOFOLLOW", 0))
    try:
        check(os.fstat(handle))
    except BaseException:
        os.close(handle)
        raise
    return handle


def open_file(path: str | Path) -> BinaryIO:
    """Open a regular file; folders, pipes, sockets and devices may never end, or never begin.

    Raises:
        OSError: it is none, is not there, or cannot be read.
    """
    return open(open_handle(path, check_regular), "rb")


def check_regular(status: os.stat_result) -> None:
    """Raise `OSError` where this is the status of anything else than a regular file."""
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"it is {what_it_is(status.st_mode)}, expected a file")


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
