"""State in a real Valkey, and what is done when it is away."""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.core.limits import Claim, LimitReached, Limits
from app.core.routing import BreakerPolicy, Target
from app.state.breaker import SharedBreaker
from app.state.limits import CountingMeter
from app.state.local import LocalCircuits, LocalCounters, LocalFile
from app.state.redis import (
    Away,
    FailoverCircuits,
    FailoverCounters,
    Link,
    RedisCircuits,
    RedisCounters,
)

from ..e2e.server import eventually
from ..valkey import Valkey, running

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
AWAY = "Redis is away: this machine keeps its own limits"


class FakeTime:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def mortal() -> Iterator[Valkey]:
    """One of this test alone, which may do with it what it likes."""
    yield from running()


class Gateway:
    """What a gateway has: Redis, and a file for when that is away."""

    def __init__(self, url: str, path: Path) -> None:
        self.clock = FakeTime()
        self.link, self.file = Link(url, self.clock), LocalFile(path)
        local = LocalCounters(self.file)
        counters = FailoverCounters(RedisCounters(self.link), local)
        circuits = FailoverCircuits(RedisCircuits(self.link), LocalCircuits(self.file))
        self.meter, self.local = CountingMeter(counters), CountingMeter(local)
        self.breaker = SharedBreaker(circuits)

    def close(self) -> None:
        self.link.close()
        self.file.close()


@pytest.fixture
def gateway(mortal: Valkey, tmp_path: Path) -> Iterator[Gateway]:
    with closing(Gateway(mortal.url, tmp_path / "limits.db")) as gateway:
        yield gateway


def claim(tokens: int = 0, **limits: Any) -> Claim:
    return Claim("key:a", Limits.of(limits), tokens)


def passes(meter: CountingMeter, mine: Claim, now: float = NOON) -> bool:
    try:
        meter.reserve([mine], now)
    except LimitReached:
        return False
    return True


def used(meter: CountingMeter, name: str) -> int:
    """What is counted, as a refusal says."""
    with pytest.raises(LimitReached) as raised:
        meter.reserve([claim(10**9, **{name: 0})], NOON)
    return raised.value.used


# What is stored


def test_a_reservation_and_its_end_are_one_round_trip_each(
    limits_valkey: Valkey,
) -> None:
    with closing(Link(limits_valkey.url)) as link:
        meter = CountingMeter(RedisCounters(link))
        mine = [
            claim(5, tokens_per_day=9, requests_per_minute=9, requests_in_parallel=9),
            Claim("virtual-key:v", Limits(tokens_per_minute=9), 5),
        ]
        meter.settle(meter.reserve(mine, NOON), 1, None, NOON)
        limits_valkey.clear()
        for _ in range(3):
            meter.settle(meter.reserve(mine, NOON), 1, None, NOON)

    # Scripts call commands, which come over no network.
    calls = limits_valkey.calls()
    assert calls["evalsha"] == 6
    assert not {"eval", "script|load", "get", "multi", "watch"} & set(calls)


def test_all_that_is_stored_expires(limits_valkey: Valkey) -> None:
    limits_valkey.clear()
    limits = {"tokens_per_minute": 9, "tokens_per_month": 9, "requests_in_parallel": 2}
    with closing(Link(limits_valkey.url)) as link:
        meter = CountingMeter(RedisCounters(link))
        meter.settle(meter.reserve([claim(2, **limits)], NOON), 1, None, NOON)
        meter.reserve([claim(2, **limits)], NOON)
        meter.settle(meter.reserve([claim(2, **limits)], NOON), 3, None, NOON + 90)
        SharedBreaker(RedisCircuits(link)).leave(
            Target("p", identity="t", breaker=BreakerPolicy(failure_threshold=1)), 500
        )
    with limits_valkey.client() as client:
        left = {key.decode(): client.ttl(key) for key in client.keys()}

    assert all(seconds > 0 for seconds in left.values())
    assert all(key.startswith("lastword:") for key in left)
    assert left["lastword:counter:key:a:tokens_per_minute"] <= 66
    assert left["lastword:counter:key:a:tokens_per_month"] <= 7 * 86400
    assert sum(key.startswith("lastword:reservation:") for key in left) == 1


