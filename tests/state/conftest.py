"""The stores of shared state: a file, and a real Valkey."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from app.state.background_writer import BackgroundWriter
from app.state.failover import FailoverCounters
from app.state.local_cache import LocalCache
from app.state.local_store import LocalCounters, LocalFile
from app.state.meter import Counters, Meter
from app.state.redis_store import RedisClient, RedisCounters

from ..valkey import Valkey, running


class FakeTime:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """One Valkey for all tests."""
    yield from running()


@pytest.fixture
def mortal() -> Iterator[Valkey]:
    """A Valkey of this test alone, which may be stopped."""
    yield from running()


class Store:
    """A store of counters. Each call opens it again, as another process would."""

    def __init__(self, url: str, path: Path, stack: ExitStack) -> None:
        self.url, self._path, self._stack = url, path, stack

    @property
    def address(self) -> str:
        """The argument with which another process opens it."""
        return self.url or str(self._path)

    def counters(self) -> Counters:
        if self.url:
            client = self._stack.enter_context(closing(RedisClient(self.url)))
            return RedisCounters(client)
        return LocalCounters(self._stack.enter_context(closing(LocalFile(self._path))))


@pytest.fixture(params=["local", "redis"])
def store(request: Any, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each kind."""
    url = ""
    if request.param == "redis":
        server: Valkey = request.getfixturevalue("valkey")
        server.clear()
        url = server.url
    with ExitStack() as stack:
        yield Store(url, tmp_path / "limits.db", stack)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalCache]:
    """A response cache in a file."""
    with closing(LocalCache(tmp_path / "cache.db", 2**20)) as cache:
        yield cache


class Gateway:
    """The counters of a gateway: in Redis, and in a file while that is unavailable.

    *clock* is the clock of the reconnects to Redis.
    """

    def __init__(self, client: RedisClient, path: Path, clock: FakeTime) -> None:
        self.client, self.clock = client, clock
        local = LocalCounters(LocalFile(path))
        writer = BackgroundWriter(client)
        self.meter = Meter(FailoverCounters(RedisCounters(client), local, writer))
        self.local = Meter(local)

    @classmethod
    def open(cls, url: str, path: Path) -> "Gateway":
        clock = FakeTime()
        return cls(RedisClient(url, clock), path, clock)

    def close(self) -> None:
        self.meter.close()
