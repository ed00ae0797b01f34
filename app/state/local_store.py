"""State in one SQLite file, which all workers of a machine share.

Every change is a transaction of its own that begins with the write lock, so that counts
are exact, however many processes there are. Nothing is waited for on disk: what a crash
of the machine loses is a minute, or part of a day, of counting.

Whoever finds the file locked sleeps in Python and not inside SQLite, as that would hold
up every other request of a gevent worker.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..core.limits import CounterAdjustment, CounterEntry, CounterState
from ..core.routing import BreakerPolicy
from .breaker import KEPT, Circuit, current
from .meter import Changes, Drawn
from .per_process import PerProcess
from .rate_limited_warning import RateLimitedWarning
from .sqlite_files import Connection, code, discard, is_broken, opened

T = TypeVar("T")

logger = logging.getLogger("lastword")

# Seconds: how long the lock is waited for, and between two looks at it.
_PATIENCE = 2.0
_NAP = 0.0005

# Expired rows that leave with every transaction.
_SWEPT = 10

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
class _Own:
    """What one process has: a connection, and a lock for its threads."""

    # Looked up late, as gevent may have replaced it since this was imported.
    lock: threading.Lock = field(default_factory=lambda: threading.Lock())
    connection: Connection | None = None


class LocalFile:
    """The file at *path*. Nothing is opened before it is needed.

    A process never uses what it has from the one that forked it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._owners = PerProcess(_Own)

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """The connection of this process, for this thread alone. Raises sqlite3.Error.

        A file that holds no database, or half of one, is thrown away.
        """
        own = self._owners.get()
        with own.lock:
            own.connection = own.connection or self._opened()
            try:
                yield own.connection
            except sqlite3.DatabaseError as e:
                if is_broken(e):
                    broken, own.connection = own.connection, None
                    broken.close()
                    discard(self._path, broken.inode)
                raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection that alone may write meanwhile."""
        with self.connection() as connection:
            _patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
            with connection:
                yield connection

    def close(self) -> None:
        """Let go of this process's connection; it may go on, with a new one."""
        own = self._owners.pop()
        if own and own.connection:
            own.connection.close()

    def _opened(self) -> Connection:
        return _patiently(lambda: opened(self._path, _VERSION, _make))