def test_expired_entries_of_a_counter_in_use_are_removed(limits_valkey: Valkey) -> None:
    limits_valkey.clear()
    with closing(Link(limits_valkey.url)) as link:
        meter = CountingMeter(RedisCounters(link))
        for seconds in range(0, 600, 10):
            passes(meter, claim(requests_per_minute=99), NOON + seconds)
    with limits_valkey.client() as client:
        entries = client.hlen("lastword:counter:key:a:requests_per_minute")

    assert entries == 7


def test_two_gateways_on_one_redis_share_limits(limits_valkey: Valkey) -> None:
    limits_valkey.clear()
    with closing(Link(limits_valkey.url)) as one, closing(
        Link(limits_valkey.url)
    ) as two:
        meters = [CountingMeter(RedisCounters(link)) for link in (one, two)]
        passed: list[bool] = []

        def ask(meter: CountingMeter) -> None:
            mine = claim(requests_per_minute=100)
            passed.extend(passes(meter, mine) for _ in range(20))

        threads = [
            threading.Thread(target=ask, args=(meters[n % 2],)) for n in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert (len(passed), sum(passed)) == (400, 100)


def test_more_requests_than_connections_wait_for_their_turn(
    limits_valkey: Valkey,
) -> None:
    limits_valkey.clear()
    passed: list[bool] = []
    with closing(Link(limits_valkey.url)) as link:
        meter = CountingMeter(RedisCounters(link))

        def ask() -> None:
            passed.append(passes(meter, claim(requests_per_minute=100)))

        threads = [threading.Thread(target=ask) for _ in range(150)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with limits_valkey.client() as client:
            connected = client.info("clients")["connected_clients"]

    assert (len(passed), sum(passed)) == (150, 100)
    assert connected <= 64 + 2


# While it is away


def test_a_redis_that_is_killed_under_load_is_done_without(
    gateway: Gateway, mortal: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Eight threads go on all the time, while it is killed and comes back."""
    mine = claim(3, tokens_per_day=10**6, requests_in_parallel=100)
    failures: list[Exception] = []
    done, over = [0] * 8, threading.Event()

    def ask(at: int) -> None:
        try:
            while not over.is_set():
                reserved = gateway.meter.reserve([mine], NOON)
                gateway.meter.settle(reserved, 1, None, NOON)
                done[at] += 1
        except Exception as e:
            failures.append(e)

    def all_go_on() -> None:
        before = list(done)
        eventually(lambda: all(n > b + 5 for n, b in zip(done, before, strict=True)))

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(8)]
    with caplog.at_level(logging.WARNING, "lastword"):
        for thread in threads:
            thread.start()
        all_go_on()
        mortal.kill()
        all_go_on()
        gateway.clock.now = 30
        all_go_on()
        gateway.clock.now = 60.5
        all_go_on()
        mortal.restart()
        gateway.clock.now = 70
        all_go_on()
        over.set()
        for thread in threads:
            thread.join()

    assert failures == []
    assert caplog.messages == [AWAY, AWAY, "Redis is back"]
    # What was drawn where is settled where, once.
    assert used(gateway.meter, "tokens_per_day") > 0
    assert used(gateway.local, "tokens_per_day") > 0
    assert used(gateway.local, "requests_in_parallel") == 0


def test_without_redis_limits_are_those_of_the_machine(
    gateway: Gateway, mortal: Valkey
) -> None:
    mine = claim(requests_per_minute=2)
    assert [passes(gateway.meter, mine) for _ in range(3)] == [True, True, False]
    mortal.kill()
    assert [passes(gateway.meter, mine) for _ in range(3)] == [True, True, False]
    mortal.restart()
    gateway.clock.now = 1

    assert [passes(gateway.meter, mine) for _ in range(3)] == [True, True, False]


def test_what_could_not_be_settled_is_settled_when_redis_is_back(
    gateway: Gateway, mortal: Valkey
) -> None:
    limits = {"tokens_per_day": 100, "requests_in_parallel": 9}
    reserved = [gateway.meter.reserve([claim(20, **limits)], NOON) for _ in range(3)]
    mortal.hold()
    for each in reserved:
        gateway.meter.settle(each, 1, None, NOON)
    mortal.go_on()
    gateway.clock.now = 1
    gateway.meter.reserve([claim(0, **limits)], NOON)

    assert used(gateway.meter, "tokens_per_day") == 3
    assert used(gateway.meter, "requests_in_parallel") == 1


def test_a_draw_of_which_nobody_has_heard_is_taken_back(
    gateway: Gateway, mortal: Valkey
) -> None:
    """Redis got it, and makes it when everybody has turned away."""
    limits = {"tokens_per_day": 100, "requests_in_parallel": 9}
    gateway.meter.reserve([claim(7, **limits)], NOON)
    mortal.hold()
    gateway.meter.reserve([claim(50, **limits)], NOON)
    mortal.go_on()
    gateway.clock.now = 1
    gateway.meter.reserve([claim(0, **limits)], NOON)

    assert used(gateway.meter, "tokens_per_day") == 7
    assert used(gateway.meter, "requests_in_parallel") == 2
    assert used(gateway.local, "tokens_per_day") == 50


def test_a_redis_that_has_forgotten_everything_is_owed_nothing(
    gateway: Gateway, mortal: Valkey
) -> None:
    limits = {"tokens_per_day": 100}
    reserved = gateway.meter.reserve([claim(20, **limits)], NOON)
    mortal.kill()
    gateway.meter.settle(reserved, 50, None, NOON)
    mortal.restart()
    gateway.clock.now = 1
    gateway.meter.reserve([claim(1, **limits)], NOON)

    assert used(gateway.meter, "tokens_per_day") == 1


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


def test_a_redis_that_hangs_is_asked_once_a_second() -> None:
    """It accepts connections, and never says a word."""
    clock = FakeTime()
    with socket.create_server(("127.0.0.1", 0), backlog=20) as server:
        link = Link(f"redis://127.0.0.1:{server.getsockname()[1]}", clock)
        counters, asked = RedisCounters(link), []
        for now in (0, 0, 0.9, 1.1, 1.1, 2.0):
            clock.now = now
            with pytest.raises(Away) as raised:
                counters.draw("id", (), NOON)
            asked.append(raised.value.asked)
        link.close()

        assert asked == [True, False, False, True, False, False]
        assert accepted(server) == 2


def test_what_redis_refuses_to_do_counts_as_away(
    gateway: Gateway, mortal: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a write, when it is the replica of another one."""
    with mortal.client() as client:
        client.replicaof("127.0.0.1", 1)
    mine = claim(requests_per_minute=1)
    with caplog.at_level(logging.WARNING, "lastword"):
        passed = [passes(gateway.meter, mine) for _ in range(2)]

    assert passed == [True, False]
    assert caplog.messages == [AWAY]


def test_a_redis_that_was_restarted_between_two_calls_is_not_missed(
    gateway: Gateway, mortal: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    passes(gateway.meter, claim(requests_per_minute=1))
    mortal.kill()
    mortal.restart()
    with caplog.at_level(logging.WARNING, "lastword"):
        passes(gateway.meter, claim(requests_per_minute=1))

    assert used(gateway.meter, "requests_per_minute") == 1
    assert caplog.messages == []


def test_a_breaker_goes_on_without_redis(gateway: Gateway, mortal: Valkey) -> None:
    target = Target("p", identity="t", breaker=BreakerPolicy(failure_threshold=1))
    gateway.breaker.enter(target)
    gateway.breaker.leave(target, 500)
    assert not gateway.breaker.available(target)
    mortal.kill()
    assert gateway.breaker.available(target)
    gateway.breaker.enter(target)
    gateway.breaker.leave(target, 500)

    assert not gateway.breaker.available(target)
