"""The watch for closed client connections."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from app.errors import Busy, CallerLeft
from app.gateway.clients.connections import ClientConnections
from tests.e2e.server import eventually


@pytest.fixture
def callers() -> Iterator[ClientConnections]:
    with closing(
        ClientConnections(patience=60, max_connections=2, every=0.01)
    ) as connections:
        yield connections


def test_closed_socket_does_not_hide_others(
    callers: ClientConnections,
) -> None:
    closed, gone = socket.socketpair()
    gone.close()
    here, there = socket.socketpair()
    with callers.watching(closed), callers.watching(here) as connection:
        closed.close()
        there.close()
        eventually(lambda: connection.cancellation.reason is not None)
    here.close()

    assert isinstance(connection.cancellation.reason, CallerLeft)


def test_forgotten_connection_makes_room(callers: ClientConnections) -> None:
    with callers.watching(None) as first, callers.watching(None):
        with pytest.raises(Busy), callers.watching(None):
            pass
        first.forget()
        with callers.watching(None):
            pass