def _make(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA:
        connection.execute(statement)


def _patiently(work: Callable[[], T]) -> T:
    """What *work* comes to, when nobody has the file locked any more."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return work()
        except sqlite3.OperationalError as e:
            if code(e) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(_NAP)


# What a file that cannot be used raises.
_FAILURES = (sqlite3.Error, OSError)


class _Tried:
    """Does without the file when it cannot be used, and says so once a minute."""

    def __init__(self, message: str) -> None:
        self._complain = RateLimitedWarning(message, level=logging.ERROR)

    def __call__(self, work: Callable[[], T], otherwise: T) -> T:
        try:
            return work()
        except _FAILURES as e:
            self._complain(e)
            return otherwise


class LocalCounters:
    """Counters in *file*. When that cannot be used, every draw is made."""

    def __init__(self, file: LocalFile) -> None:
        self._file = file
        self._tried = _Tried("the file of limits fails: nothing is limited")

    def draw(self, id: str, draws: Sequence[CounterEntry], now: float) -> Drawn:
        unlimited = Drawn(None, [CounterState()] * len(draws))
        return self._tried(lambda: self._drawn(draws, now), unlimited)

    def change(self, changes: Changes, now: float) -> None:
        every = [change for each in changes.values() for change in each]
        if every:
            self._tried(lambda: self._changed(every, now), None)

    def close(self) -> None:
        self._file.close()

    def _drawn(self, draws: Sequence[CounterEntry], now: float) -> Drawn:
        with self._file.transaction() as connection:
            standings = [_standing(connection, draw.counter, now) for draw in draws]
            for at, (draw, standing) in enumerate(zip(draws, standings, strict=True)):
                if draw.limit is not None and standing.used + draw.amount > draw.limit:
                    entries = _entries(connection, draw.counter, now)
                    return Drawn(self, standings, at, entries)
            for draw in draws:
                _add(connection, draw)
            _sweep(connection, "entries", "counter, part", now)
        return Drawn(self, list(map(_after, draws, standings)))

    def _changed(self, changes: Sequence[CounterAdjustment], now: float) -> None:
        with self._file.transaction() as connection:
            for change in changes:
                if change.expires > now:
                    (_take if change.amount < 0 else _add)(connection, change)


def _standing(connection: sqlite3.Connection, counter: str, now: float) -> CounterState:
    row = connection.execute(
        "SELECT COALESCE(SUM(amount), 0), COALESCE(MAX(expires), 0) FROM entries"
        " WHERE counter = ? AND expires > ?",
        (counter, now),
    ).fetchone()
    return CounterState(*row)


def _after(draw: CounterEntry, before: CounterState) -> CounterState:
    if not draw.amount:
        return before
    newest = max(before.newest, draw.expires)
    return CounterState(before.used + draw.amount, newest)


def _entries(
    connection: sqlite3.Connection, counter: str, now: float
) -> list[tuple[int, int]]:
    return connection.execute(
        "SELECT expires, amount FROM entries WHERE counter = ? AND expires > ?",
        (counter, now),
    ).fetchall()


def _add(connection: sqlite3.Connection, to: CounterEntry | CounterAdjustment) -> None:
    if to.amount:
        connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET amount = amount + excluded.amount",
            (to.counter, to.part, to.expires, to.amount),
        )


def _take(connection: sqlite3.Connection, change: CounterAdjustment) -> None:
    """Take away from an entry, which goes when nothing is left of it."""
    at = (change.counter, change.part)
    connection.execute(
        "UPDATE entries SET amount = MAX(0, amount + ?) WHERE counter = ? AND part = ?",
        (change.amount, *at),
    )
    connection.execute(
        "DELETE FROM entries WHERE counter = ? AND part = ? AND amount = 0", at
    )


def _sweep(connection: sqlite3.Connection, table: str, key: str, now: float) -> None:
    connection.execute(
        f"DELETE FROM {table} WHERE ({key}) IN"
        f" (SELECT {key} FROM {table} WHERE expires <= ? LIMIT {_SWEPT})",
        (now,),
    )


class LocalCircuits:
    """Circuits in *file*. When that cannot be used, every target is available."""

    def __init__(self, file: LocalFile) -> None:
        self._file = file
        self._tried = _Tried("the file of limits fails: no target is left alone")

    def read(self, name: str, now: float) -> Circuit | None:
        return self._tried(lambda: self._read(name), None)

    def enter(self, name: str, policy: BreakerPolicy, now: float) -> None:
        # Most circuits are closed, and then there is nothing to write.
        circuit = self.read(name, now)
        if circuit and circuit.is_open:
            self._update(name, policy, lambda c: c.entered(policy, now), now)

    def leave(self, name: str, policy: BreakerPolicy, failed: bool, now: float) -> None:
        self._update(name, policy, lambda c: c.left(policy, failed, now), now)

    def known(self, now: float, most: int) -> Mapping[str, Circuit]:
        return self._tried(lambda: self._known(now, most), {})

    def _known(self, now: float, most: int) -> Mapping[str, Circuit]:
        with self._file.connection() as connection:
            rows = _patiently(lambda: _circuits(connection, now, most))
        return {name: Circuit(*row) for name, *row in rows}

    def _read(self, name: str) -> Circuit | None:
        with self._file.connection() as connection:
            return _patiently(lambda: _circuit(connection, name))

    def _update(
        self,
        name: str,
        policy: BreakerPolicy,
        change: Callable[[Circuit], Circuit],
        now: float,
    ) -> None:
        def work() -> None:
            with self._file.transaction() as connection:
                circuit = change(current(_circuit(connection, name), policy, now))
                _put(connection, name, circuit, now + policy.cooldown + KEPT)
                _sweep(connection, "circuits", "name", now)

        self._tried(work, None)


def _circuit(connection: sqlite3.Connection, name: str) -> Circuit | None:
    row = connection.execute(
        "SELECT began, calls, failures, open_until, probed_until FROM circuits"
        " WHERE name = ?",
        (name,),
    ).fetchone()
    return Circuit(*row) if row else None


def _circuits(
    connection: sqlite3.Connection, now: float, most: int
) -> list[tuple[Any, ...]]:
    """The rows of circuits, those that are open first."""
    return connection.execute(
        "SELECT name, began, calls, failures, open_until, probed_until FROM circuits"
        " WHERE expires > ? ORDER BY open_until IS NULL, expires DESC LIMIT ?",
        (now, most),
    ).fetchall()


def _put(
    connection: sqlite3.Connection, name: str, circuit: Circuit, expires: float
) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO circuits VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            name,
            expires,
            circuit.began,
            circuit.calls,
            circuit.failures,
            circuit.open_until,
            circuit.probed_until,
        ),
    )
