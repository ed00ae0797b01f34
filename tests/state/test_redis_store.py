"""State in a real Valkey."""

import socket
import threading
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from app.core.counters import LimitReached, UsageRequest
from app.core.limits import Limits
from app.state.meter import Charge, Meter, Reservation
from app.state.redis_store import RedisClient, RedisCounters, RedisUnavailable
from tests.threads import run_threads

from ..valkey import Valkey
from .conftest import FakeTime

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()


def claim(tokens: int = 0, **limits: Any) -> UsageRequest:
    return UsageRequest("key:a", Limits.of(limits), tokens)


def reserve(meter: Meter, mine: UsageRequest) -> Reservation:
    (reserved,) = meter.reserve([mine], NOON)
    return reserved


def passes(meter: Meter, mine: UsageRequest, now: float = NOON) -> bool:
    try:
        meter.reserve([mine], now)
    except LimitReached:
        return False
    return True


def used(meter: Meter, name: str) -> int:
    """The counted use, read from a refusal."""
    with pytest.raises(LimitReached) as raised:
        meter.reserve([claim(10**9, **{name: 0})], NOON)
    return raised.value.used


def unsettled(valkey: Valkey) -> int:
    """How many reservations Redis holds."""
    with valkey.client() as client:
        return len(client.keys("lastword:reservation:*"))


# Stored state


def test_each_operation_is_one_round_trip(
    valkey: Valkey,
) -> None:
    with closing(RedisClient(valkey.url)) as client:
        meter = Meter(RedisCounters(client))
        mine = [
            claim(5, tokens_per_day=9, requests_per_minute=9, requests_in_parallel=9),
            UsageRequest("virtual-key:v", Limits(tokens_per_minute=9), 5),
        ]

        def reserve_and_settle() -> None:
            for reserved in meter.reserve(mine, NOON):
                meter.settle([Charge(reserved, 1)], NOON)

        reserve_and_settle()
        valkey.clear()
        for _ in range(3):
            reserve_and_settle()

    # The commands that scripts call are not sent over the network.
    calls = valkey.calls()
    assert calls["evalsha"] == 3 * (1 + 2)
    assert not {"eval", "script|load", "get", "multi", "watch"} & set(calls)


def test_all_keys_expire(valkey: Valkey) -> None:
    valkey.clear()
    limits = {"tokens_per_minute": 9, "tokens_per_month": 9, "requests_in_parallel": 2}
    with closing(RedisClient(valkey.url)) as client:
        meter = Meter(RedisCounters(client))
        meter.settle([Charge(reserve(meter, claim(2, **limits)), 1)], NOON)
        reserve(meter, claim(2, **limits))
        meter.settle([Charge(reserve(meter, claim(2, **limits)), 3)], NOON + 90)
    with valkey.client() as client:
        left = {key.decode(): client.ttl(key) for key in client.keys()}

    assert all(seconds > 0 for seconds in left.values())
    assert all(key.startswith("lastword:") for key in left)
    assert left["lastword:counter:key:a:tokens_per_minute"] <= 66
    assert left["lastword:counter:key:a:tokens_per_month"] <= 7 * 86400
    assert sum(key.startswith("lastword:reservation:") for key in left) == 1


def test_expired_counter_entries_are_removed(valkey: Valkey) -> None:
    valkey.clear()
    with closing(RedisClient(valkey.url)) as client:
        meter = Meter(RedisCounters(client))
        for seconds in range(0, 600, 10):
            passes(meter, claim(requests_per_minute=99), NOON + seconds)
    with valkey.client() as client:
        entries = client.hlen("lastword:counter:key:a:requests_per_minute")

    assert entries == 7


def test_gateways_share_limits(valkey: Valkey) -> None:
    valkey.clear()
    with closing(RedisClient(valkey.url)) as one, closing(
        RedisClient(valkey.url)
    ) as two:
        meters = [Meter(RedisCounters(client)) for client in (one, two)]
        passed: list[bool] = []

        def reserve_20(meter: Meter) -> None:
            mine = claim(requests_per_minute=100)
            passed.extend(passes(meter, mine) for _ in range(20))

        threads = [
            threading.Thread(target=reserve_20, args=(meters[n % 2],))
            for n in range(20)
        ]
        run_threads(threads)

    assert (len(passed), sum(passed)) == (400, 100)


def test_requests_wait_for_free_connection(
    valkey: Valkey,
) -> None:
    valkey.clear()
    passed: list[bool] = []
    with closing(RedisClient(valkey.url)) as client:
        meter = Meter(RedisCounters(client))

        def reserve() -> None:
            passed.append(passes(meter, claim(requests_per_minute=100)))

        threads = [threading.Thread(target=reserve) for _ in range(150)]
        run_threads(threads)
        with valkey.client() as client:
            connected = client.info("clients")["connected_clients"]

    assert (len(passed), sum(passed)) == (150, 100)
    assert connected <= 64 + 2


# A hanging Redis


def accepted(server: socket.socket) -> int:
    """How many connections wait to be accepted."""
    server.setblocking(False)
    count = 0
    try:
        while True:
            server.accept()[0].close()
            count += 1
    except BlockingIOError:
        return count


def test_hanging_redis_is_tried_once_a_second() -> None:
    """It accepts connections and never answers."""
    clock = FakeTime()
    with socket.create_server(("127.0.0.1", 0), backlog=20) as server:
        client = RedisClient(f"redis://127.0.0.1:{server.getsockname()[1]}", clock)
        counters, tried = RedisCounters(client), []
        for now in (0, 0, 0.9, 1.1, 1.1, 2.0):
            clock.now = now
            with pytest.raises(RedisUnavailable) as raised:
                counters.reserve("id", (), NOON)
            tried.append(raised.value.maybe_executed)
        client.close()

        assert tried == [True, False, False, True, False, False]
        assert accepted(server) == 2


def test_concurrent_callers_share_one_retry() -> None:
    clock = FakeTime()
    with socket.create_server(("127.0.0.1", 0), backlog=20) as server:
        client = RedisClient(f"redis://127.0.0.1:{server.getsockname()[1]}", clock)
        counters, tried = RedisCounters(client), []

        def reserve() -> None:
            with pytest.raises(RedisUnavailable) as raised:
                counters.reserve("id", (), NOON)
            tried.append(raised.value.maybe_executed)

        reserve()
        clock.now = 1
        threads = [threading.Thread(target=reserve) for _ in range(10)]
        run_threads(threads)
        client.close()

        assert sum(tried) == 2
        assert accepted(server) == 2
