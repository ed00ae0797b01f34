"""Leaves targets alone for a while that have failed too often.

A circuit is what is known of one target. Failures are counted over windows of the
policy's cooldown, the first of which begins with the end of the first call. When that
has passed for an open circuit, one call is let through: its end decides. If nothing is
heard of it for another cooldown, the next one is.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from ..core.routing import BreakerPolicy, Target

# Targets that are remembered; the one not seen for longest is forgotten first.
_REMEMBERED = 10_000

# Seconds for which a circuit is kept after all that it says is past.
KEPT = 3600


class Breaker(Protocol):
    """Which targets may be called."""

    def available(self, target: Target) -> bool:
        """Whether *target* may be called now. Changes nothing."""

    def enter(self, target: Target) -> None:
        """A call to *target* begins."""

    def leave(self, target: Target, status: int) -> None:
        """It has ended with *status*."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """What is known of one target. All times are of the same clock, in seconds.

    *open_until* is None while it is closed; *probed_until* is when the call that was
    let through is given up, and None if there is none.
    """

    began: float
    calls: int = 0
    failures: int = 0
    open_until: float | None = None
    probed_until: float | None = None

    def available(self, now: float) -> bool:
        if self.open_until is None:
            return True
        return now >= max(self.open_until, self.probed_until or 0)

    def entered(self, policy: BreakerPolicy, now: float) -> "Circuit":
        """As it is when a call has begun."""
        if self.open_until is None:
            return self
        return replace(self, probed_until=now + policy.cooldown)

    def left(self, policy: BreakerPolicy, failed: bool, now: float) -> "Circuit":
        """As it is when a call has ended."""
        probing = self.probed_until is not None
        if probing and not failed:
            return Circuit(now)
        calls, failures = self.calls + 1, self.failures + failed
        left = replace(self, calls=calls, failures=failures, probed_until=None)
        if (probing and failed) or left.has_tripped(policy):
            return replace(left, open_until=now + policy.cooldown)
        return left

    def has_tripped(self, policy: BreakerPolicy) -> bool:
        if self.calls < policy.minimum_requests:
            return False
        share, most = policy.failure_threshold_percentage, policy.failure_threshold
        over_share = share is not None and 100 * self.failures >= share * self.calls
        return (over_share and self.failures > 0) or (
            most is not None and self.failures >= most
        )


def current(circuit: Circuit | None, policy: BreakerPolicy, now: float) -> Circuit:
    """*circuit*, or a new one if there is none or its window has passed."""
    closed = circuit is not None and circuit.open_until is None
    if circuit is None or (closed and now - circuit.began > policy.cooldown):
        return Circuit(now)
    return circuit


class LocalBreaker:
    """A breaker for the threads of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._circuits: OrderedDict[str, Circuit] = OrderedDict()

    def available(self, target: Target) -> bool:
        with self._lock:
            circuit = self._circuits.get(target.identity)
            if target.breaker is None or circuit is None:
                return True
            return circuit.available(self._clock())

    def enter(self, target: Target) -> None:
        policy = target.breaker
        if policy is None:
            return
        with self._lock:
            circuit = self._circuits.get(target.identity)
            if circuit is not None:
                entered = circuit.entered(policy, self._clock())
                self._circuits[target.identity] = entered

    def leave(self, target: Target, status: int) -> None:
        policy = target.breaker
        if policy is None:
            return
        with self._lock:
            now = self._clock()
            circuit = current(self._circuits.pop(target.identity, None), policy, now)
            left = circuit.left(policy, policy.is_failure(status), now)
            self._circuits[target.identity] = left
            if len(self._circuits) > _REMEMBERED:
                self._circuits.popitem(last=False)


class Circuits(Protocol):
    """Where circuits are kept, for several processes. *now* is in Unix seconds."""

    def read(self, name: str) -> Circuit | None:
        """The circuit of the target with this identity."""

    def enter(self, name: str, policy: BreakerPolicy, now: float) -> None:
        """Have it `entered`, with nobody else in between."""

    def leave(self, name: str, policy: BreakerPolicy, failed: bool, now: float) -> None:
        """Have it `left`, with nobody else in between."""


class SharedBreaker:
    """A breaker whose circuits are kept by *circuits*, for all who share these."""

    def __init__(
        self, circuits: Circuits, clock: Callable[[], float] = time.time
    ) -> None:
        self._circuits, self._clock = circuits, clock

    def available(self, target: Target) -> bool:
        if target.breaker is None:
            return True
        circuit = self._circuits.read(target.identity)
        return circuit is None or circuit.available(self._clock())

    def enter(self, target: Target) -> None:
        if target.breaker is not None:
            self._circuits.enter(target.identity, target.breaker, self._clock())

    def leave(self, target: Target, status: int) -> None:
        policy = target.breaker
        if policy is not None:
            failed = policy.is_failure(status)
            self._circuits.leave(target.identity, policy, failed, self._clock())
