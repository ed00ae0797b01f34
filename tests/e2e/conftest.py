"""Servers that are started once for all tests that only talk to them."""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.upstream import Upstream

from .server import Server, children, eventually


@pytest.fixture(scope="session", params=["gevent", "gthread"])
def gunicorn(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A gateway without engine, under each kind of worker that is supported."""
    server = Server(
        GUNICORN_CMD_ARGS=f"-k {request.param} --threads 16", WEB_CONCURRENCY="1"
    )
    # What it opens to begin with is open once it answers.
    assert server.get("/healthz").ok
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """After each test its threads and open files are those that were there before."""
    threads, files = set(threading.enumerate()), open_files()
    yield
    eventually(lambda: set(threading.enumerate()) <= threads, left=threading.enumerate)
    eventually(lambda: open_files() <= files, left=lambda: open_files() - files)


@pytest.fixture(autouse=True)
def nothing_is_held_upstream(
    nothing_stays_open: None, upstreams: list[Upstream]
) -> Iterator[None]:
    """After each test every connection to its upstreams is closed, or idle."""
    yield
    eventually(lambda: not any(upstream.held for upstream in upstreams))


@pytest.fixture(autouse=True)
def nothing_stays_open_in_the_gateway(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test the shared gateway serves nobody, and is no larger than before.

    It may keep idle connections to upstreams, and the threads that it works with.
    """
    if "gunicorn" not in request.fixturenames:
        yield
        return
    server: Server = request.getfixturevalue("gunicorn")
    eventually(lambda: children(server.pid) != [])
    (worker,) = children(server.pid)
    # An event loop makes some of its own when it first needs them.
    files = plain_files(worker) | Counter(anon_inode=3)
    yield
    eventually(lambda: callers(server.port) == 0, left=lambda: callers(server.port))
    eventually(lambda: plain_files(worker) <= files, left=lambda: plain_files(worker))
    eventually(lambda: threads(worker) <= THREADS, left=lambda: threads(worker))


# As many as either kind of worker may have for itself: its own, and those that look
# after callers, limits and the ledger; gevent's ten for names.
THREADS = 16 + 12


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def plain_files(pid: int) -> Counter[str]:
    """What a gateway has open but for sockets, and its store, which has a pool."""
    return Counter(
        {
            name: count
            for name, count in open_files(pid).items()
            if name != "socket" and ".db" not in name
        }
    )


def callers(port: int) -> int:
    """How many connections a server at *port* has accepted and not closed.

    Those that the other side has closed, and the server has not, count as well.
    """
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    states = [(line.split()[1], line.split()[3]) for line in lines]
    return sum(
        int(local.rpartition(":")[2], 16) == port and state in ("01", "08")
        for local, state in states
    )


def open_files(pid: int | str = "self") -> Counter[str]:
    """What a process has open, by where it leads; sockets count as alike."""
    counts: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            counts[os.readlink(link).partition(":")[0]] += 1
    return counts
