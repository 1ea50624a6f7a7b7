"""What this process may take: cores, and RAM that is free under the limits of its container."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from queue import Empty, SimpleQueue

from lipsync_nb.errors import AvatarError

MOST_PIXELS = 100_000_000
_BYTES_A_PIXEL = 6  # a picture in BGR, and the decoder's own
_CGROUPS, _OWN_CGROUP, _MEMINFO = "/sys/fs/cgroup", "/proc/self/cgroup", "/proc/meminfo"
_OWN_PAGES = "/proc/self/statm"
_UNKNOWN = 1 << 62
_M_MXFAST, _M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = 1, -1, -3, -8  # of malloc.h
_ARENA_END_BYTES, _MAPPED_BLOCK_BYTES = 128 << 10, 32 << 20
_WORTH_GIVING_BYTES = 16_000_000
# Some threads end, and free what they held, after the work that they were begun for.
_IDLE_SECONDS = 0.5
_after_last = [0]
# A stream of frames that nobody closes is left by the garbage collector, within whatever a thread
# does: each step on these is one that cannot be interrupted.
_at_work: set[object] = set()
_ends: SimpleQueue[None] = SimpleQueue()
_giver: list[threading.Thread] = []

_Left = Callable[[Path], int | None]


_most_cores: ContextVar[int] = ContextVar("most_cores", default=_UNKNOWN)


def available_cores() -> int:
    """Cores that this process may use; within `at_most_cores`, no more than are given there."""
    if hasattr(os, "sched_getaffinity"):
        found = len(os.sched_getaffinity(0))
    else:
        found = os.cpu_count() or 1
    return min(found, _most_cores.get())


@contextmanager
def at_most_cores(count: int) -> Iterator[None]:
    """Entered while something is made that has so many cores: its threads are planned for these.

    It holds in the thread that entered it, and where its context is taken over.

    Example:
        >>> with at_most_cores(1):
        ...     available_cores()
        1
    """
    token = _most_cores.set(count)
    try:
        yield
    finally:
        _most_cores.reset(token)


def free_memory_bytes(root: Path = Path("/")) -> int:
    """RAM that is free or can be freed, by the system's word; very much where it gives none.

    The least of what the machine has, of what each control group (a container, a batch job) that
    holds this process has left, and of its own limit (``ulimit -v``). Formats: proc(5), and the
    kernel's cgroup-v1 and cgroup-v2 documents.

    Args:
        root: where ``proc`` and ``sys`` are looked for.
    """
    found = [_of_machine(root), *_of_groups(root), _of_process(root)]
    return min([value for value in found if value is not None], default=_UNKNOWN)


def give_back_memory() -> None:
    """Give what was freed back to the system, where glibc is; elsewhere nothing is done.

    Its allocator keeps what lies between blocks in use: some hundred MB after frames and batches.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    _after_last[0] = _held_bytes(Path("/")) or 0


def _is_worth_giving() -> bool:
    """Whether the process is much larger than it was when it last gave memory back.

    To give takes tens of milliseconds, and what comes next has to ask for the pages again.
    """
    held = _held_bytes(Path("/"))
    if held is None:
        return False
    _after_last[0] = min(_after_last[0], held)
    return held - _after_last[0] >= _WORTH_GIVING_BYTES


def _held_bytes(root: Path) -> int | None:
    """Resident memory of this process, less what is mapped from files: those come and go.

    None where the system does not tell it. Format: ``statm`` of proc(5).
    """
    with suppress(AttributeError, OSError, ValueError, IndexError):
        texts = _under(root, _OWN_PAGES).read_text(encoding="ascii").split()
        return (int(texts[1]) - int(texts[2])) * os.sysconf("SC_PAGE_SIZE")
    return None


