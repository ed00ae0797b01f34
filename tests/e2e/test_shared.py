"""Two gateways that share PostgreSQL and Redis, each with two workers."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.core.limits import Limits
from app.core.permissions import GatewayKey, VirtualKey
from app.settings import Settings
from app.store import factory
from tests.conftest import upgrade_database
from tests.postgres import Postgres
from tests.upstream import Upstream, completion, whole
from tests.valkey import Valkey, running

from .server import Server, eventually

pytestmark = pytest.mark.e2e

SECRET = "a secret of the tests"


@pytest.fixture
def mortal() -> Iterator[Valkey]:
    """A Valkey of this test alone, which may be killed."""
    yield from running()


@dataclass
class Pair:
    """Two gateways, and keys for both of them by their limits."""

    servers: list[Server]
    keys: dict[str, str]

    def complete(self, key: str, number: int) -> int:
        headers = {"Authorization": f"Bearer {self.keys[key]}"}
        return int(self.servers[number % 2].complete(headers).status_code)

    def wait_for_log(self, words: str) -> None:
        """Wait until both have logged *words*."""
        eventually(lambda: all(words in server.log_text for server in self.servers), 30)


LIMITS = {"hundred": {"requests_per_minute": 100}, "plenty": {"tokens_per_day": 10**9}}


def stored(url: str, folder: Path, upstream: Upstream) -> dict[str, str]:
    """Gateway keys with these limits, in the database at *url*."""
    settings = Settings(database_url=url, secret_key=SECRET, instance=str(folder))
    upgrade_database(settings)
    store = factory.repository(settings)
    sealed = {"api_key": "sk-sealed"}
    store.put_virtual_key(
        VirtualKey("openai", "openai", sealed, custom_host=upstream.url)
    )
    store.put_config("main", {"virtual_key": "openai"})
    keys = {
        name: store.create_key(GatewayKey(name, config="main", limits=Limits.of(limit)))
        for name, limit in LIMITS.items()
    }
    store.engine.dispose()
    return keys


def gateway(stack: ExitStack, worker: str, **environ: str) -> Server:
    server = Server(
        # Enough threads for all concurrent requests.
        GUNICORN_CMD_ARGS=f"-k {worker} --threads 80",
        WEB_CONCURRENCY="2",
        GATEWAY_SECRET_KEY=SECRET,
        **environ,
    )
    stack.callback(server.stop)
    return server


@pytest.fixture
def pair(
    postgres: Postgres, mortal: Valkey, script: Any, tmp_path: Path
) -> Iterator[Pair]:
    """One gateway with gevent, one with gthread."""
    url = postgres.database()
    keys = stored(url, tmp_path, script(whole(completion())))
    shared = {"GATEWAY_DATABASE_URL": url, "GATEWAY_REDIS_URL": mortal.url}
    with ExitStack() as stack:
        workers = ("gevent", "gthread")
        yield Pair([gateway(stack, worker, **shared) for worker in workers], keys)


def test_machines_share_one_rate_limit(pair: Pair) -> None:
    """A hundred of four hundred requests are accepted."""
    with ThreadPoolExecutor(64) as pool:
        statuses = pool.map(lambda number: pair.complete("hundred", number), range(400))

    assert Counter(statuses) == {200: 100, 429: 300}


def test_killed_redis_fails_no_request(pair: Pair, mortal: Valkey) -> None:
    """Each gateway continues with local counters, and reconnects by itself."""
    statuses: Counter[tuple[int, int]] = Counter()
    over = threading.Event()

    def keep_asking(number: int) -> None:
        while not over.is_set():
            statuses[number % 2, pair.complete("plenty", number)] += 1

    def both_go_on() -> None:
        before = statuses.copy()
        for at in (0, 1):
            eventually(lambda at=at: statuses[at, 200] > before[at, 200] + 20, 30)

    with ThreadPoolExecutor(16) as pool:
        asking = [pool.submit(keep_asking, number) for number in range(16)]
        try:
            both_go_on()
            mortal.kill()
            pair.wait_for_log("Redis is away")
            both_go_on()
            mortal.restart()
            pair.wait_for_log("Redis is back")
            both_go_on()
        finally:
            over.set()
        for each in asking:
            each.result()
    with mortal.client() as client:
        counted = client.exists("lastword:counter:key:plenty:tokens_per_day")

    assert {status for _, status in statuses} == {200}
    assert counted
    assert not any("Traceback" in server.log_text for server in pair.servers)
