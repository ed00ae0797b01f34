"""Keeps requests within limits: takes before a call, and settles after it.

Where the counters are kept is somebody else's affair: in a file that the workers of one
machine share (local.py), or in Redis for all machines (redis.py).
"""

import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from ..core import limits
from ..core.limits import (
    CounterAdjustment,
    CounterEntry,
    CounterState,
    LimitReached,
    UsageRequest,
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What became of draws: all were made, or that with the number *refused* was not.

    *standings* are those of all counters, as they are now; *entries*, pairs of expiry
    and amount, those of the counter that refused. *keeper* is who has to be told of
    changes; None if nothing could be counted.
    """

    keeper: "Counters | None"
    standings: Sequence[CounterState]
    refused: int | None = None
    entries: Sequence[tuple[int, int]] = ()


class Counters(Protocol):
    """Where entries are kept. *now* is in Unix seconds."""

    def draw(self, id: str, draws: Sequence[CounterEntry], now: float) -> Drawn:
        """Make all of the draws of request *id*, or none, with nobody else between."""

    def change(self, changes: "Changes", now: float) -> None:
        """Correct what was drawn."""

    def close(self) -> None:
        """Have done all that is still to be done, and let go of files, and the like."""


# What to correct of that which was drawn under a name.
Changes = Mapping[str, Sequence[CounterAdjustment]]


def hold(id: str, holder: str) -> str:
    """The name of what request *id* has drawn on one holder."""
    return f"{id}:{holder}"


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a request holds of one holder until it is settled.

    *headers* are OpenAI's `x-ratelimit-*` for this holder. Without a *keeper* there is
    nothing to settle.
    """

    hold: str
    draws: Sequence[CounterEntry] = ()
    keeper: Counters | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    # Taken by whoever settles it, and never given back.
    _settled: threading.Lock = field(
        default_factory=lambda: threading.Lock(), repr=False
    )

    def end(self) -> bool:
        """Whether this is the first time that it is to be settled."""
        return self._settled.acquire(blocking=False)


@dataclass(frozen=True, slots=True)
class Charge:
    """What was used of a reservation, which may have been raised by others.

    Without a price, *money* is None.
    """

    reservation: Reservation
    tokens: int
    money: Decimal | None = None
    raises: Sequence[Reservation] = ()

    @property
    def parts(self) -> Sequence[Reservation]:
        """All that is to be settled, in the order in which it was drawn."""
        return (self.reservation, *self.raises)


class Meter:
    """Who may use how much, counted by *counters*.

    A request belongs to the day and the month in which it began. What it takes beyond
    its estimate counts in the minute in which it ends.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def reserve(
        self, claims: Sequence[UsageRequest], now: float
    ) -> tuple[Reservation, ...]:
        """Take all that is claimed, or nothing. Raises LimitReached.

        Each claim has its own reservation, in their order, and each holder one claim at
        most. They are settled apart from each other. A reservation that raises another
        one holds no more than what was missing, and is settled together with that.
        """
        id = secrets.token_hex(16)
        draws = limits.draws(claims, id, now)
        drawn = self._counters.draw(id, draws, now) if draws else Drawn(None, ())
        if drawn.refused is not None:
            raise _refused(draws, drawn, now)
        pairs = list(zip(draws, drawn.standings, strict=True))
        return tuple(_reserved(id, c.holder, pairs, drawn.keeper, now) for c in claims)

    def settle(self, charges: Sequence[Charge], now: float) -> None:
        """Charge what was used, and free the rest; once, and then never again."""
        corrected: dict[Counters, dict[str, Sequence[CounterAdjustment]]] = {}
        for charge in charges:
            # The first of its parts stands for all: nobody settles some of them.
            if charge.reservation.end():
                for part, changes in zip(
                    charge.parts, _corrections(charge, now), strict=True
                ):
                    if part.keeper:
                        corrected.setdefault(part.keeper, {})[part.hold] = changes
        for keeper, own in corrected.items():
            keeper.change(own, now)

    def close(self) -> None:
        """Have done all that is still to be done."""
        self._counters.close()


def _corrections(charge: Charge, now: float) -> Sequence[Sequence[CounterAdjustment]]:
    drawn = [part.draws for part in charge.parts]
    return limits.changes(drawn, charge.tokens, charge.money, now)


def _refused(draws: Sequence[CounterEntry], drawn: Drawn, now: float) -> LimitReached:
    assert drawn.refused is not None
    return limits.refused(draws, drawn.standings, drawn.refused, drawn.entries, now)


def _reserved(
    id: str,
    holder: str,
    pairs: Sequence[tuple[CounterEntry, CounterState]],
    keeper: Counters | None,
    now: float,
) -> Reservation:
    """What is reserved of *holder*, one of those on whom all was drawn."""
    own = [pair for pair in pairs if pair[0].holder == holder]
    draws, standings = [draw for draw, _ in own], [standing for _, standing in own]
    told = limits.headers(draws, standings, now)
    return Reservation(hold(id, holder), draws, keeper if own else None, told)
