"""The ledger: one row for each request, written in batches, off its path.

It holds no prompt and no text. Rows wait in memory until they are written; when too
many wait, because the database is slow or gone, the oldest are dropped and counted.
Rows that are too old are deleted, a batch at a time, between what is written.
"""

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Float, case, cast, delete, func, insert, select
from sqlalchemy.exc import DataError, IntegrityError

from ..core.caching import CacheStatus
from ..errors import StoreUnavailable
from ..state.rate_limited_warning import RateLimitedWarning
from .database import reading, writing
from .tables import requests

logger = logging.getLogger("lastword")

Row = Mapping[str, Any]

# Seconds: a day, between looks for old rows, between tries to write the last rows.
_DAY = 86400
_HOUR = 3600
_PAUSE = 0.5

# Rows that one statement deletes, so that it is soon over.
_BATCH = 1000


class Ledger:
    """Takes rows from requests and writes them every *every* seconds.

    At most *most* rows wait. Those older than *days* are deleted; None keeps them.
    For *patience* seconds it insists on writing the last rows. One for each process.
    *now* is the time of day, *clock* any that goes on evenly.
    """

    def __init__(
        self,
        engine: Callable[[], Engine],
        *,
        every: float = 1.0,
        most: int = 10_000,
        days: int | None = None,
        patience: float = 3.0,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open = engine
        self._engine: Engine | None = None
        self._every, self._most, self._days = every, most, days
        self._patience, self._now, self._clock = patience, now, clock
        self._look = float("-inf")
        self._complain = RateLimitedWarning("the ledger cannot be written: rows wait")
        self._rows: deque[Row] = deque()
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._writer: threading.Thread | None = None
        self._stop = threading.Event()
        self.dropped = 0

    def add(self, row: Row) -> None:
        """Have *row* written soon. Never waits for the database."""
        with self._lock:
            self._rows.append(row)
            if len(self._rows) > self._most:
                self._rows.popleft()
                self.dropped += 1
            if self._writer is None:
                self._start()

    @property
    def waiting(self) -> int:
        """How many rows are not written yet."""
        return len(self._rows)

    def _start(self) -> None:
        self._writer = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._writer.start()
        atexit.register(self.close)

    def _write(self) -> None:
        while not self._stop.wait(self._every):
            self.flush()
            if self._days and self._clock() >= self._look:
                self._forget(self._now() - self._days * _DAY)

    def _forget(self, before: float) -> None:
        """Delete a batch of rows; when that were all, look again in an hour."""
        deleted = 0
        try:
            with self._writing:
                engine = self._connected()
            deleted = forget(engine, before)
        except Exception:
            logger.warning("old rows of the ledger stay for now", exc_info=True)
        if deleted < _BATCH:
            self._look = self._clock() + _HOUR

    def flush(self) -> None:
        """Write what waits. What cannot be written goes on waiting."""
        with self._writing:
            with self._lock:
                rows, self._rows = list(self._rows), deque()
            if rows:
                self._write_out(rows)

    def _write_out(self, rows: list[Row]) -> None:
        try:
            self._insert(rows)
        except Exception as e:
            if _is_gone(e):
                self._complain(e)
                self._put_back(rows)
            elif len(rows) > 1:
                for row in rows:
                    self._write_out([row])
            else:
                # It would never be written, and those behind it neither.
                self.dropped += 1
                logger.exception("a row of the ledger is lost")

    def _insert(self, rows: Sequence[Row]) -> None:
        with writing(self._connected()) as connection:
            connection.execute(insert(requests), [dict(row) for row in rows])

    def _connected(self) -> Engine:
        if self._engine is None:
            self._engine = self._open()
        return self._engine

    def _put_back(self, rows: list[Row]) -> None:
        with self._lock:
            waiting = [*rows, *self._rows]
            over = max(len(waiting) - self._most, 0)
            self._rows = deque(waiting[over:])
            self.dropped += over

    def close(self) -> None:
        """Write what waits, and end. What cannot be written by then is lost."""
        self._stop.set()
        if self._writer and self._writer is not threading.current_thread():
            self._writer.join(5)
        self._insist()
        self._give_up()
        if self._engine is not None:
            self._engine.dispose()
        atexit.unregister(self.close)

    def _insist(self) -> None:
        until = self._clock() + self._patience
        self.flush()
        while self._rows and self._clock() < until:
            time.sleep(_PAUSE)
            self.flush()

    def _give_up(self) -> None:
        with self._lock:
            lost = len(self._rows)
            self._rows.clear()
            self.dropped += lost
        if lost:
            logger.error("%d rows of the ledger are lost: it cannot be written", lost)


def _is_gone(error: Exception) -> bool:
    """Whether the database is out of reach, and not a row at fault."""
    faults = (DataError, IntegrityError)
    is_fault = isinstance(error.__cause__, faults)
    return isinstance(error, StoreUnavailable) and not is_fault


def forget(engine: Engine, before: float, most: int = _BATCH) -> int:
    """Delete requests that began *before*, *most* of them at a time; how many."""
    old = (
        select(requests.c.id)
        .where(requests.c.began < before)
        .order_by(requests.c.began)
        .limit(most)
        # PostgreSQL: each worker takes others.
        .with_for_update(skip_locked=True)
    )
    with writing(engine) as connection:
        gone = connection.execute(delete(requests).where(requests.c.id.in_(old)))
    return gone.rowcount


# What it tells

# By what usage can be summed up.
GROUPS = ("key", "config", "virtual_key", "model", "provider", "day", "status")


@dataclass(frozen=True, slots=True)
class Sum:
    """The requests of one group. *cost* is in US dollars, of those with a price.

    *cached* are those that were answered from the cache.
    """

    group: str
    requests: int
    failed: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    cost: float


def usage(engine: Engine, by: str, since: float = 0) -> list[Sum]:
    """Sums of all requests from Unix second *since* on, the largest group first."""
    group = _group(by).label("group")
    query = (
        select(
            group,
            func.count(),
            counted(requests.c.status >= 400),
            counted(requests.c.cache == CacheStatus.HIT.value),
            total(requests.c.prompt_tokens),
            total(requests.c.completion_tokens),
            total(func.coalesce(requests.c.cost_micros, 0)),
        )
        .where(requests.c.began >= since)
        .group_by(group)
        .order_by(func.count().desc(), group)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return [_sum(by, *row) for row in rows]


def counted(condition: Any) -> Any:
    return func.sum(case((condition, 1), else_=0))


def total(column: Any) -> Any:
    """Of numbers of any size: SQLite's sum of integers fails beyond 64 bits."""
    return func.sum(cast(column, Float))


def _group(by: str) -> Any:
    if by == "day":
        return func.floor(requests.c.began / 86400)
    return getattr(requests.c, by)


def _sum(by: str, group: Any, count: int, *sums: Any) -> Sum:
    if by == "day":
        group = time.strftime("%Y-%m-%d", time.gmtime(int(group) * 86400))
    failed, cached, sent, made, micros = (int(each or 0) for each in sums)
    return Sum(str(group or "-"), count, failed, cached, sent, made, micros / 1e6)
