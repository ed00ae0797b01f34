"""Counters in Redis, and local counters while Redis is unavailable."""

import logging
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app import create_app
from app.core.counters import PriorUsage, UsageRequest
from app.core.limits import Limits
from app.core.routing import BreakerPolicy, Target
from app.settings import Settings
from app.state.meter import Charge, Reservation
from app.state.redis_store import RedisClient
from tests.threads import run_threads

from ..e2e.server import ROOT, eventually
from ..valkey import Valkey
from .conftest import FakeTime, Gateway
from .test_redis_store import NOON, claim, passes, reserve, unsettled, used

AWAY = "Redis is away: this machine keeps its own limits"


@pytest.fixture
def gateway(mortal: Valkey, tmp_path: Path) -> Iterator[Gateway]:
    with closing(Gateway.open(mortal.url, tmp_path / "limits.db")) as gateway:
        yield gateway


def wait_until_available(gateway: Gateway) -> None:
    """Wait until the background writer, which has pending commands, reaches Redis."""

    def is_available() -> bool:
        gateway.clock.now += 1
        return not gateway.client.is_unavailable

    eventually(is_available)


# Round trips


class CountingClient(RedisClient):
    """Counts the round trips of each thread."""

    def __init__(self, url: str, clock: FakeTime) -> None:
        super().__init__(url, clock)
        self.round_trips: Counter[str] = Counter()

    def execute(self, command: Callable[[Any], Any], *failures: Any) -> Any:
        self.round_trips[threading.current_thread().name] += 1
        return super().execute(command, *failures)


@pytest.fixture
def counting(valkey: Valkey, tmp_path: Path) -> Iterator[Gateway]:
    valkey.clear()
    clock = FakeTime()
    client = CountingClient(valkey.url, clock)
    with closing(Gateway(client, tmp_path / "limits.db", clock)) as gateway:
        yield gateway


def request(gateway: Gateway, key: UsageRequest, virtual_key: UsageRequest) -> None:
    """Reserve and settle like a request."""
    of_key, of_virtual_key = gateway.meter.reserve([key, virtual_key], NOON)
    gateway.meter.settle([Charge(of_virtual_key, 1), Charge(of_key, 1)], NOON)


@pytest.mark.parametrize(
    ("limits", "trips"),
    [({}, 1), ({"requests_in_parallel": 9}, 2)],
    ids=["alone", "in parallel"],
)
def test_request_waits_for_one_round_trip(
    counting: Gateway, valkey: Valkey, limits: dict[str, int], trips: int
) -> None:
    key = claim(20, tokens_per_day=10**6, requests_per_minute=99, **limits)
    virtual_key = UsageRequest("virtual-key:v", Limits(tokens_per_minute=10**6), 20)
    # The first request of a process also loads the scripts.
    request(counting, key, virtual_key)
    counting.client.round_trips.clear()

    def send_requests() -> None:
        for _ in range(10):
            request(counting, key, virtual_key)

    names = [f"requests {number}" for number in range(5)]
    threads = [threading.Thread(target=send_requests, name=name) for name in names]
    run_threads(threads)

    round_trips = counting.client.round_trips
    assert [round_trips[name] for name in names] == [10 * trips] * 5
    assert set(round_trips) <= {*names, "background-writer"}
    eventually(lambda: not unsettled(valkey))
    assert used(counting.meter, "tokens_per_day") == 51


def test_slot_is_free_for_next_request(gateway: Gateway) -> None:
    """The slot is free as soon as the request is settled."""
    mine = claim(9, requests_in_parallel=1, tokens_per_day=10**6)
    for _ in range(100):
        gateway.meter.settle([Charge(reserve(gateway.meter, mine), 1)], NOON)


# Redis is unavailable


