"""Lingering close with gthread: after the client's close, or after a timeout."""

import socket
import struct
from collections.abc import Iterator

import pytest

from app.server.lingering_close import LingeringClose

Pair = tuple[socket.socket, socket.socket]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def closing(clock: Clock) -> LingeringClose:
    return LingeringClose(clock)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The server's and the client's end of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with server, client:
        yield server, client


def is_closed(sock: socket.socket) -> bool:
    return sock.fileno() == -1


def test_connection_closes_after_client(closing: LingeringClose, pair: Pair) -> None:
    server, client = pair
    closing.close(server)

    assert client.recv(1) == b""
    assert closing.check() == 1
    client.close()
    assert closing.check() == 0
    assert is_closed(server)


def test_late_bytes_are_discarded(closing: LingeringClose, pair: Pair) -> None:
    server, client = pair
    closing.close(server)
    client.sendall(b"still here")

    assert closing.check() == 1
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(1)


def test_endless_sender_is_cut_off(closing: LingeringClose, pair: Pair) -> None:
    server, client = pair
    closing.close(server)
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            client.send(b"x" * 2**16)

    assert closing.check() == 0
    assert is_closed(server)


def test_open_client_times_out(
    closing: LingeringClose, pair: Pair, clock: Clock
) -> None:
    server, _ = pair
    closing.close(server)
    assert closing.check() == 1

    clock.now = 2.5
    assert closing.check() == 0
    assert is_closed(server)


def test_reset_connection_closes_at_once(closing: LingeringClose, pair: Pair) -> None:
    server, client = pair
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    closing.close(server)

    assert closing.check() == 0
    assert is_closed(server)
