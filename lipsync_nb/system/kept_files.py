"""Files that a cache keeps between runs: nothing in them is taken on trust, nothing may stop a run.

A place for caches may be shared, damaged, or laid out by somebody else. A kept file counts where
it is a plain file of somebody who is trusted, and of the expected size; it is opened without
following a link and without waiting, so that a pipe in its place stops nothing.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import stat
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .cache_folders import user_cache_folders
from .inputs import open_handle
from .outputs import Partial, write_file

Owners = frozenset[int]

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISREG, "a file"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISFIFO, "a pipe"),
)


def trusted_owners(*paths: Path) -> Owners:
    """Whose files count: this user's, the superuser's, and those of the owners of these paths.

    Empty where the system knows no owners: then everybody's count.

    Args:
        paths: what the caches belong to, such as an avatar's folder: whoever may change that may
            prepare it for others too.
    """
    if not hasattr(os, "getuid"):
        return frozenset()
    owners = {os.getuid(), 0}
    for path in paths:
        with suppress(OSError):
            owners.add(os.stat(path).st_uid)
    return frozenset(owners)


def check_folder(path: Path, owners: Owners, names: Iterable[str]) -> None:
    """Check that a kept folder is one, of a trusted owner, and holds these names and no others.

    Raises:
        FileNotFoundError, NotADirectoryError: there is nothing, or what should lead there does not.
        OSError: it cannot be read.
        ValueError: it is something else.
    """
    _check(path, os.lstat(path), owners, stat.S_ISDIR, "a folder")
    found, wanted = set(os.listdir(path)), set(names)
    for name in sorted(found ^ wanted):
        what = "is missing" if name in wanted else "was not expected"
        raise ValueError(f"{shown(name)} {what}")


def open_kept(path: Path, owners: Owners, size: int, exact: bool = False) -> int:
    """Open a kept file for reading; gives the handle, which the caller closes.

    Args:
        size: bytes that it may have at most.
        exact: it must have just so many.

    Raises:
        FileNotFoundError, NotADirectoryError: there is nothing, or what should lead there does not.
        OSError: it cannot be read.
        ValueError: it is no plain file, somebody else's, or of another size.
    """

    def check(status: os.stat_result) -> None:
        _check(path, status, owners, stat.S_ISREG, "a file")
        if status.st_size > size or (exact and status.st_size != size):
            most = "" if exact else "at most "
            raise ValueError(f"{path.name} has {status.st_size} bytes, expected {most}{size}")

    check(os.lstat(path))
    return open_handle(path, check, follow=False)


def _check(path: Path, status: os.stat_result, owners: Owners, is_right: Any, wanted: str) -> None:
    if not is_right(status.st_mode):
        kinds = (text for is_kind, text in _KINDS if is_kind(status.st_mode))
        raise ValueError(f"{path.name} is {next(kinds, 'a device')}, expected {wanted}")
    if owners and status.st_uid not in owners:
        raise ValueError(f"{path.name} belongs to user {status.st_uid}, who is not trusted")


def read_kept(path: Path, owners: Owners, size: int, exact: bool = False) -> bytes:
    """All of a kept file; see `open_kept`."""
    with open(open_kept(path, owners, size, exact), "rb") as file:
        # No more than was looked at: it may be growing.
        return file.read(os.fstat(file.fileno()).st_size)[:size]


def map_kept(path: Path, owners: Owners, size: int, access: int = mmap.ACCESS_READ) -> mmap.mmap:
    """Map a kept file of just this size; see `open_kept`.

    One of another size would end the process where its pages are missing.
    """
    handle = open_kept(path, owners, size, exact=True)
    try:
        return mmap.mmap(handle, size, access=access)
    finally:
        os.close(handle)


def digest_of(body: Mapping[str, Any]) -> str:
    """Check sum of what a kept file tells, as JSON."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def parsed(content: bytes, name: str) -> dict[str, Any]:
    """The JSON object in a kept file.

    Raises:
        ValueError: it is none.
    """
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} holds no JSON") from error
    if not isinstance(found, dict):
        raise ValueError(f"{name} holds {type(found).__name__} in JSON, expected an object")
    return found


def shown(name: str) -> str:
    """A name from a disk as one short piece of a line."""
    return ascii(name) if len(name) <= 60 else f"{name[:60]!a}..."


def set_aside(path: Path) -> None:
    """Take what bears a kept file's or folder's name out of the way in one step; then remove it.

    Whoever has it open keeps it. A link is removed, not what it points to.

    Raises:
        OSError: it cannot be.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    trash = Partial(path.parent / "trash", is_folder=True)
    try:
        if stat.S_ISDIR(mode):
            # A folder that is closed to its owner can be neither moved nor emptied.
            with suppress(OSError):
                os.chmod(path, 0o700)
        os.rename(path, trash.path / "old")
    except FileNotFoundError:
        return  # another process was faster
    finally:
        trash.discard()


def clear_places(folders: Iterable[Path], names: Iterable[str], owners: Owners) -> Path:
    """The first of these folders that can be written in, with nothing under these names.

    What is a stranger's stays where there is another place: two who do not trust each other would
    replace each other's files for ever.

    Raises:
        OSError: none can.
    """
    failure, names = OSError("no folder can be written"), list(names)

    def is_strangers(folder: Path) -> bool:
        return any(_is_strangers(folder / name, owners) for name in names)

    for folder in sorted(folders, key=is_strangers):
        try:
            writable_folder([folder])
            for name in names:
                set_aside(folder / name)
        except OSError as error:
            failure = error
            continue
        return folder
    raise failure


def _is_strangers(path: Path, owners: Owners) -> bool:
    with suppress(OSError):
        return bool(owners) and os.lstat(path).st_uid not in owners
    return False


def write_kept(path: Path, content: bytes) -> None:
    """Write a kept file at once, in place of whatever bears its name; no link is followed.

    Raises:
        OSError: it cannot be written.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            set_aside(path)
    write_file(path, content)


def reason_of(error: BaseException) -> str:
    """Why a kept file is not taken, in part of a line."""
    if isinstance(error, OSError):
        name = os.path.basename(str(error.filename)) if error.filename else "it"
        return f"{name} cannot be read ({error.strerror or error})"
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:200]


def writable_folder(folders: Sequence[Path]) -> Path:
    """The first of these that exists or can be made, and can be written in.

    Raises:
        OSError: none can.
    """
    failure: OSError = OSError("no folder can be written")
    for folder in folders:
        try:
            _make(folder)
            Partial(folder / "trial").discard()
        except OSError as error:
            failure = error
            continue
        return folder
    raise failure


def _make(folder: Path) -> None:
    """Make a folder; one for temporary files is for this user alone."""
    for own in user_cache_folders()[-1:]:
        if folder.is_relative_to(own) and own.parent == Path(tempfile.gettempdir()):
            own.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
