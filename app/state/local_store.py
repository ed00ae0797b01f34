"""Counters and circuits in one SQLite file, which all workers of a machine share.

Every change is a transaction of its own that begins with the write lock, so that counts
are exact, however many processes there are. Nothing waits for the disk: a crash of the
machine loses a minute, or part of a day, of counting.

A process that finds the file locked sleeps in Python and not in SQLite's busy handler,
which would block all other requests of a gevent worker.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..core.counters import CounterAdjustment, CounterEntry, CounterState
from ..core.routing import BreakerPolicy
from .breaker import RETENTION, Circuit, current_circuit
from .meter import Adjustments, ReserveResult
from .per_process import PerProcess
from .rate_limited_warning import RateLimitedWarning
from .sqlite_files import (
    Connection,
    discard,
    is_corruption,
    open_database,
    primary_code,
)

T = TypeVar("T")

# Seconds: how long to wait for the lock, and between two tries.
_LOCK_TIMEOUT = 2.0
_LOCK_POLL = 0.0005

# Expired rows that each transaction deletes.
_SWEEP_BATCH = 10

# `part` tells the entries of a counter apart: for a window it is the second in which
# the entry expires, so that all requests of that second share one row. A file of
# another version is emptied: it is not worth a migration.
_VERSION = 1
_SCHEMA = (
    "DROP TABLE IF EXISTS entries",
    "DROP TABLE IF EXISTS circuits",
    "CREATE TABLE entries (counter TEXT, part TEXT, expires INTEGER, amount INTEGER,"
    " PRIMARY KEY (counter, part)) WITHOUT ROWID",
    "CREATE INDEX entries_by_age ON entries (expires)",
    "CREATE TABLE circuits (name TEXT PRIMARY KEY, expires REAL, began REAL,"
    " calls INTEGER, failures INTEGER, open_until REAL, probed_until REAL)",
    "CREATE INDEX circuits_by_age ON circuits (expires)",
)


@dataclass(slots=True)
class _ProcessConnection:
    """The connection of one process, and a lock for its threads."""

    # Looked up late, as gevent may have replaced it since this was imported.
    lock: threading.Lock = field(default_factory=lambda: threading.Lock())
    connection: Connection | None = None


# One connection for each process, since SQLite's must not cross a fork, and one thread
# at a time on it: transactions belong to a connection, and two threads that share one
# would write into each other's.


class LocalFile:
    """The file at *path*. It is opened on first use, by each process for itself."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connections = PerProcess(_ProcessConnection)

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """The connection of this process, for this thread alone. Raises sqlite3.Error.

        A corrupt file is deleted, and the next call creates a new one.
        """
        own = self._connections.get()
        with own.lock:
            if own.connection is None:
                own.connection = _retry_while_locked(
                    lambda: open_database(self._path, _VERSION, _create_tables)
                )
            try:
                yield own.connection
            except sqlite3.DatabaseError as e:
                if is_corruption(e):
                    corrupt, own.connection = own.connection, None
                    corrupt.close()
                    discard(self._path, corrupt.inode)
                raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection that holds the write lock."""
        with self.connection() as connection:
            # Only BEGIN can find the file locked. It takes the write lock, and what
            # follows until the commit cannot fail for that reason.
            _retry_while_locked(lambda: connection.execute("BEGIN IMMEDIATE"))
            with connection:
                yield connection

    def close(self) -> None:
        """Close this process's connection; later calls open a new one."""
        own = self._connections.pop()
        if own and own.connection:
            own.connection.close()


