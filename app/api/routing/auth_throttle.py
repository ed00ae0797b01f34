"""Delays the answers to an address that keeps sending wrong keys.

This bounds how much of the gateway a flood of guesses can occupy. A correct key is
answered at once, whoever else calls from the same address, so the delay does not hide a
correct guess: what protects keys from guessing is their length.
"""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from ...errors import TooManyWrongKeys

# Wrong keys of an address that are answered without delay, within this many seconds.
_FREE_FAILURES, _WINDOW = 5, 60.0

# The delay in seconds: the first one, doubled with each failure up to the longest.
_FIRST_DELAY, _MAX_DELAY = 0.05, 1.0

# Addresses that are remembered at a time.
_MAX_ADDRESSES = 10_000

# Delayed answers at a time, of one address and in all. Each of them holds a thread or a
# greenlet, and a flood of wrong keys must not hold them all.
_MAX_WAITING_EACH, _MAX_WAITING = 2, 8


class AuthThrottle:
    """Counts wrong keys by address. One for each process."""

    def __init__(
        self,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleep, self._clock = sleep, clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._waiting: Counter[str] = Counter()

    def record_failure(self, address: str) -> None:
        """Count a wrong key of *address*, and wait if there were too many of late.

        Raises TooManyWrongKeys, at once, if too many are waiting already.
        """
        # Counting and the check of the waiting ones happen under one lock: of many
        # failures that arrive together, none escapes the delay caused by the others.
        with self._lock:
            excess = self._count(address) - _FREE_FAILURES
            if excess <= 0:
                return
            full = self._waiting.total() >= _MAX_WAITING
            if full or self._waiting[address] >= _MAX_WAITING_EACH:
                raise TooManyWrongKeys
            self._waiting[address] += 1
        try:
            # The exponent is bounded, or the float would overflow.
            self._sleep(min(_FIRST_DELAY * 2.0 ** min(excess - 1, 10), _MAX_DELAY))
        finally:
            with self._lock:
                self._waiting[address] -= 1
                if not self._waiting[address]:
                    del self._waiting[address]

    def _count(self, address: str) -> int:
        """The failures of *address* within the window, this one included."""
        now = self._clock()
        count, since = self._failures.pop(address, (0, now))
        if now - since > _WINDOW:
            count, since = 0, now
        self._failures[address] = count + 1, since
        while len(self._failures) > _MAX_ADDRESSES:
            self._failures.popitem(last=False)
        return count + 1
