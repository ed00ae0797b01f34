"""Servers that are started once, and checks that nothing stays open."""

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
    """A gateway without engine, under each supported worker class."""
    server = Server(
        GUNICORN_CMD_ARGS=f"-k {request.param} --threads 16", WEB_CONCURRENCY="1"
    )
    # Its initial files are open once it answers.
    assert server.get("/healthz").ok
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """After each test there are no more threads and open files than before."""
    threads, files = set(threading.enumerate()), open_files()
    yield
    eventually(
        lambda: set(threading.enumerate()) <= threads, actual=threading.enumerate
    )
    eventually(lambda: open_files() <= files, actual=lambda: open_files() - files)


@pytest.fixture(autouse=True)
def nothing_is_held_upstream(
    nothing_stays_open: None, upstreams: list[Upstream]
) -> Iterator[None]:
    """After each test every connection to an upstream is closed or idle."""
    yield
    eventually(lambda: not any(upstream.held for upstream in upstreams))


@pytest.fixture(autouse=True)
def nothing_stays_open_in_the_gateway(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test the shared gateway has no callers and no more files than before.

    It may keep idle connections to upstreams and its own threads.
    """
    if "gunicorn" not in request.fixturenames:
        yield
        return
    server: Server = request.getfixturevalue("gunicorn")
    eventually(lambda: children(server.pid) != [])
    (worker,) = children(server.pid)
    # An event loop creates some on first use.
    files = plain_files(worker) | Counter(anon_inode=3)
    yield
    eventually(lambda: callers(server.port) == 0, actual=lambda: callers(server.port))
    eventually(lambda: plain_files(worker) <= files, actual=lambda: plain_files(worker))
    eventually(lambda: threads(worker) <= THREADS, actual=lambda: threads(worker))


# The most threads of either worker class: its own, and those for callers, limits and
# the ledger; gevent's ten for name resolution.
THREADS = 16 + 12


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def plain_files(pid: int) -> Counter[str]:
    """The open files of a gateway, without sockets and without its store's pool."""
    return Counter(
        {
            name: count
            for name, count in open_files(pid).items()
            if name != "socket" and ".db" not in name
        }
    )


def callers(port: int) -> int:
    """How many connections a server at *port* has accepted and not closed.

    Connections that only the other side has closed count as well.
    """
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    states = [(line.split()[1], line.split()[3]) for line in lines]
    return sum(
        int(local.rpartition(":")[2], 16) == port and state in ("01", "08")
        for local, state in states
    )


def open_files(pid: int | str = "self") -> Counter[str]:
    """The open files of a process, counted by target; sockets are one target."""
    counts: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            counts[os.readlink(link).partition(":")[0]] += 1
    return counts
