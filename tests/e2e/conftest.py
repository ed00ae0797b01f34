"""Servers that are started once for all tests that only talk to them."""

from collections.abc import Iterator

import pytest

from .server import Server


@pytest.fixture(scope="session", params=["gevent", "gthread"])
def gunicorn(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A gateway without engine, under each kind of worker that is supported."""
    server = Server(
        GUNICORN_CMD_ARGS=f"-k {request.param} --threads 16", WEB_CONCURRENCY="1"
    )
    yield server
    server.stop()
