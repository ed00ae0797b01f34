"""New databases, opened concurrently, migrated, and without math functions."""

import multiprocessing
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, select

from app.settings import Settings
from app.store import database, factory
from app.store.tables import metadata, revisions

MANY = 4
ROUNDS = 15


def open_it(settings: Settings, ready: Any) -> None:
    ready.wait(10)
    factory.database(settings).dispose()


def test_new_file_opens_concurrently(settings: Settings) -> None:
    fork = multiprocessing.get_context("fork")
    for turn in range(ROUNDS):
        new = replace(settings, instance=f"{settings.instance}-{turn}")
        ready = fork.Barrier(MANY)
        processes = [
            fork.Process(target=open_it, args=(new, ready)) for _ in range(MANY)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(20)
        assert [process.exitcode for process in processes] == [0] * MANY


def test_missing_file_is_not_current(tmp_path: Path) -> None:
    engine = database.connect("", tmp_path)
    try:
        assert not database.is_current(engine)
    finally:
        engine.dispose()


@pytest.mark.parametrize("make", [database._create, database._migrate])
@pytest.mark.parametrize("kind", ["file", "postgres"])
def test_created_and_migrated_tables_are_equal(
    make: Callable[[Connection], None],
    kind: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    url = request.getfixturevalue("postgres").database() if kind == "postgres" else ""
    engine = database.connect(url, tmp_path)
    try:
        with database.writing(engine) as connection:
            make(connection)
        assert database.is_current(engine)
        with engine.connect() as connection:
            context = MigrationContext.configure(connection)
            assert compare_metadata(context, metadata) == []
            assert connection.scalar(select(revisions.c.number)) == 0
    finally:
        engine.dispose()


def test_current_store_opens_without_alembic(
    settings: Settings,
) -> None:
    code = (
        "import sys; from app.settings import Settings; from app.store import factory; "
        f"own = Settings(instance={settings.instance!r}); "
        "[factory.database(own).dispose() for _ in 'ab']; "
        "sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Plain(sqlite3.Connection):
    """A connection to a SQLite without mathematical functions."""

    def execute(self, query: str, *values: Any) -> sqlite3.Cursor:
        if "ln(" in query or "trunc(" in query:
            raise sqlite3.OperationalError("no such function")
        return super().execute(query, *values)


@pytest.mark.parametrize("query", ["ln(8.0)", "trunc(2.9)", "trunc(-2.9)", "ln(NULL)"])
def test_missing_sqlite_math_functions_are_added(query: str) -> None:
    with (
        closing(sqlite3.connect(":memory:", factory=Plain)) as limited,
        closing(sqlite3.connect(":memory:")) as complete,
    ):
        database.add_math_functions(limited)
        sql = f"SELECT {query}"

        result = sqlite3.Connection.execute(limited, sql).fetchone()
        assert result == complete.execute(sql).fetchone()
