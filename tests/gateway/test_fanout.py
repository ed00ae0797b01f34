"""Calls side by side: order, limits, failures, and nothing left running."""

import threading
import time
from collections.abc import Iterator

import pytest

from app.gateway.streaming.fanout import Fanout, gather


def fanout_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "fanout"]


def gone(seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while fanout_threads() and time.monotonic() < until:
        time.sleep(0.005)
    return not fanout_threads()


def test_results_come_in_the_order_of_their_sources() -> None:
    second_is_done = threading.Event()

    def first() -> str:
        assert second_is_done.wait(5)
        return "first"

    def second() -> str:
        second_is_done.set()
        return "second"

    assert gather([first, second], limit=2) == ["first", "second"]
    assert gone()


def test_no_more_run_at_a_time_than_the_limit() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    assert gather([work] * 12, limit=3) == [None] * 12
    assert most == 3


def test_the_first_failure_is_raised_at_once_and_stops_the_rest() -> None:
    started: list[int] = []
    never = threading.Event()

    def fails() -> None:
        raise LookupError("boom")

    def waits() -> None:
        never.wait(5)

    def late() -> None:
        started.append(1)

    with pytest.raises(LookupError, match="boom"):
        gather([waits, fails, late, late], limit=2)
    never.set()
    assert gone()
    assert started == []


def test_items_of_all_sources_come_as_they_are_made() -> None:
    turn = threading.Event()

    def slow() -> Iterator[str]:
        yield "a"
        assert turn.wait(5)
        yield "c"

    def quick() -> Iterator[str]:
        yield "b"

    fan = Fanout([slow, quick], limit=2)
    items = iter(fan)
    assert {next(items), next(items)} == {(0, "a"), (1, "b")}
    turn.set()
    assert list(items) == [(0, "c")]
    assert gone()


def test_a_reader_that_leaves_stops_endless_sources() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    fan = Fanout([endless] * 4, limit=4)
    next(iter(fan))
    fan.close()

    assert gone()


def test_a_slow_reader_holds_its_sources_back() -> None:
    made = 0

    def eager() -> Iterator[int]:
        nonlocal made
        for made in range(10_000):  # noqa: B007 - the count is what is looked at
            yield made

    fan = Fanout([eager], limit=1)
    next(iter(fan))
    time.sleep(0.05)

    assert made < 100
    fan.close()
    assert gone()
