"""A stage that runs ahead in its own thread: order, errors, back-pressure, clean stops."""

import gc
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from lipsync_nb.pipeline.prefetch import Ahead, prefetch, prefetch_in_turn


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
    assert list(prefetch(source, limit, "ahead-order")) == list(range(50))
    assert source.closed_in == "ahead-order"
    assert "ahead-order" not in names()


def test_an_error_comes_after_the_items_before_it() -> None:
    items = prefetch(Source(10, fails_at=3), 5, "ahead-error")
    assert [next(items), next(items), next(items)] == [0, 1, 2]
    with pytest.raises(ValueError, match="broken source"):
        next(items)
    assert "ahead-error" not in names()


def test_a_slow_consumer_holds_the_producer_back() -> None:
    source = Source(1000)
    items = prefetch(source, 2, "ahead-slow")
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
    items = prefetch(source, 2, "ahead-abandoned")
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
        with closing(prefetch(source, 2, "ahead-first")) as numbers:
            yield from (2 * number for number in numbers)

    second = prefetch(doubled(), 2, "ahead-second")
    assert next(second) == 0
    second.close()
    assert source.closed_in == "ahead-first"
    assert not {"ahead-first", "ahead-second"} & set(names())


def test_an_interrupt_in_the_consumer_stops_the_producer() -> None:
    source = Source(10_000)

    def consume() -> None:
        for number in prefetch(source, 2, "ahead-interrupt"):
            if number == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    gc.collect()
    assert source.made < 100
    assert "ahead-interrupt" not in names()


@pytest.mark.parametrize("streams", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [0, 1, 6, 20])
def test_streams_take_turns(streams: int, total: int) -> None:
    parts = {f"side-{k}": range(k, total, streams) for k in range(streams)}
    assert list(prefetch_in_turn(parts, 2)) == list(range(total))
    assert not [name for name in names() if name.startswith("side-")]


def test_streams_begin_together_and_stop_together() -> None:
    """All threads are at work once the first item is there; closing ends every one of them."""
    sources = {f"side-{k}": Source(10_000) for k in range(3)}
    items = prefetch_in_turn(sources, 2)
    assert not set(sources) & set(names())
    next(items)
    assert set(sources) <= set(names())
    items.close()
    assert not set(sources) & set(names())
    assert [source.closed_in for source in sources.values()] == list(sources)
    assert max(source.made for source in sources.values()) < 10


def test_an_error_in_one_stream_stops_the_others() -> None:
    sources = {"side-good": Source(10_000), "side-bad": Source(10_000, fails_at=2)}
    found = []
    with pytest.raises(ValueError, match="broken source"):
        found.extend(prefetch_in_turn(sources, 1))
    items = prefetch_in_turn({"side-good": Source(9), "side-bad": Source(9, fails_at=2)}, 1)
    assert [next(items) for _ in range(5)] == [0, 0, 1, 1, 2]
    with pytest.raises(ValueError, match="broken source"):
        next(items)
    assert not {"side-good", "side-bad"} & set(names())
    assert sources["side-good"].closed_in == "side-good"


def test_a_call_ahead_works_beside_its_caller() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def work() -> int:
        begun.set()
        assert may_end.wait(10)
        return 42

    ahead = Ahead(work, "ahead-call")
    assert begun.wait(10)
    may_end.set()
    assert ahead.result() == ahead.result() == 42


def test_an_error_of_a_call_ahead_is_raised_where_it_is_waited_for() -> None:
    def work() -> int:
        raise LookupError("nothing there")

    ahead = Ahead(work, "ahead-error")
    with pytest.raises(LookupError, match="nothing there"):
        ahead.result()
