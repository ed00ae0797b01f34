"""A new store that many open at once, as the workers of a server do."""

import multiprocessing
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from app.settings import Settings
from app.store import database, opening
from app.store.tables import metadata

MANY = 4
ROUNDS = 15


def open_it(settings: Settings, ready: Any) -> None:
    ready.wait(10)
    opening.database(settings).dispose()


def test_a_new_file_may_be_opened_by_many_at_once(settings: Settings) -> None:
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


def test_a_file_that_is_not_there_is_not_current(tmp_path: Path) -> None:
    engine = database.connect("", tmp_path)
    try:
        assert not database.is_current(engine)
    finally:
        engine.dispose()


def test_all_migrations_make_the_tables_that_the_code_knows(settings: Settings) -> None:
    engine = opening.database(settings)
    try:
        assert database.is_current(engine)
        with engine.connect() as connection:
            context = MigrationContext.configure(connection)
            assert compare_metadata(context, metadata) == []
    finally:
        engine.dispose()


def test_a_store_that_is_ready_is_opened_without_alembic(settings: Settings) -> None:
    opening.database(settings).dispose()
    code = (
        "import sys; from app.settings import Settings; from app.store import opening; "
        f"opening.database(Settings(instance={settings.instance!r})).dispose(); "
        "sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
