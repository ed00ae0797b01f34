"""Leaves targets alone for a while that have failed too often.

This one counts in its own process. Whatever shares counts between processes later has
the same three methods.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..core.routing import BreakerPolicy, Target

# Targets that are remembered; the one not seen for longest is forgotten first.
_REMEMBERED = 10_000


class Breaker(Protocol):
    """Which targets may be called."""

    def available(self, target: Target) -> bool:
        """Whether *target* may be called now. Changes nothing."""

    def enter(self, target: Target) -> None:
        """A call to *target* begins."""

    def leave(self, target: Target, status: int) -> None:
        """It has ended with *status*."""


@dataclass(slots=True)
class _Circuit:
    """What is known of one target. Times are of the monotonic clock."""

    began: float
    calls: int = 0
    failures: int = 0
    open_until: float | None = None
    probing: bool = False

    def has_tripped(self, policy: BreakerPolicy) -> bool:
        if self.calls < policy.minimum_requests:
            return False
        share, most = policy.failure_threshold_percentage, policy.failure_threshold
        over_share = share is not None and 100 * self.failures >= share * self.calls
        return (over_share and self.failures > 0) or (
            most is not None and self.failures >= most
        )


class LocalBreaker:
    """A breaker for the threads of one process.

    Failures are counted over windows of the policy's cooldown. When that has passed for
    an open target, one call is let through: its end decides.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._circuits: OrderedDict[str, _Circuit] = OrderedDict()

    def available(self, target: Target) -> bool:
        with self._lock:
            circuit = self._circuits.get(target.identity)
            if target.breaker is None or circuit is None or circuit.open_until is None:
                return True
            return self._clock() >= circuit.open_until and not circuit.probing

    def enter(self, target: Target) -> None:
        if target.breaker is None:
            return
        with self._lock:
            circuit = self._circuit(target, target.breaker)
            circuit.probing = circuit.open_until is not None

    def leave(self, target: Target, status: int) -> None:
        policy = target.breaker
        if policy is None:
            return
        with self._lock:
            circuit = self._circuit(target, policy)
            failed = policy.is_failure(status)
            circuit.calls += 1
            circuit.failures += failed
            if circuit.probing and not failed:
                self._circuits[target.identity] = _Circuit(self._clock())
            elif (circuit.probing and failed) or circuit.has_tripped(policy):
                circuit.open_until = self._clock() + policy.cooldown
            circuit.probing = False

    def _circuit(self, target: Target, policy: BreakerPolicy) -> _Circuit:
        """The circuit of *target*, in a new window if the last one has passed."""
        now = self._clock()
        circuit = self._circuits.pop(target.identity, None)
        closed = circuit is not None and circuit.open_until is None
        if circuit is None or (closed and now - circuit.began > policy.cooldown):
            circuit = _Circuit(now)
        self._circuits[target.identity] = circuit
        if len(self._circuits) > _REMEMBERED:
            self._circuits.popitem(last=False)
        return circuit
