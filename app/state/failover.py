"""Counters and circuits in Redis, and the machine's own while it is away.

What a request has to know before it goes on is asked at once; the rest goes by courier.
A request whose targets are known and well is one round trip: its draw. With a place
among the parallel requests it is two, since that has to be free when the caller has its
answer.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..core.limits import CounterAdjustment, CounterEntry
from ..core.routing import BreakerPolicy
from .background_writer import BackgroundWriter, QueuedCommand
from .breaker import Circuit, Circuits, current
from .meter import Changes, Counters, Drawn, hold
from .per_process import PerProcess
from .redis_store import (
    RedisCircuits,
    RedisCounters,
    RedisScriptCall,
    RedisUnavailable,
    circuit_of,
)

# Seconds after which what is known of a circuit is asked for again.
_FRESH = 1.0

# Targets that are remembered; the one not seen for longest is forgotten first.
_REMEMBERED = 10_000


class FailoverCounters:
    """Counters in Redis; those of *local* while it is away.

    What was drawn in Redis and cannot be settled there is kept until it is back.
    """

    def __init__(
        self, shared: RedisCounters, local: Counters, courier: BackgroundWriter
    ) -> None:
        self._shared, self._local, self._courier = shared, local, courier

    def draw(self, id: str, draws: Sequence[CounterEntry], now: float) -> Drawn:
        try:
            return replace(self._shared.draw(id, draws, now), keeper=self)
        except RedisUnavailable as e:
            if e.asked:
                self._undo(id, draws, now)
            return self._local.draw(id, draws, now)

    def _undo(self, id: str, draws: Sequence[CounterEntry], now: float) -> None:
        """Take back what may have been made, though nobody has heard of it."""
        undone: dict[str, list[CounterAdjustment]] = {}
        for draw in draws:
            undone.setdefault(hold(id, draw.holder), []).append(_undone(draw))
        self._send(undone, now)

    def change(self, changes: Changes, now: float) -> None:
        if not any(change.urgent for own in changes.values() for change in own):
            self._send(changes, now)
            return
        try:
            self._shared.change(changes, now)
        except RedisUnavailable:
            # They may have been made: then they are not made again.
            self._send(changes, now)

    def _send(self, changes: Changes, now: float) -> None:
        for name, own in changes.items():
            self._courier.put(QueuedCommand(self._shared.changing(name, own, now)))

    def close(self) -> None:
        self._courier.close()
        self._shared.close()
        self._local.close()


def _undone(draw: CounterEntry) -> CounterAdjustment:
    return CounterAdjustment(draw.counter, draw.part, draw.expires, -draw.amount)


# What becomes of a circuit when a call begins or ends.
_Step = Callable[[Circuit | None], Circuit]


def _entered(policy: BreakerPolicy, now: float, circuit: Circuit | None) -> Circuit:
    return current(circuit, policy, now).entered(policy, now)


def _left(
    policy: BreakerPolicy, failed: bool, now: float, circuit: Circuit | None
) -> Circuit:
    return current(circuit, policy, now).left(policy, failed, now)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A circuit as Redis has it, or will have it when it has heard of *unheard*.

    *due* is when it has to be asked for again, by the mirror's clock. *steps* is how
    many were taken here.
    """

    circuit: Circuit | None
    due: float
    unheard: tuple[_Step, ...] = ()
    steps: int = 0


