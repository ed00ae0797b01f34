"""Reads the ledger, for the console and `flask usage`: totals, and single requests.

No query returns the whole ledger: totals are aggregated by the database, and lists have
a limit.
"""

import json
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Engine, Float, case, cast, func, select

from ..core.caching import CacheStatus
from .database import reading
from .tables import requests

# Aggregated rows that one time slice may have, and requests that a list may have.
_MAX_ROWS = 2000
_MAX_LISTED = 200

# By what totals can be grouped: those of the overview, those of `flask usage`.
DIVISIONS = ("provider", "key")
GROUPS = ("key", "config", "virtual_key", "model", "provider", "day", "status")

# Waits for the first event are counted in a histogram: its steps begin at so many
# seconds, and each is so many times as long as the one before. A percentile is right
# within 5 percent.
_FIRST_STEP = 0.001
_STEP_RATIO = 1.1


def wait_of(step: float) -> float:
    """The seconds at which a step of the histogram begins."""
    return float(_FIRST_STEP * _STEP_RATIO**step)


def quantile(waits: Mapping[int, int], share: float) -> float | None:
    """The seconds within which that *share* of *waits* was over; None without any.

    It is the middle of the step in which the quantile lies.
    """
    # Each step's count is subtracted until the quantile's rank is reached.
    rest = share * sum(waits.values())
    for step in sorted(waits):
        rest -= waits[step]
        if rest <= 0:
            return wait_of(step + 0.5)
    return None


@dataclass(frozen=True, slots=True)
class UsageTotals:
    """Aggregated figures of the requests of one *group*.

    *cached* were answered from the cache. *cost* is in US dollars, of requests with a
    price. *waits* is the histogram of waits for the first event: numbers of requests by
    step. Unlike percentiles, histograms can be merged.
    """

    group: str = ""
    requests: int = 0
    failed: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    waits: Mapping[int, int] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def failure_rate(self) -> float | None:
        """The share that failed; None without requests."""
        return self.failed / self.requests if self.requests else None

    @property
    def p50(self) -> float | None:
        """Seconds to the first event."""
        return quantile(self.waits, 0.5)

    @property
    def p95(self) -> float | None:
        """Seconds to the first event."""
        return quantile(self.waits, 0.95)


def merge_totals(totals: Iterable[UsageTotals], group: str = "") -> UsageTotals:
    """All *totals* as one, of that *group*."""
    parts = list(totals)
    waits: Counter[int] = Counter()
    for part in parts:
        waits.update(part.waits)
    return UsageTotals(
        group,
        sum(part.requests for part in parts),
        sum(part.failed for part in parts),
        sum(part.cached for part in parts),
        sum(part.prompt_tokens for part in parts),
        sum(part.completion_tokens for part in parts),
        sum(part.cost for part in parts),
        waits,
    )


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
    """One request, as in the table. Times are in seconds, *cost* in US dollars."""

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
    """Which requests to list; an empty field matches all. *status* is in STATUSES."""

    key: str = ""
    provider: str = ""
    status: str = ""


ANY = LedgerFilter()


# What counts as failed on the overview: also a stream that began with status 200.
_FAILED = requests.c.ended.in_(("failed", "cut"))

STATUSES: Mapping[str, ColumnElement[bool]] = {
    "2xx": requests.c.status.between(200, 299),
    "4xx": requests.c.status.between(400, 499),
    "5xx": requests.c.status.between(500, 599),
    "failed": _FAILED,
    "cut": requests.c.ended == "cut",
    "left": requests.c.ended == "left",
}


