"""Files and folders that show themselves only when they are complete."""

from __future__ import annotations

import atexit
import errno
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lipsync_nb.errors import OutputError

PARTIAL = ".lipsync-partial-"
_TRIES = 100

_in_the_making: set[Partial] = set()


class Partial:
    """A file or folder in the making, beside the place where it will stand.

    Its name is short and cannot be guessed, it follows no link, and it has the rights that the
    user's umask gives. While it is being made this process holds a lock on it, so that a later one
    can tell what was left by a process that was killed: see `sweep`.

    Args:
        target: the final name; a link is followed to what it points to.
        suffix: of the partial name.
        is_folder: a folder is made instead of a file.
        mode: rights of a folder, before the umask.

    Attributes:
        path: where to write.
        target: the final name, without links.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(
        self, target: str | Path, suffix: str = "", is_folder: bool = False, mode: int = 0o777
    ) -> None:
        self.target = Path(os.path.realpath(target))
        sweep(self.target.parent)
        self._process, self._handle = os.getpid(), -1
        self.path = self.target.parent
        # Elsewhere a handler can be neither set nor put back; what a signal leaves there is swept.
        self.is_watched = threading.current_thread() is threading.main_thread()
        _watch_for_sigterm()
        for _ in range(_TRIES):
            if self._make(suffix, is_folder, mode):
                return
        raise FileExistsError(f"no free name in {self.target.parent}")

    def _make(self, suffix: str, is_folder: bool, mode: int) -> bool:
        """Make it under a name of its own, and lock it; False where the name was not free."""
        self.path = self.target.parent / f"{PARTIAL}{secrets.token_hex(6)}{suffix}"
        # Noted before it is there: a signal may come at any moment.
        _in_the_making.add(self)
        try:
            self._handle = _opened(self.path, is_folder, mode)
        except FileExistsError:
            self._forget()
            return False
        except OSError as error:
            self.discard()
            # A folder may have been swept between its making and its opening.
            if is_folder and isinstance(error, FileNotFoundError) and self.target.parent.is_dir():
                return False
            raise
        # Between its making and its locking another process may have swept it.
        if _locked(self._handle) is not False and _is_same(self._handle, self.path):
            return True
        self._forget()
        return False

    def put_in_place(self) -> None:
        """Give it its final name: it is on the disk before, and then replaces what was there.

        Raises:
            OSError: it cannot be; then `discard` is still due.
        """
        with suppress(OSError):  # some file systems do not know it for folders
            os.fsync(self._handle)
        os.replace(self.path, self.target)
        self._forget()

    def discard(self) -> None:
        """Remove it, as far as it is still there."""
        _remove(self.path)
        self._forget()

    def _forget(self) -> None:
        if self in _in_the_making:
            _in_the_making.discard(self)
            if self._handle >= 0:
                os.close(self._handle)
            _watch_no_more()

    def discard_at_exit(self) -> None:
        """Remove it, unless this is a fork of the process that makes it."""
        if self._process == os.getpid():
            self.discard()


@atexit.register
def discard_all() -> None:
    """Remove all that this process has in the making, before it ends."""
    for partial in list(_in_the_making):
        partial.discard_at_exit()


def _watch_for_sigterm() -> None:
    """While something is in the making, a SIGTERM that nobody handles removes it, then kills.

    Jupyter ends a busy kernel so. A process that has a handler of its own ends in its own way.
    """
    _replace_handler(signal.SIG_DFL, _discard_and_die)


def _watch_no_more() -> None:
    if not any(partial.is_watched for partial in list(_in_the_making)):
        _replace_handler(_discard_and_die, signal.SIG_DFL)


def _replace_handler(before: object, after: Any) -> None:
    """Change the handler of SIGTERM from one to another, where this thread may and it is so."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGTERM) is before:
        signal.signal(signal.SIGTERM, after)


def _discard_and_die(number: int, frame: object) -> None:
    discard_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _opened(path: Path, is_folder: bool, mode: int) -> int:
    """A new file or folder, opened; gives the handle."""
    if not is_folder:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    os.mkdir(path, mode)
    return os.open(path, os.O_RDONLY)


_BINARY = getattr(os, "O_BINARY", 0)


def _locked(handle: int) -> bool | None:
    """Whether this process got the lock; None where the system has none."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_same(handle: int, path: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    return False


def sweep(folder: Path) -> None:
    """Remove what processes that are gone left in the making in a folder."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(PARTIAL):
                _sweep_one(folder / name)


def _sweep_one(path: Path) -> None:
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        try:
            if _locked(handle):
                _remove(path)
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def complete_file(path: str | Path) -> Iterator[Path]:
    """Entered while a file is written, under the name that it gives; then it gets its own.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    partial = Partial(path)
    try:
        yield partial.path
        partial.put_in_place()
    finally:
        partial.discard()


def write_file(path: str | Path, content: bytes) -> Path:
    """Write a file at once.

    Raises:
        OutputError: it cannot be written; what was there before is still there.
    """
    try:
        with complete_file(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise cannot_write(path, error) from error
    return Path(path)


def cannot_write(path: str | Path, error: Exception) -> OutputError:
    """The sentence for an error of the system while an output was written."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return OutputError(f"{path}: cannot be written ({reason}).")


def check_output(path: str | Path) -> Path:
    """An output's path, told before the work where nothing can be written under it.

    Raises:
        OutputError: it is empty or no name, or its folder is not there or cannot be written in.
    """
    if not str(path):
        raise OutputError("the output's name is empty, expected a file or folder name.")
    path = Path(path)
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a name too long, or with a zero byte
        raise cannot_write(path, error) from error
    parent = Path(os.path.realpath(path)).parent
    if not parent.is_dir():
        raise OutputError(f"{path}: its folder {parent} does not exist.")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{path}: its folder {parent} is not writable.")
    return path


def check_output_file(path: str | Path) -> Path:
    """`check_output` for a file.

    Raises:
        OutputError: see there; or something that is no file has this name.
    """
    path = check_output(path)
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a file"
        raise OutputError(f"{path}: is {kind}, expected a file name.")
    return path


def refuse_inputs(path: str | Path, inputs: Iterable[str | Path | None]) -> None:
    """Tell, before it is overwritten, that an output is one of the files that are read.

    Args:
        path: of the output; links to a file are that file.
        inputs: None where there is none; those that are not there do not matter.

    Raises:
        OutputError: it is.
    """
    for given in inputs:
        if given is not None and _are_same(path, given):
            raise OutputError(
                f"{path}: is what is read ({given}), expected another name for the output."
            )


def _are_same(one: str | Path, other: str | Path) -> bool:
    with suppress(OSError, ValueError):
        return os.path.samefile(one, other)
    return False


@contextmanager
def scratch_folder(needed_bytes: int = 0) -> Iterator[Path]:
    """Entered while temporary files are needed: a folder of this user's alone.

    What a process that was killed left is removed by the next that needs one.

    Args:
        needed_bytes: what must be free there.

    Raises:
        OutputError: it cannot be made, or there is no room.
    """
    try:
        place = Path(tempfile.gettempdir())
        if shutil.disk_usage(place).free < needed_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        partial = Partial(place / "scratch", is_folder=True, mode=0o700)
    except OSError as error:
        raise cannot_write("the folder for temporary files", error) from error
    try:
        yield partial.path
    finally:
        partial.discard()
