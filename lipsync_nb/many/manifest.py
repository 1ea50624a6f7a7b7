"""What became of each clip: a file of JSON lines that several batches may write to."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock, Timeout

from lipsync_nb.errors import BatchError
from lipsync_nb.system.inputs import open_file
from lipsync_nb.system.outputs import cannot_write, check_output_file

MANIFEST_FILE = "manifest.jsonl"
LONGEST_LINE = 100_000
_LOCK_SECONDS = 5.0
Outcome = Literal["started", "rendered", "failed"]


@dataclass(frozen=True)
class Entry:
    """One line: a clip that was begun, made, or could not be made.

    Attributes:
        out: the output, from the manifest's folder where it lies within.
        outcome: ``started``, ``rendered`` or ``failed``.
        fingerprint: of what it is made from, see `Fingerprints`; empty where that failed.
        num_frames, seconds, fps: of the clip; fps without opening. Seconds of all workers that
            made parts of it in this batch, and frames a second of one of them.
        bytes, modified_ns: of the output, by which it is known again; of all pictures together,
            and the newest, where it is a folder.
        error: one sentence where it failed.
        notes: what was chosen or found odd, a line each.
        version: of this package.
        host, pid: of the worker.
        date: UTC.
    """

    out: str
    outcome: Outcome
    fingerprint: str = ""
    num_frames: int = 0
    seconds: float = 0.0
    fps: float = 0.0
    bytes: int = 0
    modified_ns: int = 0
    error: str = ""
    notes: tuple[str, ...] = ()
    version: str = ""
    host: str = ""
    pid: int = 0
    date: str = ""


def stamped(entry: Entry) -> Entry:
    """An entry with version, host, process and date."""
    return replace(
        entry,
        version=version("lipsync_nb"),
        host=platform.node(),
        pid=os.getpid(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def manifest_beside(table: str | Path) -> Path:
    """Where the manifest of a table's clips lies, unless somebody says otherwise."""
    return Path(table).parent / MANIFEST_FILE


class Manifest:
    """The file; any number of threads, processes and machines may add to it at once.

    It is only ever added to, and an output's later lines count before earlier ones. Lines that
    are damaged, cut off or somebody's own are passed over, and their clips are made again.

    Args:
        path: it is made with the first line; a file beside it, with ``.lock`` behind its name,
            is the lock.

    Raises:
        OutputError: it cannot be written there.

    Attributes:
        num_unreadable: lines that were passed over.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = check_output_file(path)
        self.num_unreadable = 0
        self._entries: dict[str, Entry] = {}
        self._rendered: dict[str, Entry] = {}
        self._position = 0
        self._file_id: tuple[int, int] = (0, 0)

    def name_of(self, out: str | Path) -> str:
        """An output's name in the manifest."""
        full, folder = os.path.abspath(out), os.path.abspath(self.path.parent)
        with suppress(ValueError):  # on another drive
            inside = os.path.relpath(full, folder)
            if not inside.startswith(os.pardir):
                return Path(inside).as_posix()
        return Path(full).as_posix()

    def last(self, out: str | Path) -> Entry | None:
        """What is known of an output, by what was read last."""
        return self._entries.get(self.name_of(out))

    def last_rendered(self, out: str | Path) -> Entry | None:
        """How an output was made last, whatever was begun or failed since."""
        return self._rendered.get(self.name_of(out))

    def read(self) -> None:
        """Read what was added since the last time; all where it is another file by now."""
        try:
            file = open_file(self.path)
        except FileNotFoundError:
            self._begin((0, 0))
            return
        except OSError as error:
            raise BatchError(f"{self.path}: cannot be read ({error.strerror or error}).") from error
        with file:
            status = os.fstat(file.fileno())
            file_id = status.st_dev, status.st_ino
            if file_id != self._file_id or status.st_size < self._position:
                self._begin(file_id)
            file.seek(self._position)
            while line := file.readline(LONGEST_LINE):
                is_whole = line.endswith(b"\n") or len(line) == LONGEST_LINE
                if not is_whole and _entry(line) is None:
                    break  # it may be in the making
                self._take(line)
                self._position += len(line)

    def _begin(self, file_id: tuple[int, int]) -> None:
        self._entries, self._rendered = {}, {}
        self._position, self._file_id = 0, file_id
        self.num_unreadable = 0

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        entry = _entry(line)
        if entry is None:
            self.num_unreadable += 1
        else:
            self._entries[entry.out] = entry
            if entry.outcome == "rendered":
                self._rendered[entry.out] = entry

    def add(self, entry: Entry) -> Entry:
        """Add a line, which is on the disk when this returns; gives it as it is written.

        Who writes at the same time is waited for, but not for longer than five seconds: a machine
        that stands still in the middle of it does not stop the others.

        Raises:
            OutputError: it cannot be written.
        """
        entry = stamped(replace(entry, out=self.name_of(entry.out)))
        line = json.dumps(asdict(entry)).encode() + b"\n"
        try:
            with self._alone(), open(self.path, "a+b") as file:
                # A line that was cut off ends here, else this one would be lost with it.
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read(1) == b"\n" else b"\n" + line
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        return entry

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Entered while a line is written: alone, or after five seconds all the same."""
        lock = FileLock(f"{self.path}.lock", is_singleton=False)
        with ExitStack() as stack:
            with suppress(Timeout):
                stack.enter_context(lock.acquire(timeout=_LOCK_SECONDS))
            yield

    @contextmanager
    def claimed(self, out: str | Path, wait_seconds: float = 0) -> Iterator[bool]:
        """Entered while this output is made, by one worker at a time of all that there are.

        The claim ends with the process, however it ends.

        Args:
            wait_seconds: for another who has it.

        Yields:
            Whether it is claimed; False: another has it.
        """
        lock = FileLock(_claim_of(out), is_singleton=False)
        try:
            lock.acquire(timeout=wait_seconds)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise cannot_write(out, error) from error
        try:
            yield True
        finally:
            # Whoever waits for it looks into the manifest before anything is made.
            if sys.platform != "win32":
                with suppress(OSError):
                    os.unlink(lock.lock_file)
            lock.release()

    def clear_claim(self, out: str | Path) -> None:
        """Remove what a worker left that was killed as soon as it was done."""
        if os.path.lexists(_claim_of(out)):
            with self.claimed(out):
                pass


def _claim_of(out: str | Path) -> Path:
    path = Path(os.path.abspath(out))
    return path.parent / f".{path.name[:200]}.claim"


def _entry(line: bytes) -> Entry | None:
    """A line's entry, or None where it is none."""
    try:
        values = json.loads(line)
        entry = Entry(**{**values, "notes": tuple(values.get("notes", ()))})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    is_right = all(_is_of_type(getattr(entry, f.name), f.default) for f in fields(Entry)[2:])
    known = isinstance(entry.out, str) and entry.outcome in get_args(Outcome)
    return entry if is_right and known else None


def _is_of_type(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        return all(isinstance(note, str) for note in value)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)
