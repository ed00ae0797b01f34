"""SQLite files that the processes of a machine share, and can do without.

They are not waited for on disk: what a crash of the machine loses is no great loss. One
that holds no database, or half of one, is thrown away, and made anew.
"""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from . import private_files

_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Connection(sqlite3.Connection):
    """A connection that knows which file it has open, whatever is there by now."""

    inode = 0


Make = Callable[[sqlite3.Connection], None]


def opened(path: Path, version: int, make: Make, *, timeout: float = 0) -> Connection:
    """A connection to *path*, whose tables *make* makes unless they are of *version*.

    *timeout* is in seconds, for the lock. A broken file gives way to a new one. Raises
    sqlite3.Error.
    """
    try:
        return _opened(path, version, make, timeout)
    except sqlite3.DatabaseError as e:
        if not is_broken(e):
            raise
        discard(path, path.stat().st_ino)
        return _opened(path, version, make, timeout)


def _opened(path: Path, version: int, make: Make, timeout: float) -> Connection:
    private_files.make_folder(path.parent)
    private_files.make_file(path)
    connection = sqlite3.connect(
        path,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
        factory=Connection,
    )
    try:
        connection.inode = path.stat().st_ino
        _prepare(connection, version, make)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, version: int, make: Make) -> None:
    connection.execute("PRAGMA synchronous = OFF")
    if _version(connection) != version:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            if _version(connection) != version:
                make(connection)
                connection.execute(f"PRAGMA user_version = {version}")
    # Little and often, since it is a request that waits for it.
    connection.execute("PRAGMA wal_autocheckpoint = 256")


def _version(connection: sqlite3.Connection) -> int:
    ((version,),) = connection.execute("PRAGMA user_version")
    return int(version)


def discard(path: Path, inode: int) -> None:
    """Throw a broken file away, if another process has not done so before."""
    with suppress(FileNotFoundError):
        if path.stat().st_ino == inode:
            for end in ("-wal", "-shm", ""):
                Path(f"{path}{end}").unlink(missing_ok=True)


def code(error: BaseException) -> int:
    """SQLite's primary code of *error*; 0 if it is none of SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_broken(error: BaseException) -> bool:
    """Whether the file holds no database, or not a whole one."""
    return code(error) in _BROKEN
