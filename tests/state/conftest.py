"""The two places where state is kept: a file, and a real Valkey."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from app.state.background_writer import BackgroundWriter
from app.state.breaker import Breaker
from app.state.failover import FailoverCircuits, FailoverCounters
from app.state.local_store import LocalCircuits, LocalCounters, LocalFile
from app.state.meter import Counters, Meter
from app.state.redis_store import RedisCircuits, RedisClient, RedisCounters

from ..valkey import Valkey, running

PLACES = ("local", "redis")


class FakeTime:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """One for all tests."""
    yield from running()


@pytest.fixture
def mortal() -> Iterator[Valkey]:
    """One of this test alone, which may do with it what it likes."""
    yield from running()


class Place:
    """Somewhere to keep state. Each call opens it anew, as another process would."""

    def __init__(self, url: str, path: Path, stack: ExitStack) -> None:
        self.url, self._path, self._stack = url, path, stack

    @property
    def where(self) -> str:
        """What another process has to know to get there."""
        return self.url or str(self._path)

    def counters(self) -> Counters:
        return RedisCounters(self._link()) if self.url else LocalCounters(self._file())

    def circuits(self) -> LocalCircuits | RedisCircuits:
        return RedisCircuits(self._link()) if self.url else LocalCircuits(self._file())

    def _link(self) -> RedisClient:
        return self._stack.enter_context(closing(RedisClient(self.url)))

    def _file(self) -> LocalFile:
        return self._stack.enter_context(closing(LocalFile(self._path)))


def opened(kind: str, request: Any, path: Path, stack: ExitStack) -> Place:
    """An empty place; what is opened there is closed with *stack*."""
    if kind == "local":
        return Place("", path, stack)
    server: Valkey = request.getfixturevalue("valkey")
    server.clear()
    return Place(server.url, path, stack)


@pytest.fixture(params=PLACES)
def place(request: Any, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield opened(request.param, request, tmp_path / "limits.db", stack)


class Gateway:
    """What a gateway has: Redis, and a file for when that is away.

    Its clock is the one by which it asks Redis again, for whatever reason.
    """

    def __init__(self, link: RedisClient, path: Path, clock: FakeTime) -> None:
        self.link, self.clock = link, clock
        file, courier = LocalFile(path), BackgroundWriter(link)
        local, self.kept = LocalCounters(file), LocalCircuits(file)
        counters = FailoverCounters(RedisCounters(link), local, courier)
        self.circuits = FailoverCircuits(RedisCircuits(link), self.kept, courier, clock)
        self.meter, self.local = Meter(counters), Meter(local)
        self.breaker = Breaker(self.circuits)

    @classmethod
    def at(cls, url: str, path: Path) -> "Gateway":
        clock = FakeTime()
        return cls(RedisClient(url, clock), path, clock)

    def close(self) -> None:
        self.meter.close()
