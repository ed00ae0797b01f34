"""Leaves targets alone for a while that have failed too often.

A circuit is what is known of one target. Failures are counted over windows of the
policy's cooldown, the first of which begins with the end of the first call. When that
has passed for an open circuit, one call is let through: its end decides. If nothing is
heard of it for another cooldown, the next one is.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from ..core.routing import BreakerPolicy, Target
from ..errors import Cancelled, GatewayError, RateLimited

# Seconds for which a circuit is kept after all that it says is past.
KEPT = 3600


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

    @property
    def is_open(self) -> bool:
        return self.open_until is not None

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


class Circuits(Protocol):
    """Where circuits are kept, for several processes. *now* is in Unix seconds.

    A circuit has the name that `name_of` gives its target.
    """

    def read(self, name: str, now: float) -> Circuit | None:
        """The circuit of this name."""

    def enter(self, name: str, policy: BreakerPolicy, now: float) -> None:
        """Have it `entered`, with nobody else in between."""

    def leave(self, name: str, policy: BreakerPolicy, failed: bool, now: float) -> None:
        """Have it `left`, with nobody else in between."""

    def known(self, now: float, most: int) -> Mapping[str, Circuit]:
        """Those that are kept by their names, *most* of them at the most."""


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """A target that has a breaker, and how that is: *seconds* until the next call.

    *state* is `closed`, `open`, `ready` (the next call is let through) or `probing`.
    """

    provider: str
    virtual_key: str
    name: str
    state: str
    calls: int
    failures: int
    seconds: float = 0.0


def name_of(target: Target) -> str:
    """The name of a target's circuit: its identity, and what tells people of it.

    What has the same identity has the same of all these.
    """
    return "|".join(
        (
            target.identity,
            target.provider,
            target.virtual_key or "",
            target.name or "",
        )
    )


def _seen(name: str, circuit: Circuit, now: float) -> BreakerSnapshot:
    _, provider, virtual_key, told = (name.split("|", 3) + [""] * 3)[:4]
    left = max(circuit.open_until or 0, circuit.probed_until or 0) - now
    state = "closed"
    if circuit.is_open:
        waits = "probing" if circuit.probed_until else "open"
        state = waits if left > 0 else "ready"
    return BreakerSnapshot(
        provider,
        virtual_key,
        told,
        state,
        circuit.calls,
        circuit.failures,
        max(left, 0.0) if circuit.is_open else 0.0,
    )


class Breaker:
    """A breaker whose circuits are kept by *circuits*, for all who share these."""

    def __init__(
        self, circuits: Circuits, clock: Callable[[], float] = time.time
    ) -> None:
        self._circuits, self._clock = circuits, clock

    def available(self, target: Target) -> bool:
        if target.breaker is None:
            return True
        now = self._clock()
        circuit = self._circuits.read(name_of(target), now)
        return circuit is None or circuit.available(now)

    def enter(self, target: Target) -> None:
        if target.breaker is not None:
            self._circuits.enter(name_of(target), target.breaker, self._clock())

    def leave(self, target: Target, status: int) -> None:
        policy = target.breaker
        if policy is not None:
            failed = policy.is_failure(status)
            self._circuits.leave(name_of(target), policy, failed, self._clock())

    def known(self, most: int = 200) -> list[BreakerSnapshot]:
        """The targets that have been called, those that are left alone first."""
        now = self._clock()
        found = self._circuits.known(now, most).items()
        seen = [_seen(name, circuit, now) for name, circuit in found]
        return sorted(seen, key=lambda each: (each.state == "closed", each.provider))


@contextmanager
def guarded(breaker: Breaker, target: Target) -> Iterator[None]:
    """Have *breaker* know of the call to *target* that is made in the block.

    What is raised there goes on; what is no GatewayError counts as a 500. A request
    that was cancelled says nothing of its target, nor does one that was not made
    because of a limit of a key.
    """
    breaker.enter(target)
    try:
        yield
    except (Cancelled, RateLimited):
        raise
    except GatewayError as e:
        breaker.leave(target, e.status)
        raise
    except BaseException:
        breaker.leave(target, 500)
        raise
    breaker.leave(target, 200)
