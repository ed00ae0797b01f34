"""The waits of a request with a known key that is not answered from the cache."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from app.core.limits import Limits
from app.settings import Settings
from app.state.redis_store import RedisClient
from tests.conftest import Caller
from tests.stored_gateway import StoredGateway
from tests.upstream import Upstream, completion, whole
from tests.valkey import Valkey

REQUESTS = 30

# All limits but parallel requests, on both keys.
LIMITS = {
    "requests_per_minute": 1000,
    "tokens_per_minute": 10**6,
    "tokens_per_day": 10**7,
    "money_per_month": 1000,
}


class Waits:
    """Counts the waits of each thread."""

    def __init__(self) -> None:
        self.queries: Counter[int] = Counter()
        self.round_trips: Counter[int] = Counter()

    def here(self) -> tuple[int, int]:
        """Database queries and round trips to Redis of this thread."""
        own = threading.get_ident()
        return self.queries[own], self.round_trips[own]

    def clear(self) -> None:
        self.queries.clear()
        self.round_trips.clear()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    waits, execute = Waits(), RedisClient.execute

    def counting(client: RedisClient, *args: Any) -> Any:
        waits.round_trips[threading.get_ident()] += 1
        return execute(client, *args)

    def queried(*_: Any) -> None:
        waits.queries[threading.get_ident()] += 1

    monkeypatch.setattr(RedisClient, "execute", counting)
    event.listen(Engine, "before_cursor_execute", queried)
    yield waits
    event.remove(Engine, "before_cursor_execute", queried)


@pytest.fixture
def gateway(
    call: Callable[..., Caller], upstream: Upstream, settings: Settings, valkey: Valkey
) -> Iterator[StoredGateway]:
    sealed = replace(settings, secret_key="a secret of the tests", store_ttl=600.0)
    with StoredGateway(
        call, upstream, replace(sealed, redis_url=valkey.url)
    ) as gateway:
        yield gateway


def limited(gateway: StoredGateway, **more: Any) -> Caller:
    """A caller whose requests have two limited keys and a circuit breaker."""
    limits = Limits.of(LIMITS | more)
    target = {"virtual_key": gateway.virtual_key(limits=limits)}
    strategy = {"mode": "fallback", "cb_config": {"failure_threshold": 3}}
    gateway.store.put_config(
        "main", {"strategy": strategy, "targets": [target, target]}
    )
    return gateway.caller(gateway.key(config="main", limits=limits), ledger=True)


def complete(caller: Caller, waits: Waits) -> None:
    """Complete once with a new key, then several times with the cached one."""
    assert caller.complete(model="gpt-4o").status_code == 200
    waits.clear()
    for _ in range(REQUESTS):
        assert caller.complete(model="gpt-4o").status_code == 200


def test_request_takes_one_round_trip(gateway: StoredGateway, waits: Waits) -> None:
    complete(limited(gateway), waits)

    assert waits.here() == (0, REQUESTS)


def test_parallel_limit_takes_second_round_trip(
    gateway: StoredGateway, waits: Waits
) -> None:
    """The slot has to be free when the caller has the answer."""
    complete(limited(gateway, requests_in_parallel=10), waits)

    assert waits.here() == (0, 2 * REQUESTS)


def test_unlimited_request_takes_no_round_trip(
    gateway: StoredGateway, waits: Waits
) -> None:
    gateway.store.put_config("main", {"virtual_key": gateway.virtual_key()})
    complete(gateway.caller(gateway.key(config="main")), waits)

    assert waits.here() == (0, 0)


def test_counting_of_waits_works(gateway: StoredGateway, waits: Waits) -> None:
    """A new key is looked up: this proves that the counter works.

    And a limit takes effect at once.
    """
    gateway.upstream.answers[:] = [whole(completion())]
    caller = limited(gateway, requests_per_minute=1)
    assert caller.complete(model="gpt-4o").status_code == 200
    queries, round_trips = waits.here()

    assert queries > 0 and round_trips > 0
    assert caller.complete(model="gpt-4o").status_code == 429