def _create_tables(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA:
        connection.execute(statement)


def _retry_while_locked(operation: Callable[[], T]) -> T:
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            return operation()
        except sqlite3.OperationalError as e:
            locked = primary_code(e) == sqlite3.SQLITE_BUSY
            if not locked or time.monotonic() > deadline:
                raise
        time.sleep(_LOCK_POLL)


class _Fallback:
    """Runs operations on the file; one that fails has a default result instead.

    The log says so once a minute.
    """

    def __init__(self, message: str) -> None:
        self._warn = RateLimitedWarning(message, level=logging.ERROR)

    def __call__(self, operation: Callable[[], T], default: T) -> T:
        try:
            return operation()
        except (sqlite3.Error, OSError) as e:
            self._warn(e)
            return default


class LocalCounters:
    """Counters in *file*. If that cannot be used, nothing is limited."""

    def __init__(self, file: LocalFile) -> None:
        self._file = file
        self._or_default = _Fallback("the file of limits fails: nothing is limited")

    def reserve(
        self, request_id: str, entries: Sequence[CounterEntry], now: float
    ) -> ReserveResult:
        unlimited = ReserveResult(None, [CounterState()] * len(entries))
        return self._or_default(lambda: self._reserve(entries, now), unlimited)

    def _reserve(self, entries: Sequence[CounterEntry], now: float) -> ReserveResult:
        with self._file.transaction() as connection:
            # All counters are read before any is changed: if one refuses, nothing has
            # to be undone, and the headers show all of them as they are.
            states = []
            for entry in entries:
                row = connection.execute(
                    "SELECT COALESCE(SUM(amount), 0), COALESCE(MAX(expires), 0)"
                    " FROM entries WHERE counter = ? AND expires > ?",
                    (entry.counter, now),
                ).fetchone()
                states.append(CounterState(*row))
            for i, (entry, state) in enumerate(zip(entries, states, strict=True)):
                if entry.limit is not None and state.used + entry.amount > entry.limit:
                    blocking = connection.execute(
                        "SELECT expires, amount FROM entries"
                        " WHERE counter = ? AND expires > ?",
                        (entry.counter, now),
                    ).fetchall()
                    return ReserveResult(self, states, i, blocking)
            for i, entry in enumerate(entries):
                if entry.amount:
                    _add(connection, entry)
                    last_expiry = max(states[i].last_expiry, entry.expires)
                    states[i] = CounterState(states[i].used + entry.amount, last_expiry)
            _delete_expired(connection, "entries", "counter, part", now)
        return ReserveResult(self, states)

    def adjust(self, adjustments: Adjustments, now: float) -> None:
        # What has expired no longer counts, and its row may be gone.
        valid = [a for own in adjustments.values() for a in own if a.expires > now]
        if valid:
            self._or_default(lambda: self._adjust(valid), None)

    def _adjust(self, adjustments: Sequence[CounterAdjustment]) -> None:
        with self._file.transaction() as connection:
            for adjustment in adjustments:
                if adjustment.amount < 0:
                    _subtract(connection, adjustment)
                else:
                    _add(connection, adjustment)

    def close(self) -> None:
        self._file.close()


def _add(connection: sqlite3.Connection, to: CounterEntry | CounterAdjustment) -> None:
    connection.execute(
        "INSERT INTO entries VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET amount = amount + excluded.amount",
        (to.counter, to.part, to.expires, to.amount),
    )


def _subtract(connection: sqlite3.Connection, adjustment: CounterAdjustment) -> None:
    """Subtract from an entry, and delete it when nothing is left."""
    # Never below 0: the row may be younger than the reservation, if the file was
    # deleted as corrupt in between.
    primary_key = (adjustment.counter, adjustment.part)
    connection.execute(
        "UPDATE entries SET amount = MAX(0, amount + ?) WHERE counter = ? AND part = ?",
        (adjustment.amount, *primary_key),
    )
    connection.execute(
        "DELETE FROM entries WHERE counter = ? AND part = ? AND amount = 0", primary_key
    )


def _delete_expired(
    connection: sqlite3.Connection, table: str, key: str, now: float
) -> None:
    # SQLite has DELETE ... LIMIT only if it was compiled for it, hence the subquery.
    connection.execute(
        f"DELETE FROM {table} WHERE ({key}) IN"
        f" (SELECT {key} FROM {table} WHERE expires <= ? LIMIT {_SWEEP_BATCH})",
        (now,),
    )


class LocalCircuits:
    """Circuits in *file*. If that cannot be used, every target is available."""

    def __init__(self, file: LocalFile) -> None:
        self._file = file
        self._or_default = _Fallback(
            "the file of limits fails: no target is left alone"
        )

    def read(self, name: str, now: float) -> Circuit | None:
        def read() -> Circuit | None:
            with self._file.connection() as connection:
                return _retry_while_locked(lambda: _select(connection, name))

        return self._or_default(read, None)

    def enter(self, name: str, policy: BreakerPolicy, now: float) -> None:
        # Most circuits are closed, and then there is nothing to write.
        circuit = self.read(name, now)
        if circuit and circuit.is_open:
            self._update(name, policy, lambda c: c.start_call(policy, now), now)

    def leave(self, name: str, policy: BreakerPolicy, failed: bool, now: float) -> None:
        self._update(name, policy, lambda c: c.end_call(policy, failed, now), now)

    def read_all(self, now: float, limit: int) -> Mapping[str, Circuit]:
        def read_all() -> Mapping[str, Circuit]:
            with self._file.connection() as connection:
                rows = _retry_while_locked(
                    lambda: connection.execute(
                        "SELECT name, began, calls, failures, open_until, probed_until"
                        " FROM circuits WHERE expires > ?"
                        # Open circuits first: false sorts before true.
                        " ORDER BY open_until IS NULL, expires DESC LIMIT ?",
                        (now, limit),
                    ).fetchall()
                )
            return {name: Circuit(*row) for name, *row in rows}

        return self._or_default(read_all, {})

    def _update(
        self,
        name: str,
        policy: BreakerPolicy,
        transition: Callable[[Circuit], Circuit],
        now: float,
    ) -> None:
        def update() -> None:
            with self._file.transaction() as connection:
                circuit = _select(connection, name)
                circuit = transition(current_circuit(circuit, policy, now))
                connection.execute(
                    "INSERT OR REPLACE INTO circuits VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        name,
                        now + policy.cooldown + RETENTION,
                        circuit.window_start,
                        circuit.calls,
                        circuit.failures,
                        circuit.open_until,
                        circuit.probed_until,
                    ),
                )
                _delete_expired(connection, "circuits", "name", now)

        self._or_default(update, None)


def _select(connection: sqlite3.Connection, name: str) -> Circuit | None:
    row = connection.execute(
        "SELECT began, calls, failures, open_until, probed_until FROM circuits"
        " WHERE name = ?",
        (name,),
    ).fetchone()
    return Circuit(*row) if row else None
