"""Keeps requests within limits: reserves before a call, and settles after it.

The counters are in a file that the workers of one machine share (local_store.py), or in
Redis for all machines (redis_store.py, failover.py).
"""

import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from ..core.counters import (
    CounterAdjustment,
    CounterEntry,
    CounterState,
    UsageRequest,
    counter_adjustments,
    counter_entries,
    limit_reached,
    ratelimit_headers,
)

# Adjustments by the ids of their reservations.
Adjustments = Mapping[str, Sequence[CounterAdjustment]]


@dataclass(frozen=True, slots=True)
class ReserveResult:
    """All entries were added, or none, as the one with the index *refused* did not fit.

    *states* are those of all counters, as they are now. *blocking* are the entries of
    the counter that refused, pairs of expiry and amount. *counters* are those that have
    to be adjusted later; None if nothing could be counted.
    """

    counters: "Counters | None"
    states: Sequence[CounterState]
    refused: int | None = None
    blocking: Sequence[tuple[int, int]] = ()


class Counters(Protocol):
    """A store of counter entries. *now* is in Unix seconds."""

    def reserve(
        self, request_id: str, entries: Sequence[CounterEntry], now: float
    ) -> ReserveResult:
        """Add all of the entries or none, atomically."""

    def adjust(self, adjustments: Adjustments, now: float) -> None:
        """Correct what was reserved."""

    def close(self) -> None:
        """Write what is pending, and close files and connections."""


def reservation_id(request_id: str, holder: str) -> str:
    return f"{request_id}:{holder}"


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a request holds of one holder until it is settled.

    *headers* are OpenAI's `x-ratelimit-*` for this holder. Without *counters* there is
    nothing to settle.
    """

    id: str
    entries: Sequence[CounterEntry] = ()
    counters: Counters | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    # Acquired by the first thread that settles, and never released: when a caller hangs
    # up as its stream ends, two threads settle at once, and one of them must lose.
    _settled: threading.Lock = field(
        default_factory=lambda: threading.Lock(), repr=False
    )

    def end(self) -> bool:
        """Whether this is the first call, after which it must not be settled again."""
        return self._settled.acquire(blocking=False)


@dataclass(frozen=True, slots=True)
class Charge:
    """What was used of a reservation and those that later tries *added* to it.

    Without a price, *money* is None.
    """

    reservation: Reservation
    tokens: int
    money: Decimal | None = None
    added: Sequence[Reservation] = ()


# Why two steps. The tokens of a request are known only after it: to count them then
# would let any number of parallel requests pass a limit before the first one has ended.
# So each one adds its estimate before it is sent, in the same atomic step that checks
# the limits, and `settle` adds the difference to what was really used. Invariant: each
# reservation is settled at most once, whoever tries; one that never is, because its
# process was killed, ends when its entries expire.


class Meter:
    """Reserves and settles usage, counted by *counters*.

    A request belongs to the day and the month in which it began. What it uses beyond
    its estimate counts in the minute in which it ends.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def reserve(
        self, usage_requests: Sequence[UsageRequest], now: float
    ) -> tuple[Reservation, ...]:
        """Reserve all that is requested, or nothing. Raises LimitReached.

        There is one reservation for each usage request, in the same order, and each
        holder has one at most. They are settled separately, except that one with a
        `prior` is settled together with those that it adds to.
        """
        request_id = secrets.token_hex(16)
        entries = counter_entries(usage_requests, request_id, now)
        result = ReserveResult(None, ())
        if entries:
            result = self._counters.reserve(request_id, entries, now)
        if result.refused is not None:
            raise limit_reached(
                entries, result.states, result.refused, result.blocking, now
            )
        reservations = []
        for usage in usage_requests:
            own = [
                (entry, state)
                for entry, state in zip(entries, result.states, strict=True)
                if entry.holder == usage.holder
            ]
            own_entries, states = [e for e, _ in own], [s for _, s in own]
            reservation = Reservation(
                reservation_id(request_id, usage.holder),
                own_entries,
                result.counters if own else None,
                ratelimit_headers(own_entries, states, now),
            )
            reservations.append(reservation)
        return tuple(reservations)

    def settle(self, charges: Sequence[Charge], now: float) -> None:
        """Charge what was used, and release the rest; only the first time."""
        # Reservations may be in different counters: those made while Redis was
        # unavailable are in the machine's own.
        adjustments: dict[Counters, dict[str, Sequence[CounterAdjustment]]] = {}
        for charge in charges:
            # The first reservation stands for all: none is settled without the others.
            if not charge.reservation.end():
                continue
            reservations = (charge.reservation, *charge.added)
            adjusted = counter_adjustments(
                [each.entries for each in reservations],
                charge.tokens,
                charge.money,
                now,
            )
            for reservation, own in zip(reservations, adjusted, strict=True):
                if reservation.counters:
                    by_id = adjustments.setdefault(reservation.counters, {})
                    by_id[reservation.id] = own
        for counters, by_id in adjustments.items():
            counters.adjust(by_id, now)

    def close(self) -> None:
        self._counters.close()
