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
from ..core.limits import Change, Claim, Draw, LimitReached, Standing


@dataclass(frozen=True, slots=True)
class Drawn:
    """What became of draws: all were made, or that with the number *refused* was not.

    *standings* are those of all counters, as they are now; *entries*, pairs of expiry
    and amount, those of the counter that refused. *keeper* is who has to be told of
    changes; None if nothing could be counted.
    """

    keeper: "Counters | None"
    standings: Sequence[Standing]
    refused: int | None = None
    entries: Sequence[tuple[int, int]] = ()


class Counters(Protocol):
    """Where entries are kept. *id* names the request; *now* is in Unix seconds."""

    def draw(self, id: str, draws: Sequence[Draw], now: float) -> Drawn:
        """Make all of the draws, or none, with nobody else in between."""

    def change(self, id: str, changes: Sequence[Change], now: float) -> None:
        """Correct what a request has drawn."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a request holds until it is settled.

    *headers* are OpenAI's `x-ratelimit-*`, to be sent with the answer.
    """

    id: str
    draws: Sequence[Draw] = ()
    keeper: Counters | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    # Taken by whoever settles it, and never given back.
    _settled: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def end(self) -> bool:
        """Whether this is the first time that it is to be settled."""
        return self._settled.acquire(blocking=False)


class Meter(Protocol):
    """Who may use how much."""

    def reserve(self, claims: Sequence[Claim], now: float) -> Reservation:
        """Take all that is claimed, or nothing. Raises LimitReached.

        Each holder has one claim at most.
        """

    def settle(
        self, reservation: Reservation, tokens: int, money: Decimal | None, now: float
    ) -> None:
        """Charge what was used, and free the rest; once, and then never again.

        Without a price, *money* is None.
        """


class CountingMeter:
    """A meter whose counters are kept by *counters*.

    A request belongs to the day and the month in which it began. What it takes beyond
    its estimate counts in the minute in which it ends.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def reserve(self, claims: Sequence[Claim], now: float) -> Reservation:
        id = secrets.token_hex(16)
        draws = limits.draws(claims, id, now)
        if not draws:
            return Reservation(id)
        drawn = self._counters.draw(id, draws, now)
        if drawn.refused is not None:
            raise _refused(draws, drawn, now)
        told = limits.headers(draws, drawn.standings, now)
        return Reservation(id, draws, drawn.keeper, told)

    def settle(
        self, reservation: Reservation, tokens: int, money: Decimal | None, now: float
    ) -> None:
        if reservation.keeper and reservation.end():
            changes = tuple(limits.changes(reservation.draws, tokens, money, now))
            reservation.keeper.change(reservation.id, changes, now)


def _refused(draws: Sequence[Draw], drawn: Drawn, now: float) -> LimitReached:
    assert drawn.refused is not None
    return limits.refused(draws, drawn.standings, drawn.refused, drawn.entries, now)
