"""What a stream says to its caller while it waits for its next event.

Whoever reads the upstream of a stream does so in the thread that answers its caller. So
it can speak before it waits: first all events that have come at once, in one piece; and
when nothing has come for a while, a comment, so that nobody takes the connection for
dead. Where the server cannot be spoken to between two pieces of a body, each event is a
piece of its own, and silence is silence.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf

from ...core import sse

# Sends bytes to the caller of a stream, at once. Raises Cancelled if the caller left.
Say = Callable[[bytes], None]


class Pulse:
    """Speaks to one caller, with *say*. Falls silent for *every* seconds at most."""

    def __init__(self, say: Say, every: float | None) -> None:
        self._say, self._every = say, every or inf
        self._pieces: list[bytes] = []
        self._due = inf
        self.spoke()

    def spoke(self) -> None:
        """Note that the caller has just been sent something."""
        self._due = time.monotonic() + self._every

    def add(self, piece: bytes) -> None:
        """Have *piece* sent before anybody waits."""
        self._pieces.append(piece)

    @property
    def held(self) -> int:
        """How many pieces wait to be sent."""
        return len(self._pieces)

    def take(self) -> bytes:
        """All that waits to be sent, as one piece; whoever takes it sends it."""
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def wait(self) -> float:
        """Until when the caller may be left alone, on the monotonic clock.

        Says before what there is to be said.
        """
        if self._pieces:
            self._speak(self.take())
        elif self._due <= time.monotonic():
            self._speak(sse.KEEP_ALIVE)
        return self._due

    def _speak(self, piece: bytes) -> None:
        self._say(piece)
        self.spoke()


# None for those who have no caller to speak to while they wait.
_pulse: ContextVar[Pulse | None] = ContextVar("pulse", default=None)


@contextmanager
def beating(pulse: Pulse) -> Iterator[None]:
    """Have those who wait within speak by *pulse*."""
    token = _pulse.set(pulse)
    try:
        yield
    finally:
        _pulse.reset(token)


def wait() -> float:
    """Whoever is about to wait calls this, and does so again at the time it returns.

    That time is on the monotonic clock; it may be infinite.
    """
    pulse = _pulse.get()
    return pulse.wait() if pulse else inf
