"""The ledger: one row for each request, written in batches, off its path.

It holds no prompt and no text. Rows wait in memory until they are written; when too
many wait, because the database is slow or gone, the oldest are dropped and counted.
"""

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, case, func, insert, select
from sqlalchemy.exc import DataError, IntegrityError

from ..errors import StoreUnavailable
from .database import reading, writing
from .tables import requests

logger = logging.getLogger("lastword")

Row = Mapping[str, Any]


class Ledger:
    """Takes rows from requests and writes them every *every* seconds.

    At most *most* rows wait. One for each process.
    """

    def __init__(
        self,
        engine: Callable[[], Engine],
        *,
        every: float = 1.0,
        most: int = 10_000,
    ) -> None:
        self._open = engine
        self._engine: Engine | None = None
        self._every, self._most = every, most
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

    def _start(self) -> None:
        self._writer = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._writer.start()
        atexit.register(self.close)

    def _write(self) -> None:
        while not self._stop.wait(self._every):
            self.flush()

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
                self._put_back(rows)
            elif len(rows) > 1:
                for row in rows:
                    self._write_out([row])
            else:
                # It would never be written, and those behind it neither.
                self.dropped += 1
                logger.exception("a row of the ledger is lost")

    def _insert(self, rows: Sequence[Row]) -> None:
        if self._engine is None:
            self._engine = self._open()
        with writing(self._engine) as connection:
            connection.execute(insert(requests), [dict(row) for row in rows])

    def _put_back(self, rows: list[Row]) -> None:
        with self._lock:
            waiting = [*rows, *self._rows]
            over = max(len(waiting) - self._most, 0)
            self._rows = deque(waiting[over:])
            self.dropped += over
        logger.warning("the ledger cannot be written; %d rows wait", len(waiting))

    def close(self) -> None:
        """Write what waits, and end."""
        self._stop.set()
        if self._writer and self._writer is not threading.current_thread():
            self._writer.join(5)
        self.flush()
        if self._engine is not None:
            self._engine.dispose()
        atexit.unregister(self.close)


def _is_gone(error: Exception) -> bool:
    """Whether the database is out of reach, and not a row at fault."""
    faults = (DataError, IntegrityError)
    is_fault = isinstance(error.__cause__, faults)
    return isinstance(error, StoreUnavailable) and not is_fault


# What it tells

# By what usage can be summed up.
GROUPS = ("key", "model", "provider", "day", "status")


@dataclass(frozen=True, slots=True)
class Sum:
    """The requests of one group. *cost* is in US dollars, of those with a price."""

    group: str
    requests: int
    failed: int
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
            func.sum(case((requests.c.status >= 400, 1), else_=0)),
            func.sum(requests.c.prompt_tokens),
            func.sum(requests.c.completion_tokens),
            func.sum(func.coalesce(requests.c.cost_micros, 0)),
        )
        .where(requests.c.began >= since)
        .group_by(group)
        .order_by(func.count().desc(), group)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return [_sum(by, *row) for row in rows]


def _group(by: str) -> Any:
    if by == "day":
        return func.floor(requests.c.began / 86400)
    return getattr(requests.c, by)


def _sum(by: str, group: Any, count: int, *sums: Any) -> Sum:
    if by == "day":
        group = time.strftime("%Y-%m-%d", time.gmtime(int(group) * 86400))
    failed, sent, made, micros = (int(each or 0) for each in sums)
    return Sum(str(group or "-"), count, failed, sent, made, micros / 1e6)
