"""A worker's memory does not grow from refused large answers."""

import time
from collections.abc import Iterator

import pytest

from tests.soak.answers import (
    BOMBS,
    MEMORY,
    gateway,
    provider,
    refuse_all,
    resident,
    warmed_up,
)

from .server import Server

pytestmark = pytest.mark.e2e

LIMIT = 4 * 2**20


@pytest.fixture(params=["gevent", "gthread"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with gateway(request.param, LIMIT) as server:
        yield server


def test_refused_answers_leave_memory_flat(server: Server) -> None:
    """Six of each kind: if one kind stayed in memory, it would be 24 MiB or more."""
    with provider(LIMIT) as port:
        before = warmed_up(server, port)
        kept = [name for name in BOMBS if not refuse_all(server, port, name, 6)]
        # The observers of finished requests run once a second.
        time.sleep(1.5)
        after = resident(server)

    assert kept == []
    assert after - before < MEMORY
