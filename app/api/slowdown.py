"""Who is refused again and again has to wait: guessing keys takes its time."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

# How many refusals cost nothing, within how many seconds; and the longest wait.
_FREE, _WINDOW, _LONGEST = 5, 60.0, 1.0
_FIRST = 0.05

# Addresses that are remembered at a time, and who waits at a time: each wait holds a
# thread, and a flood of refusals must not hold them all.
_MOST = 10_000
_WAITING = 8


class Slowdown:
    """Counts refusals by address. One for each process."""

    def __init__(
        self,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleep, self._clock = sleep, clock
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(_WAITING)
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def refused(self, address: str) -> None:
        """Wait, if *address* was refused too often of late, and if there is room."""
        over = self._count(address) - _FREE
        if over > 0 and self._room.acquire(blocking=False):
            try:
                self._sleep(min(_FIRST * 2.0 ** min(over - 1, 10), _LONGEST))
            finally:
                self._room.release()

    def _count(self, address: str) -> int:
        now = self._clock()
        with self._lock:
            count, since = self._seen.pop(address, (0, now))
            if now - since > _WINDOW:
                count, since = 0, now
            self._seen[address] = count + 1, since
            while len(self._seen) > _MOST:
                self._seen.popitem(last=False)
        return count + 1
