"""The response cache in a SQLite file, which the workers of one machine share.

A cache that fails is empty: no request fails with it.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ..core.caching import CacheEntry
from .cache_codec import MAX_BODY_BYTES, pack, unpack
from .per_process import PerProcess
from .rate_limited_warning import RateLimitedWarning
from .sqlite_files import Connection, discard, is_corruption, open_database

T = TypeVar("T")

# Milliseconds that a call waits for the writer of another process. SQLite waits inside
# C, which blocks a gevent worker, and an entry that is not written costs little.
_BUSY_TIMEOUT = 25

# To open a file may take longer, in seconds: it may have to be created.
_OPEN_TIMEOUT = 2.0

# Bytes that an entry takes beside its value: its row, its key, three indices.
_ROW_OVERHEAD = 256

# Seconds within which the time of last use is not updated, so that most reads of a
# popular entry write nothing.
_USED_PRECISION = 1.0

# Expired entries that are deleted when one is added.
_SWEEP_BATCH = 20

# Idle connections that a process keeps.
_MAX_IDLE = 8

# `total` is kept by triggers: to sum up the sizes of all entries for each new one would
# read the whole index. `by_use` covers what eviction reads.
_VERSION = 1
_SCHEMA = """
DROP TABLE IF EXISTS entries;
DROP TABLE IF EXISTS total;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    used REAL NOT NULL,
    expires REAL NOT NULL,
    size INTEGER NOT NULL,
    value BLOB NOT NULL
);
CREATE INDEX by_use ON entries (used, id, size);
CREATE INDEX by_age ON entries (expires);
CREATE TABLE total (bytes INTEGER NOT NULL);
INSERT INTO total VALUES (0);
CREATE TRIGGER came AFTER INSERT ON entries
BEGIN UPDATE total SET bytes = bytes + new.size; END;
CREATE TRIGGER went AFTER DELETE ON entries
BEGIN UPDATE total SET bytes = bytes - old.size; END;
"""


class LocalCache:
    """A cache in the file *path* of at most *max_bytes*; it evicts the least recently
    used entries.

    All processes of a machine may use it at once. It is opened on first use, by each
    process for itself.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._warn = RateLimitedWarning("the cache's file fails", clock)
        self._idle: PerProcess[list[Connection]] = PerProcess(list)
        # Threads of one process write in turn. Without it they would wait for each
        # other inside SQLite, which gives up and loses an entry, and which tries again
        # after pauses instead of being woken.
        self._writing = PerProcess(threading.Lock)

    def get(self, key: str, now: float) -> CacheEntry | None:
        row = self._execute(lambda connection: _select(connection, key, now))
        if row is None:
            return None
        id, used, value = row
        if now - used > _USED_PRECISION:
            self._mark_used(id, now)
        return unpack(value)

    def put(self, key: str, entry: CacheEntry, now: float) -> None:
        if len(entry.body) > MAX_BODY_BYTES:
            return
        value = pack(entry)
        expires = entry.created_at + entry.max_age
        size = len(value) + _ROW_OVERHEAD
        if size <= self._max_bytes and expires > now:
            row = (key, now, expires, size, value)
            with self._writing.get():
                self._execute(
                    lambda connection: _insert(connection, row, self._max_bytes)
                )

    def close(self) -> None:
        """Close this process's connections; later calls open new ones."""
        for connection in self._idle.pop() or ():
            connection.close()

    def _mark_used(self, id: int, now: float) -> None:
        """Set an entry's time of last use, unless that means to wait for a writer.

        Without it the entry is only evicted earlier than it should be.
        """
        writing = self._writing.get()
        if not writing.acquire(blocking=False):
            return
        try:
            self._execute(lambda connection: _update_used(connection, id, now))
        finally:
            writing.release()

    def _execute(self, operation: Callable[[sqlite3.Connection], T]) -> T | None:
        """The result of *operation*; None if the file cannot be used now."""
        try:
            with self._connection() as connection:
                return operation(connection)
        except (sqlite3.Error, OSError) as e:
            self._warn(e)
            return None

    # A pool and not one connection with a lock, as in local_store.py: SQLite lets
    # readers read at once, and a lookup should not wait for another thread's write.
    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else uses meanwhile."""
        idle = self._idle.get()
        try:
            connection = idle.pop()
        except IndexError:
            connection = open_database(
                self._path, _VERSION, _create_tables, timeout=_OPEN_TIMEOUT
            )
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT}")
        try:
            yield connection
        except BaseException as e:
            # Not reused, as it may be in the middle of a transaction. BaseException, as
            # a greenlet that is killed here raises GreenletExit.
            with closing(connection):
                if is_corruption(e):
                    discard(self._path, connection.inode)
            raise
        if len(idle) < _MAX_IDLE:
            idle.append(connection)
        else:
            connection.close()


def _create_tables(connection: sqlite3.Connection) -> None:
    # Not by `executescript`, which would commit the transaction that is open.
    statement = ""
    for line in _SCHEMA.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


def _select(
    connection: sqlite3.Connection, key: str, now: float
) -> tuple[int, float, bytes] | None:
    """The id, the time of last use and the value of an entry."""
    rows = connection.execute(
        "SELECT id, used, value FROM entries WHERE key = ? AND expires > ?", (key, now)
    ).fetchall()
    return rows[0] if rows else None


def _update_used(connection: sqlite3.Connection, id: int, now: float) -> None:
    # Another process may hold the lock.
    with suppress(sqlite3.OperationalError):
        connection.execute("UPDATE entries SET used = ? WHERE id = ?", (now, id))


def _insert(
    connection: sqlite3.Connection,
    row: tuple[str, float, float, int, bytes],
    max_bytes: int,
) -> None:
    key, now, _, size, _ = row
    # With the write lock from the start: a transaction that began as a reader fails at
    # once with SQLITE_BUSY, without the timeout, if another process writes in between.
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        connection.execute("DELETE FROM entries WHERE key = ?", (key,))
        connection.execute(
            "DELETE FROM entries WHERE id IN (SELECT id FROM entries "
            "WHERE expires <= ? ORDER BY expires LIMIT ?)",
            (now, _SWEEP_BATCH),
        )
        ((total,),) = connection.execute("SELECT bytes FROM total")
        # A list, as rows must not be deleted while the query that names them runs.
        evicted = list(_least_recently_used(connection, total + size - max_bytes))
        connection.executemany("DELETE FROM entries WHERE id = ?", evicted)
        connection.execute(
            "INSERT INTO entries (key, used, expires, size, value) "
            "VALUES (?, ?, ?, ?, ?)",
            row,
        )


def _least_recently_used(
    connection: sqlite3.Connection, size: int
) -> Iterator[tuple[int]]:
    """The ids of as many entries as have *size* bytes together."""
    if size <= 0:
        return
    for id, entry_size in connection.execute(
        "SELECT id, size FROM entries ORDER BY used, id"
    ):
        yield (id,)
        size -= entry_size
        if size <= 0:
            return
