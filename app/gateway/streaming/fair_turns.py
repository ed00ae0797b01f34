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
    """Call it once for each piece of work; now and then it pauses."""

    __slots__ = ("_turn_began",)

    def __init__(self) -> None:
        self._turn_began = time.monotonic()

    def step(self, waited: float, now: float) -> None:
        """A piece of work is done, *now* by the monotonic clock, for which the request
        has *waited* so many seconds: others have had their turn meanwhile.
        """
        if waited > _WAIT:
            self._turn_began = now
        elif now - self._turn_began > _LONGEST_TURN:
            time.sleep(PAUSE)
            self._turn_began = time.monotonic()