class _Mirror:
    """What one process knows of the circuits in Redis; also which there are not."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def see(self, name: str) -> _Seen | None:
        """What is known; None if nothing is."""
        return self._seen.get(name)

    def ask(self, name: str) -> bool:
        """Whether to ask for it now; then nobody else has to for a while."""
        with self._lock:
            seen = self._find(name)
            if self._clock() < seen.due:
                return False
            self._keep(name, replace(seen, due=self._clock() + _FRESH))
            return True

    def hear(
        self, name: str, circuit: Circuit | None, told: _Step | None = None
    ) -> None:
        """Take what Redis has answered to the courier, who has told it of *told*."""
        with self._lock:
            seen = self._find(name)
            unheard = _after(seen.unheard, told)
            for step in unheard:
                circuit = step(circuit)
            due = self._clock() + _FRESH
            self._keep(name, _Seen(circuit, due, unheard, seen.steps))

    def learn(self, name: str, before: int, circuit: Circuit | None) -> Circuit | None:
        """Take what Redis has answered beside the courier, after *before* steps here.

        If others were taken since, nobody knows whether it had heard of them: then it
        does not count. Returns what does.
        """
        with self._lock:
            seen = self._find(name)
            if seen.steps != before:
                return seen.circuit
            due = self._clock() + _FRESH
            self._keep(name, replace(seen, circuit=circuit, due=due))
            return circuit

    def take(self, name: str, step: _Step) -> None:
        """Take a step of which Redis is yet to hear."""
        with self._lock:
            seen = self._find(name)
            unheard, steps = (*seen.unheard, step), seen.steps + 1
            self._keep(name, _Seen(step(seen.circuit), seen.due, unheard, steps))

    def forget(self, name: str, step: _Step) -> None:
        """Redis will not hear of it."""
        with self._lock:
            seen = self._find(name)
            self._keep(name, replace(seen, unheard=_after(seen.unheard, step)))

    def _find(self, name: str) -> _Seen:
        return self._seen.get(name) or _Seen(None, self._clock())

    def _keep(self, name: str, seen: _Seen) -> None:
        self._seen[name] = seen
        self._seen.move_to_end(name)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)


def _known(seen: _Seen | None) -> Circuit | None:
    return seen.circuit if seen else None


def _after(unheard: tuple[_Step, ...], told: _Step | None) -> tuple[_Step, ...]:
    """Those after *told*, as Redis hears of them in their order."""
    if told not in unheard:
        return unheard
    return unheard[unheard.index(told) + 1 :]


class FailoverCircuits:
    """Circuits in Redis, as far as this process knows; those of *local* without it.

    Redis is asked at once about a target of which nothing is known, and before one is
    tried again that was left alone. What is known for more than a second is asked for
    by courier, and told as it is known until then.
    """

    def __init__(
        self,
        shared: RedisCircuits,
        local: Circuits,
        courier: BackgroundWriter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared, self._local, self._courier = shared, local, courier
        self._mirrors = PerProcess(lambda: _Mirror(clock))

    def read(self, name: str, now: float) -> Circuit | None:
        known = self._known(name, now)
        if known and known.is_open and known.available(now):
            return self._asked(name, now)
        return known

    def _known(self, name: str, now: float) -> Circuit | None:
        """What is known without a question, except about what is new."""
        mirror = self._mirrors.get()
        seen = mirror.see(name)
        if seen is None and not self._shared.is_away:
            return self._asked(name, now)
        if mirror.ask(name):
            self._refresh(mirror, name)
        own = self._local.read(name, now) if self._shared.is_away else None
        return own or _known(seen)

    def _asked(self, name: str, now: float) -> Circuit | None:
        """What is known when Redis was asked."""
        mirror = self._mirrors.get()
        seen = mirror.see(name)
        if seen and seen.unheard:
            # It is known here before it is there.
            return seen.circuit
        try:
            answer = self._shared.read(name, now)
        except RedisUnavailable:
            return self._local.read(name, now) or _known(seen)
        return mirror.learn(name, seen.steps if seen else 0, answer)

    def _refresh(self, mirror: _Mirror, name: str) -> None:
        def heard(answer: Any) -> None:
            mirror.hear(name, circuit_of(answer))

        self._courier.put(
            QueuedCommand(self._shared.reading(name), heard, lambda: None)
        )

    def known(self, now: float, most: int) -> Mapping[str, Circuit]:
        try:
            return self._shared.known(now, most)
        except RedisUnavailable:
            return self._local.known(now, most)

    def enter(self, name: str, policy: BreakerPolicy, now: float) -> None:
        known = self._known(name, now)
        # Most circuits are closed, and then there is nothing to say.
        if known and known.is_open:
            step = partial(_entered, policy, now)
            call = self._shared.entering(name, policy, now)
            self._take(name, step, call, partial(self._local.enter, name, policy, now))

    def leave(self, name: str, policy: BreakerPolicy, failed: bool, now: float) -> None:
        aside = partial(self._local.leave, name, policy, failed, now)
        call = self._shared.leaving(name, policy, failed, now)
        self._take(name, partial(_left, policy, failed, now), call, aside)

    def _take(
        self, name: str, step: _Step, call: RedisScriptCall, aside: Callable[[], None]
    ) -> None:
        """Take *step* here, and there by *call*; or *aside*, if Redis is away."""
        if self._shared.is_away:
            aside()
            return
        mirror = self._mirrors.get()

        def heard(answer: Any) -> None:
            mirror.hear(name, circuit_of(answer), step)

        def lost() -> None:
            mirror.forget(name, step)
            aside()

        mirror.take(name, step)
        self._courier.put(QueuedCommand(call, heard, lost))