class LedgerQueries:
    """The ledger in the database that *open_engine* opens, on first use.

    There is one for each process. Every query raises StoreUnavailable.
    """

    def __init__(self, open_engine: Callable[[], Engine]) -> None:
        self._open_engine, self._lock = open_engine, threading.Lock()
        self._engine: Engine | None = None

    def sums(self, by: str, since: float, until: float) -> list[UsageTotals]:
        """Totals of all requests that began from *since* until before *until*.

        These are Unix seconds; *by* is one of DIVISIONS. The group of requests without
        a provider or key is empty.
        """
        # The step of the histogram, computed by the database: floor(log_1.1(s / 1 ms)).
        # Shorter waits count in the first step; a request without an event has none.
        first = requests.c.first
        seconds = case((first > _FIRST_STEP, first), (first.is_not(None), _FIRST_STEP))
        step = func.trunc(func.ln(seconds / _FIRST_STEP) / math.log(_STEP_RATIO))
        query = (
            select(requests.c[by].label("division"), step.label("step"))
            .add_columns(*_total_columns(_FAILED))
            .where(requests.c.began >= since, requests.c.began < until)
            # By their labels: to PostgreSQL, two expressions with parameters of their
            # own are never the same.
            .group_by("division", "step")
            .order_by(func.count().desc())
            .limit(_MAX_ROWS)
        )
        by_group: defaultdict[str, list[UsageTotals]] = defaultdict(list)
        with reading(self._connect()) as connection:
            for group, wait, *columns in connection.execute(query):
                row = _totals(group or "", columns, wait)
                by_group[row.group].append(row)
        return [merge_totals(rows, group) for group, rows in by_group.items()]

    def latest(
        self, only: LedgerFilter = ANY, *, after: int = 0, limit: int = 50
    ) -> list[LedgerEntry]:
        """The newest requests, newest first, of those with ids above *after*."""
        query = select(requests).where(requests.c.id > after)
        if only.key:
            query = query.where(requests.c.key == only.key)
        if only.provider:
            query = query.where(requests.c.provider == only.provider)
        if only.status in STATUSES:
            query = query.where(STATUSES[only.status])
        query = query.order_by(requests.c.id.desc()).limit(min(limit, _MAX_LISTED))
        with reading(self._connect()) as connection:
            return [_ledger_entry(row) for row in connection.execute(query).mappings()]

    def request(self, id: int) -> LedgerEntry | None:
        """The request with this id."""
        # A larger integer is an error to both databases, and not merely absent.
        query = select(requests).where(requests.c.id == min(id, 2**63 - 1))
        with reading(self._connect()) as connection:
            row = connection.execute(query).mappings().first()
        return _ledger_entry(row) if row else None

    def close(self) -> None:
        """Close the database; later queries open it anew."""
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def _connect(self) -> Engine:
        with self._lock:
            self._engine = self._engine or self._open_engine()
            return self._engine


def usage_totals(engine: Engine, by: str, since: float = 0) -> list[UsageTotals]:
    """Totals of all requests from Unix second *since* on, the largest group first.

    *by* is one of GROUPS. Failed are those with an error status. There are no waits.
    """
    # Days are in UTC: 86,400 seconds each, as Unix time has no leap seconds.
    column = func.floor(requests.c.began / 86400) if by == "day" else requests.c[by]
    group = column.label("group")
    query = (
        select(group, *_total_columns(requests.c.status >= 400))
        .where(requests.c.began >= since)
        .group_by(group)
        .order_by(func.count().desc(), group)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    totals = []
    for name, *columns in rows:
        if by == "day":
            name = time.strftime("%Y-%m-%d", time.gmtime(int(name) * 86400))
        totals.append(_totals(str(name or "-"), columns))
    return totals


def _total_columns(failed: ColumnElement[bool]) -> Sequence[ColumnElement[Any]]:
    """The columns from which `_totals` makes UsageTotals."""
    hit = requests.c.cache == CacheStatus.HIT.value
    numbers = (
        requests.c.prompt_tokens,
        requests.c.completion_tokens,
        func.coalesce(requests.c.cost_micros, 0),
    )
    return (
        func.count(),
        func.sum(case((failed, 1), else_=0)),
        func.sum(case((hit, 1), else_=0)),
        # As floats: SQLite's sum of integers fails beyond 64 bits.
        *(func.sum(cast(number, Float)) for number in numbers),
    )


def _totals(
    group: str, columns: Sequence[Any], step: float | None = None
) -> UsageTotals:
    count, failed, cached, prompt, completion, micros = (int(c or 0) for c in columns)
    waits = {} if step is None else {int(step): count}
    return UsageTotals(
        group, count, failed, cached, prompt, completion, micros / 1e6, waits
    )


def _ledger_entry(row: Any) -> LedgerEntry:
    fields = dict(row)
    micros, story = fields.pop("cost_micros"), fields.pop("story")
    cost = None if micros is None else micros / 1e6
    document = json.loads(story) if story else {}
    tries = tuple(LedgerAttempt(*each) for each in document.get("tries", ()))
    dropped, alias = tuple(document.get("dropped", ())), document.get("alias", "")
    return LedgerEntry(**fields, cost=cost, tries=tries, dropped=dropped, alias=alias)
