"""What a worker of gunicorn needs besides, where it can be seen without one."""

import socket
import struct
from collections.abc import Iterator

import pytest

from app.server.worker import Farewells

Pair = tuple[socket.socket, socket.socket]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def farewells(clock: Clock) -> Farewells:
    return Farewells(clock)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as place:
        theirs = socket.create_connection(place.getsockname())
        ours, _ = place.accept()
    with ours, theirs:
        yield ours, theirs


def is_closed(sock: socket.socket) -> bool:
    return sock.fileno() == -1


def test_a_connection_is_closed_when_the_other_side_has(
    farewells: Farewells, pair: Pair
) -> None:
    ours, theirs = pair
    farewells.close(ours)

    assert theirs.recv(1) == b""
    assert farewells.look() == 1
    theirs.close()
    assert farewells.look() == 0
    assert is_closed(ours)


def test_what_it_still_says_is_thrown_away(farewells: Farewells, pair: Pair) -> None:
    ours, theirs = pair
    farewells.close(ours)
    theirs.sendall(b"still here")

    assert farewells.look() == 1
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        ours.recv(1)


def test_who_goes_on_and_on_is_not_listened_to(
    farewells: Farewells, pair: Pair
) -> None:
    ours, theirs = pair
    farewells.close(ours)
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            theirs.send(b"x" * 2**16)

    assert farewells.look() == 0
    assert is_closed(ours)


def test_it_is_closed_after_a_while_anyway(
    farewells: Farewells, pair: Pair, clock: Clock
) -> None:
    ours, _ = pair
    farewells.close(ours)
    assert farewells.look() == 1

    clock.now = 2.5
    assert farewells.look() == 0
    assert is_closed(ours)


def test_one_that_was_broken_off_is_closed_at_once(
    farewells: Farewells, pair: Pair
) -> None:
    ours, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    farewells.close(ours)

    assert farewells.look() == 0
    assert is_closed(ours)
