"""The ledger as the console reads it: sums over slices of time, and single requests.

Nothing here is read as a whole: a slice comes to a few sums, and a list has an end.
"""

import json
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, case, func, select

from .database import reading
from .ledger import counted, total
from .tables import requests

# Rows of sums that one slice may have, and requests that one list may.
_MOST_SUMS = 2000
_MOST_LISTED = 200

# By what an overview can be divided.
DIVISIONS = ("provider", "key")

# Waits are counted in steps: from so many seconds on, each so many times the last one.
_LEAST = 0.001
_STEP = 1.1


@dataclass(frozen=True, slots=True)
class LedgerSums:
    """Requests of one *group* that have waited alike for their first event.

    *wait* is the number of the step (see `wait_of`), None of those without an event.
    *cost* is in US dollars.
    """

    group: str
    wait: int | None
    requests: int
    failed: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    cost: float


def wait_of(step: float) -> float:
    """The seconds that a step of waiting begins with."""
    return float(_LEAST * _STEP**step)


@dataclass(frozen=True, slots=True)
class LedgerAttempt:
    """One try of a target. Times are in milliseconds, *after* the request began."""

    path: str
    provider: str
    status: int
    after: int
    took: int


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One request, as it was entered. Times are in seconds, *cost* in US dollars."""

    id: int
    began: float
    took: float
    first: float | None
    ended: str
    status: int
    key: str | None
    config: str | None
    target: str | None
    provider: str | None
    virtual_key: str | None
    model: str
    stream: bool
    cache: str
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    estimated: bool
    cost: float | None
    trace_id: str
    via: str | None
    error: str | None
    tries: tuple[LedgerAttempt, ...] = ()
    dropped: tuple[str, ...] = ()
    alias: str = ""


@dataclass(frozen=True, slots=True)
class LedgerFilter:
    """Which requests are meant; what is empty is not asked.

    *status* is one of STATUSES.
    """

    key: str = ""
    provider: str = ""
    status: str = ""


ANY = LedgerFilter()

_FAILED = requests.c.ended.in_(("failed", "cut"))


def _hundreds(first: int) -> ColumnElement[bool]:
    return requests.c.status.between(first, first + 99)


STATUSES = {
    "2xx": _hundreds(200),
    "4xx": _hundreds(400),
    "5xx": _hundreds(500),
    "failed": _FAILED,
    "cut": requests.c.ended == "cut",
    "left": requests.c.ended == "left",
}


class LedgerQueries:
    """What the ledger in the database of *open* tells. One for each process.

    Opened when it is first asked. Everything raises StoreUnavailable.
    """

    def __init__(self, open: Callable[[], Engine]) -> None:
        self._open, self._opening = open, threading.Lock()
        self._made: Engine | None = None

    def sums(self, by: str, since: float, until: float) -> list[LedgerSums]:
        """All requests that began from *since* until before *until*, in Unix seconds.

        *by* is one of DIVISIONS.
        """
        group, wait = requests.c[by].label("division"), _wait().label("wait")
        query = (
            select(
                group,
                wait,
                func.count(),
                counted(_FAILED),
                counted(requests.c.cache == "HIT"),
                total(requests.c.prompt_tokens),
                total(requests.c.completion_tokens),
                total(func.coalesce(requests.c.cost_micros, 0)),
            )
            .where(requests.c.began >= since, requests.c.began < until)
            # By their names: PostgreSQL takes no two expressions for the same that
            # have parameters of their own.
            .group_by("division", "wait")
            .order_by(func.count().desc())
            .limit(_MOST_SUMS)
        )
        with reading(self._engine()) as connection:
            return [_sums(*row) for row in connection.execute(query)]

    def latest(
        self, wanted: LedgerFilter = ANY, *, after: int = 0, most: int = 50
    ) -> list[LedgerEntry]:
        """The newest requests, those first, with ids above *after*."""
        query = (
            select(requests)
            .where(requests.c.id > after, *_conditions(wanted))
            .order_by(requests.c.id.desc())
            .limit(min(most, _MOST_LISTED))
        )
        with reading(self._engine()) as connection:
            return [_entry(row) for row in connection.execute(query).mappings()]

    def request(self, id: int) -> LedgerEntry | None:
        """The request with this number."""
        query = select(requests).where(requests.c.id == min(id, 2**63 - 1))
        with reading(self._engine()) as connection:
            row = connection.execute(query).mappings().first()
        return _entry(row) if row else None

    def close(self) -> None:
        """Let go of the database; it may go on, with a new connection."""
        with self._opening:
            made, self._made = self._made, None
        if made is not None:
            made.dispose()

    def _engine(self) -> Engine:
        with self._opening:
            self._made = self._made or self._open()
            return self._made


def _wait() -> Any:
    """The step of a request's wait; it may be no wait at all."""
    first = requests.c.first
    seconds = case((first > _LEAST, first), (first.is_not(None), _LEAST))
    return func.trunc(func.ln(seconds / _LEAST) / math.log(_STEP))


def _sums(group: Any, wait: Any, count: int, *sums: Any) -> LedgerSums:
    failed, cached, sent, made, micros = (int(each or 0) for each in sums)
    step = None if wait is None else int(wait)
    return LedgerSums(
        group or "", step, count, failed, cached, sent, made, micros / 1e6
    )


def _conditions(wanted: LedgerFilter) -> Sequence[ColumnElement[bool]]:
    conditions = []
    if wanted.key:
        conditions.append(requests.c.key == wanted.key)
    if wanted.provider:
        conditions.append(requests.c.provider == wanted.provider)
    if wanted.status in STATUSES:
        conditions.append(STATUSES[wanted.status])
    return conditions


def _entry(row: Any) -> LedgerEntry:
    fields = dict(row)
    micros, story = fields.pop("cost_micros"), fields.pop("story")
    cost = None if micros is None else micros / 1e6
    told = json.loads(story) if story else {}
    tries = tuple(LedgerAttempt(*each) for each in told.pop("tries", ()))
    dropped, alias = tuple(told.get("dropped", ())), told.get("alias", "")
    return LedgerEntry(**fields, cost=cost, tries=tries, dropped=dropped, alias=alias)
