"""Keeps answers, in a file that the workers of one machine share.

redis.py has the one for several machines. A cache that fails has nothing: no request
fails with it. What is read here was written by a gateway of this version, or is none.
"""

import logging
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Hashable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import orjson

from ..core.caching import CacheEntry
from ..errors import UpstreamTimeout
from .per_process import PerProcess
from .rate_limited_warning import RateLimitedWarning
from .sqlite_files import Connection, discard, is_broken, opened

T = TypeVar("T")

logger = logging.getLogger("lastword")

# Bytes of one answer. A longer one would hold its worker up for too long.
LARGEST = 2**20


class ResponseBackend(Protocol):
    """Where answers are kept. *now* is in Unix seconds. Neither ever raises."""

    def get(self, key: str, now: float) -> CacheEntry | None:
        """What is kept under *key* and is not too old."""

    def put(self, key: str, entry: CacheEntry, now: float) -> None:
        """Keep *entry*, in place of what was there."""

    def close(self) -> None:
        """Let go of files and connections."""


# An entry as bytes

# Bytes for which it is worth a try, and not too long a one; and how little has to be
# left of them.
_COMPRESSED = range(1024, 2**16)
_PAYS = 0.9


def pack(entry: CacheEntry) -> bytes:
    """*entry* as bytes: a letter, its head as a line of JSON, its body."""
    warnings, headers = list(entry.warnings), dict(entry.headers)
    head = [entry.created_at, entry.max_age, headers, warnings]
    plain = orjson.dumps(head) + b"\n" + entry.body
    if len(plain) in _COMPRESSED:
        packed = zlib.compress(plain, 1)
        if len(packed) < _PAYS * len(plain):
            return b"z" + packed
    return b"j" + plain


def unpack(value: bytes) -> CacheEntry | None:
    """The entry in *value*; None if there is none."""
    try:
        plain = zlib.decompress(value[1:]) if value[:1] == b"z" else value[1:]
        head, _, body = plain.partition(b"\n")
        made, max_age, headers, warnings = orjson.loads(head)
        return CacheEntry(body, made, max_age, dict(headers), tuple(warnings))
    except (TypeError, ValueError, zlib.error):
        return None


# In a file

# Milliseconds that a call waits for the writer of another process.
_BUSY = 25

# To open a file may take longer, in seconds: it may have to be made.
_OPENING = 2.0

# Bytes that an entry takes beside its value: its row, its key, three indices.
_ROW = 256

# Seconds within which it does not matter when an entry was last used.
_COARSE = 1.0

# Entries that are too old and leave with one that comes.
_SWEPT = 20

