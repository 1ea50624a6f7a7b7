"""Running a stage ahead of the one that takes its results, in a thread of its own."""

from __future__ import annotations

import atexit
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import copy_context
from dataclasses import dataclass
from itertools import cycle
from typing import Generic, TypeVar
from weakref import WeakSet

Item = TypeVar("Item")
Wait = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class _End:
    """Last entry of a queue: the stage is done, or failed with this error."""

    error: BaseException | None = None


_running: WeakSet[_Stage] = WeakSet()
_LONGEST_STOP_SECONDS = 5.0


@atexit.register
def _stop_all() -> None:
    """A thread within a network, when the interpreter ends, would take the process down with it."""
    stages = list(_running)
    for stage in stages:
        stage.ask_to_stop()
    end = time.monotonic() + _LONGEST_STOP_SECONDS
    while any(stage.is_alive for stage in stages) and time.monotonic() < end:
        for stage in stages:
            stage.drain()
        time.sleep(0.01)


class _Stage:
    """The thread's side: it stops at the next item once nobody waits for its results."""

    def __init__(self, items: Iterable[object], limit: int, name: str, wait: Wait) -> None:
        self._items, self._wait = items, wait
        self._stopped = threading.Event()
        self.is_over = False
        self._results: queue.Queue[object] = queue.Queue(limit)
        # A daemon, so that an interpreter that exits does not wait for a forgotten iterator.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        _running.add(self)
        self._thread.start()

    def _work(self) -> None:
        end = _End()
        iterator: Iterator[object] = iter(self._items)
        try:
            for item in iterator:
                with self._wait():
                    self._results.put(item)
                if self._stopped.is_set():
                    break
        except BaseException as error:
            end = _End(error)
        finally:
            # The stages before are stopped here, in the thread that ran them.
            if isinstance(iterator, Generator):
                iterator.close()
        if self._stopped.is_set():
            # Perhaps nobody makes room any more.
            with suppress(queue.Full):
                self._results.put_nowait(end)
        else:
            self._results.put(end)

    def take(self) -> object:
        """The next item, or an `_End`; the producer's error is raised here."""
        with self._wait():
            item = self._results.get()
        if isinstance(item, _End):
            self.is_over = True
            if item.error is not None:
                raise item.error
        return item

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def ask_to_stop(self) -> None:
        """Let the thread end at its next item."""
        self._stopped.set()

    def drain(self) -> None:
        """Make room for what the thread waits to put, without waiting for it."""
        with suppress(queue.Empty):
            while True:
                self._results.get_nowait()

    def stop(self) -> None:
        """Let the thread end, and wait until it has."""
        self.is_over = True
        self.ask_to_stop()
        while self._thread.is_alive():
            try:
                self._results.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()


def prefetch(
    items: Iterable[Item], limit: int, name: str, wait: Wait = nullcontext
) -> Generator[Item]:
    """Yield the items of an iterable that works in a thread of its own, in their order.

    At most ``limit`` items wait, so a slow consumer slows the producer and memory stays flat. An
    error of the producer is raised here after the items before it. When this iterator ends, is
    closed or is dropped, the producer is closed and its thread has ended.

    Args:
        items: worked on in the other thread; a generator is closed there.
        limit: items that may wait, at least 1.
        name: of the thread, which is the worker's name in the timings.
        wait: entered while either side waits for the other, in the thread that waits.

    Example:
        >>> list(prefetch(range(4), 2, "count"))
        [0, 1, 2, 3]
    """
    return prefetch_in_turn({name: items}, limit, wait)


def prefetch_in_turn(
    streams: Mapping[str, Iterable[Item]], limit: int, wait: Wait = nullcontext
) -> Generator[Item]:
    """Yield an item of each iterable in turn, until the one whose turn it is has no more.

    Each works in a thread of its own, see `prefetch`; all begin at the first item.

    Args:
        streams: by the name of its thread.
        limit: items of each that may wait.

    Example:
        >>> list(prefetch_in_turn({"even": range(0, 5, 2), "odd": range(1, 5, 2)}, 2))
        [0, 1, 2, 3, 4]
    """
    stages: list[_Stage] = []
    try:
        for name, items in streams.items():
            stages.append(_Stage(items, limit, name, wait))
        for stage in cycle(stages):
            item = stage.take()
            if isinstance(item, _End):
                return
            yield item  # type: ignore[misc]
    finally:
        for stage in stages:
            stage.ask_to_stop()
        for stage in stages:
            stage.stop()


class Started(Generic[Item]):
    """Items of an iterable that a thread of its own works on from now on, see `prefetch`.

    Args:
        items, limit, name, wait: as of `prefetch`.

    Example:
        >>> started = Started(iter("ab"), 2, "letters")
        >>> started.next(), started.next(), started.next()
        ('a', 'b', None)
    """

    def __init__(
        self, items: Iterable[Item], limit: int, name: str, wait: Wait = nullcontext
    ) -> None:
        self._stage = _Stage(items, limit, name, wait)

    def next(self) -> Item | None:
        """The next item, or None after the last; an error of the producer is raised here, once."""
        if self._stage.is_over:
            return None
        item = self._stage.take()
        return None if isinstance(item, _End) else item  # type: ignore[return-value]

    def close(self) -> None:
        """Let the thread end, and wait until it has."""
        self._stage.stop()

    def __del__(self) -> None:
        self._stage.ask_to_stop()
        self._stage.drain()


class Ahead(Generic[Item]):
    """The result of one call that works in a thread of its own.

    Who does not wait for it, as after an interrupt, leaves it to end by itself.

    Args:
        call: is begun at once.
        name: of the thread.

    Example:
        >>> Ahead(lambda: 6 * 7, "product").result()
        42
    """

    def __init__(self, call: Callable[[], Item], name: str) -> None:
        self._call = call
        self._found: list[Item] = []
        self._error: BaseException | None = None
        # A daemon, so that an interpreter that exits does not wait for it. It has the cores that
        # its caller has.
        run = copy_context().run
        self._thread = threading.Thread(target=run, args=(self._work,), name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._found.append(self._call())
        except BaseException as error:
            self._error = error

    def result(self) -> Item:
        """Wait for it; an error of the call is raised here."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found[0]
