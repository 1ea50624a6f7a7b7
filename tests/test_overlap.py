"""A stage that runs ahead in its own thread: order, errors, back-pressure, clean stops."""

import gc
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from lipsync_nb.overlap import run_ahead


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


class Source:
    """Counts up; notes how far it came, and whether it was closed."""

    def __init__(self, total: int, fails_at: int = -1) -> None:
        self.made, self.closed_in = 0, ""
        self.total, self.fails_at = total, fails_at

    def __iter__(self) -> Iterator[int]:
        try:
            for number in range(self.total):
                if number == self.fails_at:
                    raise ValueError("broken source")
                self.made = number + 1
                yield number
        finally:
            self.closed_in = threading.current_thread().name


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_items_come_in_order_and_the_thread_ends(limit: int) -> None:
    source = Source(50)
    assert list(run_ahead(source, limit, "ahead-order")) == list(range(50))
    assert source.closed_in == "ahead-order"
    assert "ahead-order" not in names()


def test_an_error_comes_after_the_items_before_it() -> None:
    items = run_ahead(Source(10, fails_at=3), 5, "ahead-error")
    assert [next(items), next(items), next(items)] == [0, 1, 2]
    with pytest.raises(ValueError, match="broken source"):
        next(items)
    assert "ahead-error" not in names()


def test_a_slow_consumer_holds_the_producer_back() -> None:
    source = Source(1000)
    items = run_ahead(source, 2, "ahead-slow")
    most = 0
    for number in items:
        # Two wait, one is in the producer's hands, one was just taken.
        most = max(most, source.made - number)
        if number == 50:
            break
    assert most <= 4
    items.close()


@pytest.mark.parametrize("how", ["close", "drop"])
def test_an_abandoned_iterator_stops_the_producer(how: str) -> None:
    source = Source(10_000)
    items = run_ahead(source, 2, "ahead-abandoned")
    next(items)
    if how == "close":
        items.close()
    del items
    gc.collect()
    assert source.closed_in == "ahead-abandoned"
    assert source.made < 100
    assert "ahead-abandoned" not in names()


def test_stages_in_a_row_all_stop() -> None:
    source = Source(10_000)

    def doubled() -> Iterator[int]:
        with closing(run_ahead(source, 2, "ahead-first")) as numbers:
            yield from (2 * number for number in numbers)

    second = run_ahead(doubled(), 2, "ahead-second")
    assert next(second) == 0
    second.close()
    assert source.closed_in == "ahead-first"
    assert not {"ahead-first", "ahead-second"} & set(names())


def test_an_interrupt_in_the_consumer_stops_the_producer() -> None:
    source = Source(10_000)

    def consume() -> None:
        for number in run_ahead(source, 2, "ahead-interrupt"):
            if number == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    gc.collect()
    assert source.made < 100
    assert "ahead-interrupt" not in names()
