"""Connects to the database, and migrates its tables."""

import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import SQLAlchemyError

from ..errors import StoreUnavailable
from ..state import private_files
from .tables import metadata, revisions

# Seconds that a request may wait for a database that does not answer, and for the
# write lock of SQLite.
_CONNECT_TIMEOUT = 3
_BUSY_TIMEOUT = 5

# The advisory lock in PostgreSQL under which one of several new processes migrates.
_MIGRATION_LOCK = 0x6C617374776F7264

# The newest migration.
_HEAD = "0003"

# Where Alembic stores which migration the tables are at.
_version = Table(
    "alembic_version", MetaData(), Column("version_num", String(32), primary_key=True)
)


def connect(url: str, instance: Path) -> Engine:
    """The database at *url*; without one, a file in the folder *instance*."""
    if not url:
        return _sqlite(instance)
    parsed = make_url(url)
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(
        parsed,
        # A pooled connection may have died with a restart of the server: it is tested
        # by a round trip before use. Many workers share the server, so pools are small.
        pool_pre_ping=True,
        pool_size=2,
        max_overflow=8,
        pool_timeout=_CONNECT_TIMEOUT,
        connect_args={"connect_timeout": _CONNECT_TIMEOUT},
    )


def _sqlite(instance: Path) -> Engine:
    private_files.make_folder(instance)
    file = instance / "gateway.db"
    # If this fails, SQLite reports the error when it opens the file.
    with suppress(OSError):
        private_files.make_file(file)
    engine = create_engine(
        f"sqlite:///{file}",
        connect_args={"timeout": _BUSY_TIMEOUT},
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _: Any) -> None:
    """Set up each new connection to SQLite, whose pragmas are not stored."""
    # By default the driver begins a transaction at the first INSERT or UPDATE, after
    # what was read before it. `_begin` does so instead.
    # Source: https://docs.sqlalchemy.org/en/20/dialects/sqlite.html (pysqlite)
    connection.isolation_level = None
    _enable_wal(connection)
    # SQLite ignores foreign keys unless told otherwise. NORMAL with WAL: a crash of the
    # machine may lose the last commits, but never corrupts the file.
    for pragma in ("foreign_keys = ON", "synchronous = NORMAL"):
        connection.execute(f"PRAGMA {pragma}")
    add_math_functions(connection)


_MATH_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "ln": math.log,
    "trunc": math.trunc,
}


def add_math_functions(connection: sqlite3.Connection) -> None:
    """Add those functions that SQLite was built without; its own are faster.

    Source: https://www.sqlite.org/lang_mathfunc.html
    """
    for name, function in _MATH_FUNCTIONS.items():
        try:
            connection.execute(f"SELECT {name}(1.0)")
        except sqlite3.OperationalError:
            # SQL's functions return NULL for NULL; Python's raise.
            null_safe = partial(_apply_unless_null, function)
            connection.create_function(name, 1, null_safe, deterministic=True)


def _apply_unless_null(
    function: Callable[[float], float], value: float | None
) -> float | None:
    return None if value is None else function(value)


def _enable_wal(connection: Any) -> None:
    """Let readers read beside a writer.

    SQLite's busy timeout does not apply to this pragma: of several processes that open
    a new file at once, all but one get SQLITE_BUSY.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as e:
            # The low byte is the primary code, without the extended reason.
            if e.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            if time.monotonic() > deadline:
                raise
        time.sleep(0.005)


def _begin(connection: Connection) -> None:
    """Take SQLite's write lock at the start of a transaction that will write.

    One that reads first cannot upgrade if another process wrote in between: it fails
    with SQLITE_BUSY at once, whatever the busy timeout is.
    """
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that reads. Raises StoreUnavailable."""
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as e:
        raise StoreUnavailable from e


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes. Raises StoreUnavailable."""
    with reading(engine.execution_options(writes=True)) as connection:
        yield connection


# Migrations


def upgrade(engine: Engine) -> None:
    """Create the tables, or migrate them to this version."""
    with writing(engine) as connection:
        # SQLite's write lock is held already. PostgreSQL has none for a whole database,
        # and CREATE TABLE in two processes at once fails in one of them.
        if engine.dialect.name == "postgresql":
            lock = text("SELECT pg_advisory_xact_lock(:number)")
            connection.execute(lock, {"number": _MIGRATION_LOCK})
        if inspect(connection).get_table_names():
            _migrate(connection)
        else:
            _create(connection)


def is_current(engine: Engine) -> bool:
    """Whether the tables are those of this version of the gateway."""
    with reading(engine) as connection:
        if not inspect(connection).has_table(_version.name):
            return False
        return connection.scalars(select(_version.c.version_num)).all() == [_HEAD]


def _create(connection: Connection) -> None:
    """Create the tables as all migrations together would, without loading Alembic.

    tests/store/test_database.py compares the results of both.
    """
    metadata.create_all(connection)
    connection.execute(insert(revisions), {"number": 0})
    _version.create(connection)
    connection.execute(insert(_version), {"version_num": _HEAD})


def _migrate(connection: Connection) -> None:
    # Imported here, as it takes 11 MB of a worker that hardly ever needs it.
    from alembic import command
    from alembic.config import Config

    # Without an alembic.ini: env.py takes the connection from the attributes, so that
    # all steps run in the transaction that holds the lock.
    config = Config()
    folder = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
