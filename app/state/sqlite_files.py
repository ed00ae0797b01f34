"""SQLite files that the processes of a machine share, and whose loss does no harm.

Nothing waits for the disk (`synchronous = OFF`): what a crash of the machine loses is
no great loss. A file that is corrupt, or no database, is deleted and created anew.
"""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from . import private_files

_CORRUPTION_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Connection(sqlite3.Connection):
    """A connection that knows which file it has open, whatever is at its path now."""

    inode = 0


CreateTables = Callable[[sqlite3.Connection], None]


def open_database(
    path: Path, version: int, create_tables: CreateTables, *, timeout: float = 0
) -> Connection:
    """Open *path*, and create its tables unless they are of *version*.

    *timeout* is in seconds, for the lock. A corrupt file is replaced. Raises
    sqlite3.Error.
    """
    try:
        return _open(path, version, create_tables, timeout)
    except sqlite3.DatabaseError as e:
        if not is_corruption(e):
            raise
        discard(path, path.stat().st_ino)
        return _open(path, version, create_tables, timeout)


def _open(
    path: Path, version: int, create_tables: CreateTables, timeout: float
) -> Connection:
    private_files.make_folder(path.parent)
    private_files.make_file(path)
    connection = sqlite3.connect(
        path,
        timeout=timeout,
        # Transactions begin where this code says so, not where the driver guesses.
        isolation_level=None,
        # Connections are passed between threads, but never used by two at once.
        check_same_thread=False,
        factory=Connection,
    )
    try:
        connection.inode = path.stat().st_ino
        connection.execute("PRAGMA synchronous = OFF")
        if _version(connection) != version:
            # Stored in the file, so that only its creator has to set it. It cannot be
            # changed inside a transaction.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                # Another process may have been faster.
                if _version(connection) != version:
                    create_tables(connection)
                    connection.execute(f"PRAGMA user_version = {version}")
        # In pages of 4 KiB; the default is 1000. A checkpoint runs inside the commit of
        # some request, so it should be small.
        connection.execute("PRAGMA wal_autocheckpoint = 256")
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    ((version,),) = connection.execute("PRAGMA user_version")
    return int(version)


def discard(path: Path, inode: int) -> None:
    """Delete a corrupt file, unless another process has replaced it already."""
    with suppress(FileNotFoundError):
        if path.stat().st_ino == inode:
            # The database last: a -wal without its database would be replayed into the
            # next one of that name.
            for suffix in ("-wal", "-shm", ""):
                Path(f"{path}{suffix}").unlink(missing_ok=True)


def primary_code(error: BaseException) -> int:
    """SQLite's primary result code of *error*; 0 if it is none of SQLite's.

    Source: https://www.sqlite.org/rescode.html
    """
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_corruption(error: BaseException) -> bool:
    """Whether the file is corrupt, or no database."""
    return primary_code(error) in _CORRUPTION_CODES