def test_requests_survive_redis_killed_under_load(
    gateway: Gateway, mortal: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Eight threads continue while Redis is killed and restarted."""
    mine = claim(3, tokens_per_day=10**6, requests_in_parallel=100)
    failures: list[Exception] = []
    done, over = [0] * 8, threading.Event()

    def send_requests(at: int) -> None:
        try:
            while not over.is_set():
                gateway.meter.settle([Charge(reserve(gateway.meter, mine), 1)], NOON)
                done[at] += 1
        except Exception as e:
            failures.append(e)

    def all_go_on() -> None:
        before = list(done)
        eventually(lambda: all(n > b + 5 for n, b in zip(done, before, strict=True)))

    threads = [threading.Thread(target=send_requests, args=(at,)) for at in range(8)]
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
    # A reservation is settled once, in the store where it was made.
    assert used(gateway.meter, "tokens_per_day") > 0
    assert used(gateway.local, "tokens_per_day") > 0
    assert used(gateway.local, "requests_in_parallel") == 0


def test_machine_counts_while_redis_is_unavailable(
    gateway: Gateway, mortal: Valkey
) -> None:
    mine = claim(requests_per_minute=2)
    assert [passes(gateway.meter, mine) for _ in range(3)] == [True, True, False]
    mortal.kill()
    assert [passes(gateway.meter, mine) for _ in range(3)] == [True, True, False]
    mortal.restart()
    gateway.clock.now = 1

    assert [passes(gateway.meter, mine) for _ in range(3)] == [True, True, False]


def test_settlement_waits_until_redis_is_available(
    gateway: Gateway, mortal: Valkey
) -> None:
    limits = {"tokens_per_day": 100, "requests_in_parallel": 9}
    reserved = [reserve(gateway.meter, claim(20, **limits)) for _ in range(3)]
    mortal.hold()
    for each in reserved:
        gateway.meter.settle([Charge(each, 1)], NOON)
    mortal.go_on()
    wait_until_available(gateway)
    eventually(lambda: not unsettled(mortal))

    assert used(gateway.meter, "tokens_per_day") == 3
    assert used(gateway.meter, "requests_in_parallel") == 0


def test_unanswered_reservation_is_undone(gateway: Gateway, mortal: Valkey) -> None:
    """Redis received the command, and executes it after the client has given up."""
    limits = {"tokens_per_day": 100, "requests_in_parallel": 9}
    reserve(gateway.meter, claim(7, **limits))
    mortal.hold()
    reserve(gateway.meter, claim(50, **limits))
    mortal.go_on()
    eventually(lambda: unsettled(mortal) == 2)
    wait_until_available(gateway)
    eventually(lambda: unsettled(mortal) == 1)

    assert used(gateway.meter, "tokens_per_day") == 7
    assert used(gateway.meter, "requests_in_parallel") == 1
    assert used(gateway.local, "tokens_per_day") == 50


def add(gateway: Gateway, mine: UsageRequest, first: Reservation) -> Reservation:
    return reserve(gateway.meter, replace(mine, prior=PriorUsage(first.entries)))


def test_local_addition_is_settled_locally(gateway: Gateway, mortal: Valkey) -> None:
    first = reserve(gateway.meter, claim(20, tokens_per_day=100))
    mortal.kill()
    second = add(gateway, claim(50, tokens_per_day=100), first)
    assert used(gateway.local, "tokens_per_day") == 30
    gateway.meter.settle([Charge(first, 40, None, [second])], NOON)

    assert used(gateway.local, "tokens_per_day") == 30


def test_unanswered_addition_is_undone_alone(gateway: Gateway, mortal: Valkey) -> None:
    """Earlier reservations stay until the request is settled."""
    mine = claim(20, tokens_per_day=100)
    first = reserve(gateway.meter, mine)
    mortal.hold()
    second = add(gateway, replace(mine, tokens=50), first)
    mortal.go_on()
    eventually(lambda: unsettled(mortal) == 2)
    wait_until_available(gateway)
    eventually(lambda: unsettled(mortal) == 1)
    assert used(gateway.meter, "tokens_per_day") == 20
    gateway.meter.settle([Charge(first, 5, None, [second])], NOON)
    eventually(lambda: not unsettled(mortal))

    assert used(gateway.meter, "tokens_per_day") == 0
    assert used(gateway.local, "tokens_per_day") == 5


def test_emptied_redis_gets_no_settlement(gateway: Gateway, mortal: Valkey) -> None:
    limits = {"tokens_per_day": 100, "requests_in_parallel": 9}
    reserved = reserve(gateway.meter, claim(20, **limits))
    mortal.kill()
    gateway.meter.settle([Charge(reserved, 50)], NOON)
    mortal.restart()
    wait_until_available(gateway)
    reserve(gateway.meter, claim(1, **limits))

    assert used(gateway.meter, "tokens_per_day") == 1


def test_refusing_redis_counts_as_unavailable(
    gateway: Gateway, mortal: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """For example a write to a replica."""
    with mortal.client() as client:
        client.replicaof("127.0.0.1", 1)
    mine = claim(requests_per_minute=1)
    with caplog.at_level(logging.WARNING, "lastword"):
        passed = [passes(gateway.meter, mine) for _ in range(2)]

    assert passed == [True, False]
    assert caplog.messages == [AWAY]


def test_restart_between_calls_goes_unnoticed(
    gateway: Gateway, mortal: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    passes(gateway.meter, claim(requests_per_minute=1))
    mortal.kill()
    mortal.restart()
    with caplog.at_level(logging.WARNING, "lastword"):
        passes(gateway.meter, claim(requests_per_minute=1))

    assert used(gateway.meter, "requests_per_minute") == 1
    assert caplog.messages == []


def test_circuits_stay_on_the_machine(mortal: Valkey, settings: Settings) -> None:
    """The workers of a machine share circuits, whether Redis is available or not."""
    policy = BreakerPolicy(failure_threshold=2)
    target = Target("p", identity="t", breaker=policy)
    workers = [
        create_app(replace(settings, redis_url=mortal.url)).extensions["lastword"]
        for _ in range(2)
    ]
    workers[0].breaker.leave(target, 500)
    with mortal.client() as client:
        keys = client.keys()
    mortal.kill()
    workers[1].breaker.leave(target, 500)
    available = [each.breaker.available(target) for each in workers]
    for each in workers:
        each.close()

    assert keys == []
    assert available == [False, False]


# The background writer


def writers() -> int:
    return sum(thread.name == "background-writer" for thread in threading.enumerate())


def test_close_sends_queued_commands(gateway: Gateway, mortal: Valkey) -> None:
    mine = claim(9, tokens_per_day=10**6)
    for _ in range(500):
        gateway.meter.settle([Charge(reserve(gateway.meter, mine), 1)], NOON)
    gateway.meter.close()

    assert (unsettled(mortal), writers()) == (0, 0)
    assert used(gateway.meter, "tokens_per_day") == 500


def test_closed_writer_can_be_used_again(gateway: Gateway, mortal: Valkey) -> None:
    gateway.meter.close()
    mine = claim(9, tokens_per_day=10**6)
    gateway.meter.settle([Charge(reserve(gateway.meter, mine), 1)], NOON)

    eventually(lambda: not unsettled(mortal))


def test_close_without_redis_gives_up_soon(
    gateway: Gateway, mortal: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    reserved = reserve(gateway.meter, claim(9, tokens_per_day=99))
    mortal.kill()
    with caplog.at_level(logging.WARNING, "lastword"):
        gateway.meter.settle([Charge(reserved, 1)], NOON)
        gateway.meter.close()

    assert writers() == 0
    assert caplog.messages == [AWAY, "Redis is away: 1 changes are lost"]


PROCESS = """
import os, sys
from pathlib import Path
from app.core.counters import UsageRequest
from app.core.limits import Limits
from app.state.background_writer import BackgroundWriter
from app.state.failover import FailoverCounters
from app.state.meter import Charge, Meter
from app.state.local_store import LocalCounters, LocalFile
from app.state.redis_store import RedisClient, RedisCounters

client = RedisClient(sys.argv[1])
own = LocalCounters(LocalFile(Path(sys.argv[2])))
meter = Meter(FailoverCounters(RedisCounters(client), own, BackgroundWriter(client)))

def ask():
    mine = UsageRequest("key:a", Limits(tokens_per_day=10**6), 50)
    (reserved,) = meter.reserve([mine], 1_800_000_000.0)
    meter.settle([Charge(reserved, 1)], 1_800_000_000.0)
"""

FORKED = """
ask()
child = os.fork()
if not child:
    ask()
    meter.close()
    os._exit(0)
_, status = os.waitpid(child, 0)
ask()
print(status)
"""

GREENLETS = """
import gevent
jobs = [gevent.spawn(ask) for _ in range(3)]
gevent.joinall(jobs, raise_error=True)
print(0)
"""


@pytest.mark.parametrize(
    "code",
    [PROCESS + FORKED]
    + ["from gevent import monkey; monkey.patch_all()\n" + PROCESS + GREENLETS],
    ids=["forked", "gevent"],
)
def test_each_process_sends_its_own_queue(
    valkey: Valkey, tmp_path: Path, code: str
) -> None:
    valkey.clear()
    command = [sys.executable, "-c", code, valkey.url, str(tmp_path / "limits.db")]
    output = subprocess.check_output(command, cwd=ROOT, text=True)

    assert (output.strip(), unsettled(valkey)) == ("0", 0)
    with valkey.client() as client:
        entries = client.hvals("lastword:counter:key:a:tokens_per_day")
    assert entries == [b"3"]
