"""Settings of the whole process, changed while somebody needs them and put back afterwards."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

Undo = Callable[[], object]


class Shared:
    """A setting that the first who enters changes, and the last who leaves puts back.

    Any number of threads may be inside at once: what each found and put back by itself would be
    another one's change.

    Args:
        change: makes the change, and gives what undoes it.

    Example:
        >>> calm = Shared(change)
        >>> with calm:
        ...     work()
    """

    def __init__(self, change: Callable[[], Undo]) -> None:
        self._change = change
        self._undo: Undo = _nothing
        self._inside, self._lock = 0, threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._undo = self._change()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                undo, self._undo = self._undo, _nothing
                undo()


def _nothing() -> None:
    pass


def _ignore_warnings() -> Undo:
    stack = ExitStack()
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    return stack.close


without_warnings = Shared(_ignore_warnings)


def _keep_from_configuring() -> Undo:
    """``logging.warning`` gives a root logger without handlers one that stays."""
    root = logging.getLogger()
    if root.handlers or logging.lastResort is None:
        return _nothing
    # What Python itself uses where there is no handler: other threads' lines go where they went.
    handler = logging.lastResort
    root.addHandler(handler)
    return lambda: root.removeHandler(handler)


_unconfigured = Shared(_keep_from_configuring)


@contextmanager
def without_root_log() -> Iterator[None]:
    """What this thread logs by the root logger is dropped; other threads' lines are not."""
    thread = threading.get_ident()

    def is_of_others(record: logging.LogRecord) -> bool:
        return threading.get_ident() != thread

    root = logging.getLogger()
    with _unconfigured:
        root.addFilter(is_of_others)
        try:
            yield
        finally:
            root.removeFilter(is_of_others)


def _close_stderr() -> Undo:
    """Point the process's stderr nowhere, for libraries that write there by themselves."""
    try:
        sys.stderr.flush()
        kept = os.dup(_STDERR)
    except (AttributeError, OSError, ValueError):  # there is none
        return _nothing
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    os.close(nowhere)

    def put_back() -> None:
        os.dup2(kept, _STDERR)
        os.close(kept)

    return put_back


_STDERR = 2
without_stderr = Shared(_close_stderr)