def bound_arenas() -> None:
    """Have glibc keep less of what is freed: fewer arenas, and little at the end of each.

    Its allocator learns from the first large block that is freed to keep up to 64 MB at the end of
    every arena, which ``malloc_trim`` gives back in the first arena alone, and there are eight
    arenas a core: the third run of the quickstart in one kernel held 27 % more than the first (on
    an Intel Xeon), and with this, and `memory_given_back`, 2 %. Blocks are taken from where they
    would be anyway once that is learned. What the environment says of ``MALLOC_ARENA_MAX``,
    ``MALLOC_TRIM_THRESHOLD_`` and ``MALLOC_MMAP_THRESHOLD_`` stays. Source: mallopt(3).
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Where there are more already, they stay.
        if "MALLOC_ARENA_MAX" not in os.environ:
            mallopt(_M_ARENA_MAX, max(2, available_cores()))
        if not {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys():
            mallopt(_M_MMAP_THRESHOLD, _MAPPED_BLOCK_BYTES)
            mallopt(_M_TRIM_THRESHOLD, _ARENA_END_BYTES)
            # A small block that is kept for its like would hold the end of its arena.
            mallopt(_M_MXFAST, 0)


@contextmanager
def memory_given_back() -> Iterator[None]:
    """Give back what is freed within, where that is much; decorates functions as well.

    A little later, where nothing runs that is decorated so, also what is little, and what threads
    freed at their end: it costs nobody's time then.
    """
    bound_arenas()
    _after_last[0] = _after_last[0] or _held_bytes(Path("/")) or 0
    _start_giver()
    work = object()
    _at_work.add(work)
    try:
        yield
    finally:
        if _is_worth_giving():
            give_back_memory()
        _at_work.discard(work)
        _ends.put(None)


def _start_giver() -> None:
    # A process that was forked has the list, and not the thread.
    if any(thread.is_alive() for thread in _giver):
        return
    thread = threading.Thread(target=_give_when_idle, name="give back memory", daemon=True)
    # Where no thread can begin, memory is given back at the end of what is decorated alone.
    with suppress(RuntimeError):
        thread.start()
        _giver[:] = [thread]


def _give_when_idle() -> None:
    while True:
        _ends.get()
        time.sleep(_IDLE_SECONDS)
        with suppress(Empty):
            while True:
                _ends.get_nowait()
        # What runs gives back at its own end.
        if not _at_work:
            give_back_memory()


def check_pixels(path: str | Path, width: int, height: int) -> None:
    """Check a picture's size before it is decoded.

    Raises:
        AvatarError: it has too many pixels, or takes more memory than is free.
    """
    pixels, size = width * height, f"{width}x{height}"
    if pixels > MOST_PIXELS:
        most = MOST_PIXELS // 1_000_000
        raise AvatarError(f"{path}: is {size} pixels, expected at most {most} million.")
    needed, free = pixels * _BYTES_A_PIXEL, free_memory_bytes()
    if needed > free:
        found = f"{needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free"
        raise AvatarError(f"{path}: is {size} pixels, which take {found}.")


def _of_machine(root: Path) -> int | None:
    with suppress(OSError, KeyError, ValueError):
        text = _under(root, _MEMINFO).read_text(encoding="ascii")
        values = dict(line.split(":", 1) for line in text.splitlines())
        return int(values["MemAvailable"].split()[0]) * 1024
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_process(root: Path) -> int | None:
    """What is left of the addresses that this process may have; None: they are not limited."""
    if sys.platform == "win32":
        return None
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return None
    with suppress(OSError, ValueError, IndexError):
        pages = int(_under(root, _OWN_PAGES).read_text(encoding="ascii").split()[0])
        return max(0, most - pages * os.sysconf("SC_PAGE_SIZE"))
    return most


def _of_groups(root: Path) -> list[int]:
    """What is left in each control group, version 2 or 1, from this process's up to the root's."""
    try:
        lines = _under(root, _OWN_CGROUP).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += _left_in_parents(_under(root, _CGROUPS), path, _left_v2)
        elif "memory" in controllers.split(","):
            found += _left_in_parents(_under(root, _CGROUPS) / "memory", path, _left_v1)
    return found


def _left_in_parents(mount: Path, path: str, left: _Left) -> list[int]:
    # In a container the path may be that of the host, whose groups are not to be seen here.
    own = mount / path.lstrip("/")
    folders = [own, *own.parents]
    values = [left(folder) for folder in folders[: folders.index(mount) + 1]]
    return [value for value in values if value is not None]


def _left_v2(folder: Path) -> int | None:
    return _left(folder, "memory.max", "memory.current", "inactive_file")


def _left_v1(folder: Path) -> int | None:
    names = "memory.limit_in_bytes", "memory.usage_in_bytes"
    return _left(folder, *names, "total_inactive_file")


def _left(folder: Path, limit: str, usage: str, freed: str) -> int | None:
    """Limit less usage; pages of files that nobody used lately can be freed. None: no limit."""
    try:
        most = int((folder / limit).read_text(encoding="ascii"))
        used = int((folder / usage).read_text(encoding="ascii"))
        rows = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        stats = dict(row.split(" ", 1) for row in rows if " " in row)
        return max(0, most - used + int(stats.get(freed, 0)))
    except (OSError, ValueError):  # "max" is no number: there is no limit
        return None


def _under(root: Path, path: str) -> Path:
    return root / path.lstrip("/")
