"""Parallel calls: order, limits, failures, and cleanup."""

import threading
import time
from collections.abc import Iterator

import pytest

from app.gateway.streaming.fanout import EndOfProducer, Fanout, gather


def fanout_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "fanout"]


def items(received: list[tuple[int, str | EndOfProducer]]) -> list[tuple[int, str]]:
    return [(n, item) for n, item in received if not isinstance(item, EndOfProducer)]


def gone(seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while fanout_threads() and time.monotonic() < until:
        time.sleep(0.005)
    return not fanout_threads()


def test_results_keep_source_order() -> None:
    second_is_done = threading.Event()

    def first() -> str:
        assert second_is_done.wait(5)
        return "first"

    def second() -> str:
        second_is_done.set()
        return "second"

    assert gather([first, second], limit=2) == ["first", "second"]
    assert gone()


def test_limit_bounds_concurrency() -> None:
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


def test_first_failure_stops_the_rest() -> None:
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


def test_items_arrive_as_produced() -> None:
    turn = threading.Event()

    def slow() -> Iterator[str]:
        yield "a"
        assert turn.wait(5)
        yield "c"

    def quick() -> Iterator[str]:
        yield "b"

    fan = Fanout([slow, quick], limit=2)
    first: set[tuple[int, str]] = set()
    while len(first) < 2:
        first |= set(items(fan.receive()))
    assert first == {(0, "a"), (1, "b")}
    turn.set()
    rest: list[tuple[int, str]] = []
    while not fan.done:
        rest += items(fan.receive())
    assert rest == [(0, "c")]
    assert gone()


def test_close_ends_every_waiting_thread() -> None:
    """Also where more of them wait for room than the queue usually has."""

    def endless() -> Iterator[str]:
        while True:
            yield "more"

    fan = Fanout([endless] * 200, limit=200)
    time.sleep(0.05)
    fan.close()

    assert gone()


def test_receive_returns_at_deadline() -> None:
    go_on = threading.Event()

    def slow() -> Iterator[str]:
        assert go_on.wait(5)
        yield "late"

    fan = Fanout([slow], limit=1)
    assert fan.receive(time.monotonic() + 0.02) == []
    go_on.set()
    assert items(fan.receive()) == [(0, "late")]


def test_items_precede_later_failure() -> None:
    def fails() -> Iterator[str]:
        yield "good"
        raise LookupError("boom")

    fan = Fanout([fails], limit=1)
    assert gone()
    assert items(fan.receive()) == [(0, "good")]
    with pytest.raises(LookupError, match="boom"):
        fan.receive()


def test_close_stops_endless_sources() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    fan = Fanout([endless] * 4, limit=4)
    fan.receive()
    fan.close()

    assert gone()


def test_slow_reader_applies_backpressure() -> None:
    produced = 0

    def eager() -> Iterator[int]:
        nonlocal produced
        for produced in range(10_000):  # noqa: B007 - the count is what is looked at
            yield produced

    fan = Fanout([eager], limit=1)
    fan.receive()
    time.sleep(0.05)

    assert produced < 200
    fan.close()
    assert gone()
