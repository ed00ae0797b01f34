"""One target, with its retries; and the record of all tries of a request."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..core.caching import CacheStatus
from ..core.retry import BUDGET, MOST_TRIES
from ..core.routing import Target
from ..errors import Cancelled, GatewayError, UpstreamTimeout
from .clients.cancellation import Cancellation
from .tracing import RequestSpan

# Seconds. After none, gevent would not look whether anything has arrived.
_PAUSE = 1e-4


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


@dataclass(frozen=True, slots=True)
class Attempts:
    """Calls targets, each as often as its policy wants, and writes a trace.

    *began* is when the request did, *ends* when the whole of it has to be answered, on
    the monotonic clock.
    """

    call: Callable[[Target], Any]
    trace: Trace
    clock: Clock
    began: float = 0.0
    ends: float | None = None
    cancellation: Cancellation = field(default_factory=Cancellation)

    def __call__(self, target: Target) -> Any:
        """The answer of *target*. Raises its last failure, or Cancelled."""
        self.trace.target, self.trace.retries = target, 0
        left = BUDGET
        while True:
            try:
                return self._once(target)
            except GatewayError as e:
                wait = self._wait(target, e, left)
                if wait is None:
                    self._give_up(target, e)
                    raise
            left -= wait
            (self.clock.sleep or self.cancellation.wait)(wait)
            self.trace.retries += 1

    def _once(self, target: Target) -> Any:
        began, asked = self.clock.monotonic(), self._traced(target)
        try:
            with self.cancellation.explained():
                self.cancellation.check()
                answer = self.call(self._in_time(asked))
        except Cancelled as e:
            self._record(target, began, e.reason)
            raise
        except GatewayError as e:
            self._record(target, began, e)
            raise
        except BaseException:
            self._record(target, began, GatewayError("the gateway failed"))
            raise
        self._record(target, began)
        return answer

    def _record(
        self, target: Target, began: float, error: GatewayError | None = None
    ) -> None:
        took = round(1000 * (self.clock.monotonic() - began))
        after = round(1000 * (began - self.began))
        status, message = (error.status, error.message) if error else (200, None)
        failure = type(error).__name__ if error else None
        where = target.path, target.provider
        record = Attempt(*where, status, took, message, failure, after)
        self.trace.attempts.append(record)

    def _traced(self, target: Target) -> Target:
        """*target*, whose calls are made within a span if requests are traced."""
        span = self.trace.span
        return target if span is None else span.start_attempt(target, self.clock.now())

    def _in_time(self, target: Target) -> Target:
        """*target*, limited to what is left of the whole request's time."""
        if self.ends is None:
            return target
        left = self.ends - self.clock.monotonic()
        if left <= 0:
            raise UpstreamTimeout("The deadline of the config has passed.", status=408)
        limits = [left, target.request_timeout or left]
        return replace(target, request_timeout=min(limits))

    def _wait(self, target: Target, error: GatewayError, left: float) -> float | None:
        if len(self.trace.attempts) >= MOST_TRIES:
            return None
        if self.ends is not None:
            left = min(left, self.ends - self.clock.monotonic())
        return target.retry.delay(
            self.trace.retries,
            error,
            now=self.clock.now(),
            jitter=self.clock.chance(),
            left=left,
        )

    def _give_up(self, target: Target, error: GatewayError) -> None:
        """Note that retries were wanted, and used up or in vain.

        Others get their turn: a target that is of no use at all fails without waiting
        for anybody, and there may be many.
        """
        time.sleep(_PAUSE)
        if target.retry.attempts > 0 and target.retry.applies(error):
            self.trace.retries = -1
