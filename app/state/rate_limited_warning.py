"""Log messages of a part that fails for every request: one a minute."""

import logging
import time
from collections.abc import Callable

logger = logging.getLogger("lastword")


class RateLimitedWarning:
    """Logs *message* at *level*, at most once a minute."""

    def __init__(
        self,
        message: str,
        clock: Callable[[], float] = time.monotonic,
        level: int = logging.WARNING,
    ) -> None:
        self._message, self._clock, self._level = message, clock, level
        # Not 0: a monotonic clock may start anywhere, so 0 may be in the future.
        self._next = float("-inf")

    def __call__(self, error: Exception) -> None:
        # Without a lock: at worst two threads log the same message.
        if self._clock() >= self._next:
            self._next = self._clock() + 60
            logger.log(self._level, self._message, extra={"reason": str(error)})
