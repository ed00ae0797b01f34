"""Turns: how long one request may work without letting others run.

Under gevent, and between threads that hold the interpreter's lock, a request gives up
its turn when it waits for a socket. One whose upstream is faster than the gateway never
waits: it would hold its worker until its end, and gunicorn would kill that for it. So
whoever reads from upstream (http1/connection.py) counts the time since the last wait.
"""

import time

# Seconds of work without a wait.
LONGEST_TURN = 0.01

# Seconds in a read from which on it was a wait, in which others have had their turn.
WAIT = 1e-3

# Seconds. After none at all gevent would not look whether anything has arrived.
_PAUSE = 1e-4


def pause() -> float:
    """Let others run. Returns when the next turn begins, on the monotonic clock."""
    time.sleep(_PAUSE)
    return time.monotonic()
