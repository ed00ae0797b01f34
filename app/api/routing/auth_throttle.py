"""Whoever sends wrong keys again and again has to wait for each answer.

It bounds how much of the gateway a flood of guesses can occupy. A right key is answered
at once, whoever else calls from the same address, so a guess that is right shows soon:
what keeps keys from being guessed is their length.
"""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from ...errors import TooManyWrongKeys

# How many wrong keys cost nothing, within how many seconds; and the longest wait.
_FREE, _WINDOW, _LONGEST = 5, 60.0, 1.0
_FIRST = 0.05

# Addresses that are remembered at a time.
_MOST = 10_000

# Who waits at a time, of one address and in all: each wait holds a thread, or a
# greenlet, and a flood of wrong keys must not hold them all.
_WAITING_EACH = 2
_WAITING = 8


class AuthThrottle:
    """Counts wrong keys by address. One for each process."""

    def __init__(
        self,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleep, self._clock = sleep, clock
        self._lock = threading.Lock()
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._waiting: Counter[str] = Counter()

    def wrong(self, address: str) -> None:
        """Wait, if *address* has sent too many wrong keys of late.

        Raises TooManyWrongKeys, at once, if there is no room to wait.
        """
        with self._lock:
            # One step: of many that come together, each is counted, and none slips
            # past the waits of the others.
            delay = self._delay(self._count(address))
            if not delay:
                return
            self._take_place(address)
        try:
            self._sleep(delay)
        finally:
            with self._lock:
                self._leave_place(address)

    def _count(self, address: str) -> int:
        now = self._clock()
        count, since = self._counts.pop(address, (0, now))
        if now - since > _WINDOW:
            count, since = 0, now
        self._counts[address] = count + 1, since
        while len(self._counts) > _MOST:
            self._counts.popitem(last=False)
        return count + 1

    def _delay(self, count: int) -> float:
        over = count - _FREE
        if over <= 0:
            return 0.0
        return min(_FIRST * 2.0 ** min(over - 1, 10), _LONGEST)

    def _take_place(self, address: str) -> None:
        full = self._waiting.total() >= _WAITING
        if full or self._waiting[address] >= _WAITING_EACH:
            raise TooManyWrongKeys
        self._waiting[address] += 1

    def _leave_place(self, address: str) -> None:
        self._waiting[address] -= 1
        if not self._waiting[address]:
            del self._waiting[address]
