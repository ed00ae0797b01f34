"""Circuit breakers: targets that have failed too often get no calls for a while.

A circuit is the recent history of one target. Calls and failures are counted over
windows as long as the policy's cooldown, the first of which begins when the first call
ends. Once the cooldown of an open circuit is over, one call is let through as a probe,
and its result closes or reopens the circuit. A probe without a result, as when its
worker was killed, is given up after another cooldown, and the next call is the probe.

Circuits are kept per machine (local_store.py), also where Redis keeps the limits: a
provider that one machine cannot reach may well be reachable from another.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from ..core.routing import BreakerPolicy, Target
from ..errors import Cancelled, GatewayError, RateLimited

# Seconds for which a circuit is kept after its last call and the cooldown.
RETENTION = 3600


@dataclass(frozen=True, slots=True)
class Circuit:
    """The history of one target. All times are Unix seconds.

    *open_until* is None while it is closed; *probed_until* is when the probe that is
    under way is given up, and None if there is none.
    """

    window_start: float
    calls: int = 0
    failures: int = 0
    open_until: float | None = None
    probed_until: float | None = None

    @property
    def is_open(self) -> bool:
        return self.open_until is not None

    @property
    def blocked_until(self) -> float:
        """When the next call is let through; 0 while it is closed."""
        return max(self.open_until or 0, self.probed_until or 0)

    def available(self, now: float) -> bool:
        return self.open_until is None or now >= self.blocked_until

    def start_call(self, policy: BreakerPolicy, now: float) -> "Circuit":
        """The circuit after a call has started: if it is open, that is the probe."""
        if self.open_until is None:
            return self
        return replace(self, probed_until=now + policy.cooldown)

    def end_call(self, policy: BreakerPolicy, failed: bool, now: float) -> "Circuit":
        """The circuit after a call has ended."""
        # A call that started before the circuit opened, and ends while a probe is under
        # way, is taken for the probe: calls have no identity here, and its result is as
        # recent.
        probing = self.probed_until is not None
        if probing and not failed:
            return Circuit(now)
        calls, failures = self.calls + 1, self.failures + failed
        after = replace(self, calls=calls, failures=failures, probed_until=None)
        if probing or after.exceeds(policy):
            return replace(after, open_until=now + policy.cooldown)
        return after

    def exceeds(self, policy: BreakerPolicy) -> bool:
        """Whether there were more failures than *policy* accepts."""
        if self.calls < policy.minimum_requests:
            return False
        percentage = policy.failure_threshold_percentage
        if percentage is not None and self.failures > 0:
            if 100 * self.failures >= percentage * self.calls:
                return True
        count = policy.failure_threshold
        return count is not None and self.failures >= count


def current_circuit(
    circuit: Circuit | None, policy: BreakerPolicy, now: float
) -> Circuit:
    """*circuit*, or a new one if there is none or its window has passed."""
    if circuit is None:
        return Circuit(now)
    if not circuit.is_open and now - circuit.window_start > policy.cooldown:
        return Circuit(now)
    return circuit


class Circuits(Protocol):
    """A store of circuits, which several processes share. *now* is in Unix seconds.

    A circuit has the name that `circuit_name` makes of its target.
    """

    def read(self, name: str, now: float) -> Circuit | None:
        """The circuit of this name."""

    def enter(self, name: str, policy: BreakerPolicy, now: float) -> None:
        """Apply `start_call`, atomically."""

    def leave(self, name: str, policy: BreakerPolicy, failed: bool, now: float) -> None:
        """Apply `end_call`, atomically."""

    def read_all(self, now: float, limit: int) -> Mapping[str, Circuit]:
        """The circuits by their names, *limit* of them at most, open ones first."""


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """The state of a target's breaker: *seconds* until it lets the next call through.

    *state* is `closed`, `open`, `ready` (the next call is let through) or `probing`.
    """

    provider: str
    virtual_key: str
    name: str
    state: str
    calls: int
    failures: int
    seconds: float = 0.0


def circuit_name(target: Target) -> str:
    """The name of a target's circuit: its identity, and what describes it to people.

    Targets of the same identity have the same description, so the identity alone tells
    circuits apart; the rest is here because snapshots are made from the name.
    """
    return "|".join(
        (
            target.identity,
            target.provider,
            target.virtual_key or "",
            target.name or "",
        )
    )


def _snapshot(circuit_name: str, circuit: Circuit, now: float) -> BreakerSnapshot:
    parts = circuit_name.split("|", 3) + [""] * 3
    provider, virtual_key, target_name = parts[1:4]
    state, seconds = "closed", 0.0
    if circuit.is_open:
        seconds = max(circuit.blocked_until - now, 0.0)
        state = "ready"
        if seconds > 0:
            state = "probing" if circuit.probed_until else "open"
    return BreakerSnapshot(
        provider,
        virtual_key,
        target_name,
        state,
        circuit.calls,
        circuit.failures,
        seconds,
    )


class Breaker:
    """The breakers of all targets, whose circuits are in *circuits*."""

    def __init__(
        self, circuits: Circuits, clock: Callable[[], float] = time.time
    ) -> None:
        self._circuits, self._clock = circuits, clock

    def available(self, target: Target) -> bool:
        if target.breaker is None:
            return True
        now = self._clock()
        circuit = self._circuits.read(circuit_name(target), now)
        return circuit is None or circuit.available(now)

    def enter(self, target: Target) -> None:
        if target.breaker is not None:
            self._circuits.enter(circuit_name(target), target.breaker, self._clock())

    def leave(self, target: Target, status: int) -> None:
        policy = target.breaker
        if policy is not None:
            failed = policy.is_failure(status)
            self._circuits.leave(circuit_name(target), policy, failed, self._clock())

    def snapshots(self, limit: int = 200) -> list[BreakerSnapshot]:
        """Those of targets that were called within the hour, open ones first."""
        now = self._clock()
        snapshots = [
            _snapshot(name, circuit, now)
            for name, circuit in self._circuits.read_all(now, limit).items()
        ]
        return sorted(snapshots, key=lambda s: (s.state == "closed", s.provider))


@contextmanager
def guard_call(breaker: Breaker, target: Target) -> Iterator[None]:
    """Count the result of the call to *target* that is made in the block.

    An exception is raised on; one that is no GatewayError counts as status 500.
    """
    breaker.enter(target)
    try:
        yield
    except (Cancelled, RateLimited):
        # Neither a caller that hung up nor a limit of the gateway's own, which kept the
        # call from being made, says anything of the target.
        raise
    except GatewayError as e:
        breaker.leave(target, e.status)
        raise
    except BaseException:
        breaker.leave(target, 500)
        raise
    breaker.leave(target, 200)
