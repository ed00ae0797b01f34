"""When a target is tried again; and the record of all attempts of a request.

The policy is a value (core/retry.py). Here it meets the clock: how long to wait, how
much of the budget is left, and what the trace says of it.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..core.caching import CacheStatus
from ..core.retry import BUDGET, MOST_TRIES
from ..core.routing import Target
from ..errors import Cancelled, GatewayError
from .tracing import RequestSpan


@dataclass(frozen=True, slots=True)
class Clock:
    """Time and chance, so that a test can have its own.

    Without a *sleep* of its own, a request that is to end wakes up.
    """

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] | None = None
    chance: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try: where, how it ended, and after how many milliseconds.

    It began *after* so many milliseconds of the request; *failure* is the kind of error
    that it has ended with.
    """

    path: str
    provider: str
    status: int
    milliseconds: int
    message: str | None = None
    failure: str | None = None
    after: int = 0

    def __str__(self) -> str:
        return f"{self.path} {self.status} {self.milliseconds}ms"

    def to_body(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "provider": self.provider,
            "status": self.status,
            "message": self.message,
        }


@dataclass(slots=True)
class Trace:
    """What has become of a request so far.

    *target* is the last one that was tried, *retries* how often it was tried again; -1
    if that was not enough. *key* is the name of the gateway key that was sent, *id* the
    trace id, *config* the id of the stored config. *caller* tells callers apart: by the
    key, or by where they call from. *cache* says whether the last
    target's answer had been given before. *span* is there if requests are traced.
    """

    key: str | None = None
    id: str = ""
    config: str | None = None
    caller: str = ""
    cache: CacheStatus = CacheStatus.DISABLED
    attempts: list[Attempt] = field(default_factory=list)
    target: Target | None = None
    retries: int = 0
    span: RequestSpan | None = None


class RetrySchedule:
    """Says whether, and when, *target* is tried again. One for each visit to a target.

    All waits together take no longer than the budget of retries, nor than until
    *deadline*, on the monotonic clock.
    """

    def __init__(
        self, target: Target, trace: Trace, clock: Clock, deadline: float | None
    ) -> None:
        self._target, self._trace, self._clock = target, trace, clock
        self._deadline = deadline
        self._budget = BUDGET
        trace.target, trace.retries = target, 0

    def next_delay(self, error: GatewayError) -> float | None:
        """Seconds until the next try, after *error*; None if there is none."""
        delay = None
        # Of the whole request: hundreds of targets with five retries each would
        # otherwise be a way to have a provider called a thousand times.
        if len(self._trace.attempts) < MOST_TRIES:
            left = self._budget
            if self._deadline is not None:
                left = min(left, self._deadline - self._clock.monotonic())
            delay = self._target.retry.delay(
                self._trace.retries,
                error,
                now=self._clock.now(),
                jitter=self._clock.chance(),
                left=left,
            )
        if delay is None:
            policy = self._target.retry
            if policy.attempts > 0 and policy.applies(error):
                # Retries were wanted, and are used up or were in vain.
                self._trace.retries = -1
            return None
        self._budget -= delay
        self._trace.retries += 1
        return delay


@contextmanager
def recorded_attempt(
    target: Target, trace: Trace, clock: Clock, began: float
) -> Iterator[Target]:
    """An attempt at *target*, which is on the *trace* when it is over.

    The target that is yielded carries the span of the attempt, if requests are traced.
    The request *began* then, on the monotonic clock.
    """
    start = clock.monotonic()
    if trace.span is not None:
        target = trace.span.start_attempt(target, clock.now())
    error: GatewayError | None = None
    try:
        yield target
    except Cancelled as e:
        error = e.reason
        raise
    except GatewayError as e:
        error = e
        raise
    except BaseException:
        # A fault of our own, or the end of a worker: the attempt is on the trace too.
        error = GatewayError("the gateway failed")
        raise
    finally:
        trace.attempts.append(
            Attempt(
                target.path,
                target.provider,
                error.status if error else 200,
                milliseconds=round(1000 * (clock.monotonic() - start)),
                message=error.message if error else None,
                failure=type(error).__name__ if error else None,
                after=round(1000 * (start - began)),
            )
        )
