"""What takes long before the first frame, told to whoever waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Step:
    """How far a step is: what is done, items done of those in all, and seconds since its start."""

    what: str
    done: int
    total: int
    elapsed_seconds: float

    @property
    def text(self) -> str:
        """As a line: ``calibrating int8: 12 of 32, 3 s to go``."""
        left = self.elapsed_seconds / self.done * (self.total - self.done) if self.done else None
        to_go = "" if left is None else f", {left:.0f} s to go"
        return f"{self.what}: {self.done} of {self.total}{to_go}"


StepListener = Callable[[Step], None]
_listener: ContextVar[StepListener | None] = ContextVar("step_listener", default=None)


@contextmanager
def steps_told_to(listener: StepListener) -> Iterator[None]:
    """Entered while something is opened: its steps are told, in whichever thread they are done.

    What the listener raises ends the step; an `Exception` may be taken for the step's own failure.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell_step(step: Step) -> None:
    """Tell whoever listens."""
    listener = _listener.get()
    if listener is not None:
        listener(step)


def told(what: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    """The items; whoever listens is told of each one that was used.

    Example:
        >>> with steps_told_to(lambda step: print(step.what, step.done, "of", step.total)):
        ...     sum(told("adding", [3, 4], 2))
        adding 1 of 2
        adding 2 of 2
        7
    """
    listener, start = _listener.get(), time.perf_counter()
    for number, item in enumerate(items, 1):
        yield item
        if listener is not None:
            listener(Step(what, number, total, time.perf_counter() - start))