# The connections of a process that wait for work.
_IDLE = 8

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
    """A cache in the file *path*, of *most* bytes; who was not used for longest leaves.

    All processes of a machine may use it at once. Nothing is opened before it is
    needed, and a process never uses what it has from the one that forked it.
    """

    def __init__(
        self,
        path: Path,
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._most = path, most
        self._complain = RateLimitedWarning("the cache's file fails", clock)
        self._idle: PerProcess[list[Connection]] = PerProcess(list)

    def get(self, key: str, now: float) -> CacheEntry | None:
        found = self._tried(lambda connection: _found(connection, key, now))
        return unpack(found) if found else None

    def put(self, key: str, entry: CacheEntry, now: float) -> None:
        if len(entry.body) > LARGEST:
            return
        value = pack(entry)
        expires = entry.created_at + entry.max_age
        size = len(value) + _ROW
        if size <= self._most and expires > now:
            row = (key, now, expires, size, value)
            self._tried(lambda connection: _keep(connection, row, self._most))

    def close(self) -> None:
        """Let go of this process's connections; it may go on, with new ones."""
        for connection in self._idle.pop() or ():
            connection.close()

    def _tried(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """What *work* comes to; None if the file is of no use now."""
        try:
            with self._lent() as connection:
                return work(connection)
        except (sqlite3.Error, OSError) as e:
            self._complain(e)
            return None

    @contextmanager
    def _lent(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else uses meanwhile."""
        idle = self._idle.get()
        try:
            connection = idle.pop()
        except IndexError:
            connection = self._opened()
        try:
            yield connection
        except BaseException as e:
            with closing(connection):
                if is_broken(e):
                    discard(self._path, connection.inode)
            raise
        if len(idle) < _IDLE:
            idle.append(connection)
        else:
            connection.close()

    def _opened(self) -> Connection:
        connection = opened(self._path, _VERSION, _make, timeout=_OPENING)
        connection.execute(f"PRAGMA busy_timeout = {_BUSY}")
        return connection


def _make(connection: sqlite3.Connection) -> None:
    _run(connection, _SCHEMA)


def _run(connection: sqlite3.Connection, script: str) -> None:
    """Run the statements of *script* in the transaction that is open."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


def _found(connection: sqlite3.Connection, key: str, now: float) -> bytes | None:
    rows = connection.execute(
        "SELECT id, used, value FROM entries WHERE key = ? AND expires > ?", (key, now)
    )
    for row, used, value in rows.fetchall():
        if now - used > _COARSE:
            _touch(connection, row, now)
        return bytes(value)
    return None


def _touch(connection: sqlite3.Connection, row: int, now: float) -> None:
    """Note that it was used; or not, if somebody else is writing."""
    with suppress(sqlite3.OperationalError):
        connection.execute("UPDATE entries SET used = ? WHERE id = ?", (now, row))


def _keep(
    connection: sqlite3.Connection, row: tuple[str, float, float, int, bytes], most: int
) -> None:
    key, now, _, size, _ = row
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        connection.execute("DELETE FROM entries WHERE key = ?", (key,))
        connection.execute(
            "DELETE FROM entries WHERE id IN (SELECT id FROM entries "
            "WHERE expires <= ? ORDER BY expires LIMIT ?)",
            (now, _SWEPT),
        )
        _make_room(connection, size, most)
        connection.execute(
            "INSERT INTO entries (key, used, expires, size, value) "
            "VALUES (?, ?, ?, ?, ?)",
            row,
        )


def _make_room(connection: sqlite3.Connection, size: int, most: int) -> None:
    """Delete those that were not used for longest, until there are *size* bytes."""
    ((held,),) = connection.execute("SELECT bytes FROM total")
    leaving = list(_longest_unused(connection, held + size - most))
    connection.executemany("DELETE FROM entries WHERE id = ?", leaving)


def _longest_unused(connection: sqlite3.Connection, size: int) -> Iterator[tuple[int]]:
    """The ids of as many as have *size* bytes together."""
    if size <= 0:
        return
    for row, freed in connection.execute(
        "SELECT id, size FROM entries ORDER BY used, id"
    ):
        yield (row,)
        size -= freed
        if size <= 0:
            return


# Identical requests in flight

# How many that went first, and brought nothing, one waits for before one goes oneself;
# and for how many seconds: the first one's caller may be slow to take its stream.
_FAILURES = 2
_PATIENCE = 30.0

# Seconds between two looks whether one has to wait at all.
_NAP = 0.25


def _go_on() -> None:
    """What has to be looked at by one who waits in any case: nothing."""


class _Flight:
    """One request under way. Its gate opens when it is over; then *entry* is there."""

    def __init__(self) -> None:
        self.entry: CacheEntry | None = None
        # A bare lock, as its release is safe wherever garbage may be collected.
        self._gate = threading.Lock()
        self._gate.acquire()

    def land(self, entry: CacheEntry | None) -> None:
        self.entry = entry
        self._gate.release()

    def has_landed(self, seconds: float, check: Callable[[], None]) -> bool:
        """Wait until it has; False if it does not within *seconds*.

        Raises what *check* does, which is asked now and then.
        """
        ends = time.monotonic() + seconds
        while not self._gate.acquire(timeout=min(_NAP, max(0.0, seconds))):
            check()
            seconds = ends - time.monotonic()
            if seconds <= 0:
                return False
        self._gate.release()
        return True


class FlightLeader:
    """Held by the one who goes first, while others wait.

    They go on when it lands, which it also does when its `with` block fails, or when
    nobody holds it any more.
    """

    def __init__(self, land: Callable[[CacheEntry | None], None]) -> None:
        self._land: Callable[[CacheEntry | None], None] | None = land

    def land(self, entry: CacheEntry | None = None) -> None:
        """Let the others have *entry*; without one, one of them goes next. Once."""
        land, self._land = self._land, None
        if land:
            land(entry)

    def __enter__(self) -> "FlightLeader":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is not None:
            self.land()

    def __del__(self) -> None:
        self.land()


class SingleFlight:
    """Identical requests of one process: the first goes, the others wait for it."""

    def __init__(self, patience: float = _PATIENCE) -> None:
        # All that is done to it is one atomic step; a lock would not do in `__del__`.
        self._flights: dict[Hashable, _Flight] = {}
        self._patience = patience

    def board(
        self,
        key: Hashable,
        wait: float | None = None,
        check: Callable[[], None] = _go_on,
    ) -> CacheEntry | FlightLeader:
        """What somebody else brings, or the lead.

        Who has waited in vain for several, or for long, goes alone. Raises
        UpstreamTimeout after *wait* seconds, if that is not long; and what *check*
        does, which is asked now and then while one waits.
        """
        ends = time.monotonic() + self._longest(wait)
        for _ in range(_FAILURES):
            flight = _Flight()
            first = self._flights.setdefault(key, flight)
            if first is flight:
                return FlightLeader(partial(self._land, key, flight))
            if not first.has_landed(ends - time.monotonic(), check):
                return self._late(wait)
            if first.entry is not None:
                return first.entry
        return _alone()

    def _longest(self, wait: float | None) -> float:
        return self._patience if wait is None else min(wait, self._patience)

    def _late(self, wait: float | None) -> FlightLeader:
        """What is left to do for one who has waited too long."""
        if wait is not None and wait <= self._patience:
            raise UpstreamTimeout(
                "An identical request that is under way has no answer yet.", status=408
            )
        return _alone()

    def _land(self, key: Hashable, flight: _Flight, entry: CacheEntry | None) -> None:
        # Who comes now goes next; who has come gets this one.
        self._flights.pop(key, None)
        flight.land(entry)


def _alone() -> FlightLeader:
    """The lead of somebody for whom nobody waits."""
    return FlightLeader(lambda entry: None)


@dataclass(frozen=True, slots=True)
class ResponseStore:
    """The answers of one process: those that are kept, and those under way."""

    cache: ResponseBackend
    flights: SingleFlight = field(default_factory=SingleFlight)
    now: Callable[[], float] = time.time

    def find(
        self,
        key: str,
        max_age: float,
        wait: float | None = None,
        check: Callable[[], None] = _go_on,
    ) -> CacheEntry | FlightLeader:
        """The answer of this *key*, not older than *max_age*; or the lead to get it.

        Who has the lead says what came of it, by `keep` or by `Lead.land`. Raises
        UpstreamTimeout when somebody else takes longer than *wait* seconds for it, and
        what *check* does, which is asked now and then meanwhile.
        """
        # Who looked into the cache first could miss what lands meanwhile.
        boarded = self.flights.board((key, max_age), wait, check)
        if isinstance(boarded, CacheEntry):
            return boarded
        now = self.now()
        kept = self.cache.get(key, now)
        if kept is None or not kept.is_fresh(now, max_age):
            return boarded
        boarded.land(kept)
        return kept

    def keep(
        self, key: str, entry: CacheEntry, lead: FlightLeader | None = None
    ) -> None:
        """Keep *entry*, and give it to those who wait for it."""
        try:
            self.cache.put(key, entry, self.now())
        finally:
            if lead:
                lead.land(entry)
