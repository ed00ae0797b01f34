"""Servers that are started once for all tests that only talk to them."""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from .server import Server, eventually


@pytest.fixture(scope="session", params=["gevent", "gthread"])
def gunicorn(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A gateway without engine, under each kind of worker that is supported."""
    server = Server(
        GUNICORN_CMD_ARGS=f"-k {request.param} --threads 16", WEB_CONCURRENCY="1"
    )
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """After each test its threads and open files are those that were there before."""
    threads, files = set(threading.enumerate()), open_files()
    yield
    eventually(lambda: set(threading.enumerate()) <= threads, left=threading.enumerate)
    eventually(lambda: open_files() <= files, left=lambda: open_files() - files)


def open_files() -> Counter[str]:
    """What this process has open, by where it leads; sockets count as alike."""
    found: Counter[str] = Counter()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found[os.readlink(link).partition(":")[0]] += 1
    return found
