"""Lets other requests have their turn while one has work without end.

Under gevent, and between threads that hold the interpreter's lock, a request gives up
its turn when it waits for a socket. One whose upstream is faster than the gateway never
waits: it would hold its worker until its end, and gunicorn would kill that for it.
"""

import time

# Seconds of work without a wait.
_LONGEST_TURN = 0.01

# Seconds in a read from which on it was a wait.
_WAIT = 1e-3

# Seconds. After none at all gevent would not look whether anything has arrived.
PAUSE = 1e-4


class FairTurns:
    """Belongs to whoever reads from one socket: `step` before each read, `received`
    after it. So everything that copies has it: streams, also before their first event,
    whole answers, the calls of a batch.
    """

    __slots__ = ("_turn_began", "_read_began")

    def __init__(self) -> None:
        self._turn_began = self._read_began = time.monotonic()

    def step(self) -> None:
        """Another read follows. Pauses if the turn has been long."""
        now = time.monotonic()
        if now - self._turn_began > _LONGEST_TURN:
            time.sleep(PAUSE)
            self._turn_began = now = time.monotonic()
        self._read_began = now

    def received(self) -> None:
        """The read is over. If it was a wait, others have had their turn in it."""
        now = time.monotonic()
        if now - self._read_began > _WAIT:
            self._turn_began = now
