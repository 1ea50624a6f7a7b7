"""Files that are written in the background, once what was asked for is done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakSet

from .limits import memory_given_back

_writers: WeakSet[threading.Thread] = WeakSet()
# Whoever waits finds threads that run, and none that is about to begin: that cannot be joined.
_guard = threading.Lock()


def in_background(write: Callable[[], None], name: str) -> None:
    """Begin to write in a thread of this name; the process does not end before it has."""
    thread = threading.Thread(target=memory_given_back()(write), name=name)
    with _guard:
        thread.start()
        _writers.add(thread)


def wait_for_background() -> None:
    """Until everything that was begun so is written."""
    with _guard:
        begun = list(_writers)
    for thread in begun:
        thread.join()
