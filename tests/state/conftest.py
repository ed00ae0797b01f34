"""The two places where state is kept: a file, and a real Valkey."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from app.state.limits import Counters
from app.state.local import LocalCircuits, LocalCounters, LocalFile
from app.state.redis import Link, RedisCircuits, RedisCounters

from ..valkey import Valkey, running

PLACES = ("local", "redis")


@pytest.fixture(scope="session")
def limits_valkey() -> Iterator[Valkey]:
    """One for all tests of limits and breakers."""
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

    def _link(self) -> Link:
        return self._stack.enter_context(closing(Link(self.url)))

    def _file(self) -> LocalFile:
        return self._stack.enter_context(closing(LocalFile(self._path)))


def opened(kind: str, request: Any, path: Path, stack: ExitStack) -> Place:
    """An empty place; what is opened there is closed with *stack*."""
    if kind == "local":
        return Place("", path, stack)
    server: Valkey = request.getfixturevalue("limits_valkey")
    server.clear()
    return Place(server.url, path, stack)


@pytest.fixture(params=PLACES)
def place(request: Any, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield opened(request.param, request, tmp_path / "limits.db", stack)
