"""The connection to the database, and its tables as they have to be."""

import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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

# Seconds that a request may wait for a database that does not answer, and for a
# writer of SQLite.
_CONNECT_TIMEOUT = 3
_BUSY_TIMEOUT = 5

# What two processes that start at once agree on in PostgreSQL: one of them migrates.
_MIGRATION_LOCK = 0x6C617374776F7264

# The newest of the migrations.
_HEAD = "0003"

# Where Alembic notes which one the tables are at.
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
        pool_pre_ping=True,
        pool_size=2,
        max_overflow=8,
        pool_timeout=_CONNECT_TIMEOUT,
        connect_args={"connect_timeout": _CONNECT_TIMEOUT},
    )


def _sqlite(instance: Path) -> Engine:
    private_files.make_folder(instance)
    file = instance / "gateway.db"
    # Where it cannot be made, SQLite says so.
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
    """Readers beside a writer; keys of other tables are checked."""
    # The driver would begin transactions later than a writer has to.
    connection.isolation_level = None
    _use_wal(connection)
    for pragma in ("foreign_keys = ON", "synchronous = NORMAL"):
        connection.execute(f"PRAGMA {pragma}")
    teach(connection)


_TAUGHT: dict[str, Callable[[float], float]] = {"ln": math.log, "trunc": math.trunc}


def teach(connection: sqlite3.Connection) -> None:
    """Give it the functions that SQLite need not have been built with.

    Its own are faster. Source: https://www.sqlite.org/lang_mathfunc.html
    """
    for name, function in _TAUGHT.items():
        try:
            connection.execute(f"SELECT {name}(1.0)")
        except sqlite3.OperationalError:
            connection.create_function(name, 1, _of_null(function), deterministic=True)


def _of_null(function: Callable[[float], float]) -> Callable[[float | None], Any]:
    """*function*, with nothing made of nothing, as in SQL."""
    return lambda value: None if value is None else function(value)


def _use_wal(connection: Any) -> None:
    """Readers beside a writer. SQLite itself does not wait for who does this first."""
    until = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as e:
            if e.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            if time.monotonic() > until:
                raise
        time.sleep(0.005)


def _begin(connection: Connection) -> None:
    """Who will write says so at once: later, another writer may be in the way."""
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection to read from. Raises StoreUnavailable if there is none."""
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as e:
        raise StoreUnavailable from e


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A connection to write to. Raises StoreUnavailable if there is none."""
    with reading(engine.execution_options(writes=True)) as connection:
        yield connection


# Migrations


def upgrade(engine: Engine) -> None:
    """Bring the tables up to date."""
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            lock = text("SELECT pg_advisory_xact_lock(:number)")
            connection.execute(lock, {"number": _MIGRATION_LOCK})
        make = _migrate if inspect(connection).get_table_names() else _create
        make(connection)


def is_current(engine: Engine) -> bool:
    """Whether the tables are those that this version of the gateway needs."""
    with reading(engine) as connection:
        if not inspect(connection).has_table(_version.name):
            return False
        return connection.scalars(select(_version.c.version_num)).all() == [_HEAD]


def _create(connection: Connection) -> None:
    """Make the tables where there are none: what all migrations come to."""
    metadata.create_all(connection)
    connection.execute(insert(revisions), {"number": 0})
    _version.create(connection)
    connection.execute(insert(_version), {"version_num": _HEAD})


def _migrate(connection: Connection) -> None:
    # 11 MB, which a worker need not hold whose tables are as they have to be.
    from alembic import command
    from alembic.config import Config

    config = Config()
    folder = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
