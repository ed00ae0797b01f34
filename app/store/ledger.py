"""The ledger: one row for each request, written in batches by a thread.

It holds no prompt and no text. Rows wait in memory until they are written; when too
many wait, because the database is slow or unavailable, the oldest are dropped and
counted. Rows that are too old are deleted in batches between the writes.
"""

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Engine, delete, insert, select
from sqlalchemy.exc import DataError, IntegrityError

from ..errors import StoreUnavailable
from ..state.rate_limited_warning import RateLimitedWarning
from .database import writing
from .tables import requests

logger = logging.getLogger("lastword")

Row = Mapping[str, Any]

# Seconds: a day, between two purges of old rows, between tries to write the last rows.
_DAY = 86400
_PURGE_INTERVAL = 3600
_CLOSE_RETRY_INTERVAL = 0.5

# Rows that one statement deletes, so that it holds its locks only briefly.
_PURGE_BATCH = 1000


# The writer, in short. Requests append to a deque under a lock that is never held while
# anything is written, so that a slow database slows no request. One thread takes the
# whole deque once a second and inserts it in one statement. Three kinds of failure:
#  - the database cannot be reached: the rows go back to the front of the deque, which
#    is cut to `max_waiting` from its old end;
#  - it refuses the batch for its content: each row is written alone, and only the
#    invalid one is lost, since kept, it would block all others for ever;
#  - the process ends: `close` tries for a few seconds, and then counts what is lost.


class Ledger:
    """Accepts rows from requests and writes them every *interval* seconds.

    At most *max_waiting* rows wait. Those older than *days* are deleted; None keeps
    them. When it is closed, it tries for *patience* seconds to write the last rows.
    There is one for each process. *now* is the time of day, *clock* is monotonic.
    """

    def __init__(
        self,
        engine: Callable[[], Engine],
        *,
        interval: float = 1.0,
        max_waiting: int = 10_000,
        days: int | None = None,
        patience: float = 3.0,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_engine = engine
        self._engine: Engine | None = None
        self._interval, self._max_waiting, self._days = interval, max_waiting, days
        self._patience, self._now, self._clock = patience, now, clock
        self._next_purge = float("-inf")
        self._warn = RateLimitedWarning("the ledger cannot be written: rows wait")
        self._rows: deque[Row] = deque()
        self._lock, self._write_lock = threading.Lock(), threading.Lock()
        self._writer: threading.Thread | None = None
        self._stop = threading.Event()
        self.dropped = 0

    def add(self, row: Row) -> None:
        """Write *row* soon. Never waits for the database."""
        with self._lock:
            self._rows.append(row)
            if len(self._rows) > self._max_waiting:
                self._rows.popleft()
                self.dropped += 1
            # With the first row, hence after the fork, which no thread survives.
            if self._writer is None:
                self._writer = threading.Thread(
                    target=self._run, name="ledger", daemon=True
                )
                self._writer.start()
                atexit.register(self.close)

    @property
    def waiting(self) -> int:
        """How many rows are not written yet."""
        return len(self._rows)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.flush()
            if self._days and self._clock() >= self._next_purge:
                self._purge(self._now() - self._days * _DAY)

    def _purge(self, before: float) -> None:
        """Delete a batch of rows; after the last one, wait for an hour."""
        # After a failure it is 0, so that the next try is in an hour, too.
        deleted = 0
        try:
            # For `_connect` alone; to delete takes long, and `flush` must not wait.
            with self._write_lock:
                engine = self._connect()
            deleted = purge(engine, before)
        except Exception:
            logger.warning("old rows of the ledger stay for now", exc_info=True)
        # A full batch means that there are more: the next one follows in a second.
        if deleted < _PURGE_BATCH:
            self._next_purge = self._clock() + _PURGE_INTERVAL

    def flush(self) -> None:
        """Write the rows that wait. Those that cannot be written go on waiting."""
        # Two locks: `add` takes only the short one, and never waits for a write.
        with self._write_lock:
            with self._lock:
                rows, self._rows = list(self._rows), deque()
            if rows:
                self._write(rows)

    def _write(self, rows: list[Row]) -> None:
        try:
            with writing(self._connect()) as connection:
                connection.execute(insert(requests), [dict(row) for row in rows])
        except Exception as e:
            # StoreUnavailable wraps every error of SQLAlchemy, also those of a row that
            # violates a constraint or does not fit its column.
            is_invalid_row = isinstance(e.__cause__, (DataError, IntegrityError))
            if isinstance(e, StoreUnavailable) and not is_invalid_row:
                self._warn(e)
                with self._lock:
                    waiting = [*rows, *self._rows]
                    excess = max(len(waiting) - self._max_waiting, 0)
                    self._rows = deque(waiting[excess:])
                    self.dropped += excess
            elif len(rows) > 1:
                # At least one is invalid, and the error does not say which.
                for row in rows:
                    self._write([row])
            else:
                # Kept, it would block the rows behind it for ever.
                self.dropped += 1
                logger.exception("a row of the ledger is lost")

    def _connect(self) -> Engine:
        if self._engine is None:
            self._engine = self._open_engine()
        return self._engine

    def close(self) -> None:
        """Write the rows that wait, and end. What cannot be written by then is lost."""
        self._stop.set()
        # Seconds: the thread may be in the middle of a write.
        if self._writer and self._writer is not threading.current_thread():
            self._writer.join(5)
        deadline = self._clock() + self._patience
        self.flush()
        while self._rows and self._clock() < deadline:
            time.sleep(_CLOSE_RETRY_INTERVAL)
            self.flush()
        with self._lock:
            lost = len(self._rows)
            self._rows.clear()
            self.dropped += lost
        if lost:
            logger.error("%d rows of the ledger are lost: it cannot be written", lost)
        if self._engine is not None:
            self._engine.dispose()
        atexit.unregister(self.close)


def purge(engine: Engine, before: float, limit: int = _PURGE_BATCH) -> int:
    """Delete requests that began *before*, *limit* of them at most; return how many."""
    old = (
        select(requests.c.id)
        .where(requests.c.began < before)
        .order_by(requests.c.began)
        .limit(limit)
        # In PostgreSQL, the workers that purge at once delete different rows.
        .with_for_update(skip_locked=True)
    )
    with writing(engine) as connection:
        result = connection.execute(delete(requests).where(requests.c.id.in_(old)))
    return result.rowcount
