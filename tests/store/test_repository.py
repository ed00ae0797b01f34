"""The repository, in a file and in a real PostgreSQL."""

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import select, update

from app.core.limits import Limits
from app.core.permissions import Alias, GatewayKey, VirtualKey
from app.errors import StoreUnavailable
from app.settings import Settings
from app.store import database, factory
from app.store.repository import RecordExists, RecordNotFound, Repository
from app.store.secret_box import SecretBox
from app.store.tables import gateway_keys, virtual_keys
from tests.threads import run_threads

CANARY = "sk-canary-of-a-provider"
OPENAI = VirtualKey(
    "openai-1",
    "openai",
    {"api_key": CANARY},
    model="gpt-4o",
    params={"temperature": 0.5},
    limits=Limits.of({"requests_per_minute": 5, "money_per_day": "0.10"}),
)
KEY = GatewayKey(
    "nightly",
    config="main",
    allowed={"models": ["gpt-*"]},
    aliases={"old": Alias("new", virtual_key="openai-1", shutdown_date="2026-09-28")},
    limits=Limits.of({"tokens_per_day": 0, "money_per_month": "1234567.000000001"}),
    expires=2_000_000_000,
)


@pytest.fixture
def store(stored: Settings) -> Iterator[Repository]:
    repository = factory.repository(stored)
    yield repository
    repository.engine.dispose()


def test_config_keeps_all_versions(store: Repository) -> None:
    assert store.put_config("main", {"provider": "openai"}) == 1
    assert store.put_config("main", {"provider": "groq"}) == 2

    assert store.contents().configs == {"main": {"provider": "groq"}}
    assert [(v.number, v.document["provider"]) for v in store.versions("main")] == [
        (2, "groq"),
        (1, "openai"),
    ]
    store.delete_config("main")
    assert store.contents().configs == {}
    with pytest.raises(RecordNotFound):
        store.versions("main")


def test_virtual_key_secrets_are_sealed(
    store: Repository,
) -> None:
    store.put_virtual_key(OPENAI)
    contents = store.contents()

    assert contents.virtual_keys["openai-1"] == replace(OPENAI, settings={})
    assert store.settings(contents.sealed["openai-1"]) == {"api_key": CANARY}
    assert CANARY.encode() not in contents.sealed["openai-1"]
    store.put_virtual_key(replace(OPENAI, disabled=True))
    assert store.contents().virtual_keys["openai-1"].disabled


def test_gateway_key_is_stored_as_hash(store: Repository) -> None:
    text = store.create_key(KEY)
    (stored_key,) = store.contents().keys.values()

    assert text.startswith("lw-") and len(text) == 35
    assert stored_key == replace(KEY, hint=text[-4:])
    assert text not in repr(store.contents()) + str(store.contents().keys)
    store.update_key(replace(stored_key, disabled=True))
    (again,) = store.contents().keys.values()
    assert again.disabled and again.hint == text[-4:]


def test_only_set_limits_are_written(store: Repository) -> None:
    store.create_key(KEY)
    store.create_key(GatewayKey("free"))
    query = select(gateway_keys.c.name, gateway_keys.c.document)
    with database.reading(store.engine) as connection:
        written = {name: text for name, text in connection.execute(query)}

    assert written["free"] == "{}"
    assert (
        '"limits":{"money_per_month":"1234567.000000001","tokens_per_day":0}'
        in written["nightly"]
    )


def test_keys_of_later_version_are_disabled(
    store: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    store.create_key(KEY)
    store.create_key(GatewayKey("free"))
    store.put_virtual_key(OPENAI)
    later = '{"limits": {"requests_per_century": 5}}'
    with database.writing(store.engine) as connection:
        nightly = gateway_keys.c.name == "nightly"
        connection.execute(update(gateway_keys).where(nightly).values(document=later))
        connection.execute(update(virtual_keys).values(document='{"zeal": 1}'))
    with caplog.at_level(logging.ERROR):
        contents = store.contents()

    keys = {key.name: key for key in contents.keys.values()}
    assert keys["free"].is_valid(0) and not keys["nightly"].is_valid(0)
    assert contents.virtual_keys["openai-1"].disabled
    assert "the gateway key nightly is refused: requests_per_century" in caplog.text
    for change in (
        lambda: store.update_key(replace(keys["nightly"], disabled=False)),
        lambda: store.put_virtual_key(contents.virtual_keys["openai-1"]),
    ):
        with pytest.raises(ValueError, match="cannot be read by this version"):
            change()


def test_key_names_are_unique(store: Repository) -> None:
    store.create_key(KEY)

    with pytest.raises(RecordExists):
        store.create_key(KEY)


def test_alias_is_replaced_and_deleted(store: Repository) -> None:
    store.put_alias("old", Alias("new"))
    store.put_alias("old", Alias("newer", provider="groq"))

    assert store.contents().aliases == {"old": Alias("newer", provider="groq")}
    store.delete_alias("old")
    assert store.contents().aliases == {}


@pytest.mark.parametrize(
    "delete", ["delete_config", "delete_virtual_key", "delete_key", "delete_alias"]
)
def test_deleting_missing_record_fails(store: Repository, delete: str) -> None:
    before = store.revision()
    with pytest.raises(RecordNotFound):
        getattr(store, delete)("nothing")

    assert store.revision() == before


def test_every_change_increments_revision(store: Repository) -> None:
    before = store.revision()
    store.put_config("main", {"provider": "openai"})
    store.put_virtual_key(OPENAI)
    store.create_key(KEY)
    store.put_alias("m", Alias("n"))

    assert store.revision() == before + 4
    assert store.contents().revision == before + 4


def test_concurrent_changes_are_all_stored(store: Repository) -> None:
    failures = []

    def change(number: int) -> None:
        try:
            for i in range(5):
                store.put_config(f"c{number}", {"n": i})
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=change, args=(i,)) for i in range(6)]
    run_threads(threads)

    assert failures == []
    assert store.contents().configs == {f"c{i}": {"n": 4} for i in range(6)}
    assert store.revision() == 30


# Secrets


def test_resealing_keeps_keys_valid(store: Repository, stored: Settings) -> None:
    store.put_virtual_key(OPENAI)
    store.create_key(KEY)
    keys = store.contents().keys
    new = SecretBox(["another secret of the tests"])

    assert store.reseal(new) == 2
    after = Repository(store.engine, new)
    assert after.contents().keys == keys
    sealed = after.contents().sealed["openai-1"]
    assert after.settings(sealed) == {"api_key": CANARY}
    with pytest.raises(StoreUnavailable, match="another GATEWAY_SECRET_KEY"):
        store.settings(sealed)


def test_database_holds_no_credential(store: Repository, stored: Settings) -> None:
    """Nor a gateway key, in any encoding."""
    store.put_virtual_key(OPENAI)
    text = store.create_key(KEY)

    dump = _dump(store, stored)
    assert b"openai-1" in dump and b"nightly" in dump
    assert CANARY.encode() not in dump
    assert text.encode() not in dump and text[3:].encode() not in dump


def _dump(store: Repository, settings: Settings) -> bytes:
    """The contents of the database: the file's bytes, or every row of every table."""
    if not settings.database_url:
        store.engine.dispose()
        files = Path(settings.instance).glob("gateway.db*")
        return b"".join(path.read_bytes() for path in files)
    rows_text = []
    with database.reading(store.engine) as connection:
        for table in sqlalchemy.inspect(connection).get_table_names():
            rows = connection.exec_driver_sql(f'SELECT * FROM "{table}"')
            rows_text += [repr(tuple(map(_plain, row))).encode() for row in rows]
    return b"\n".join(rows_text)


def _plain(value: object) -> object:
    return bytes(value) if isinstance(value, memoryview) else value


# Migrations


def test_tables_match_declaration(stored: Settings) -> None:
    engine = database.connect(stored.database_url, Path(stored.instance))
    database.upgrade(engine)

    assert database.is_current(engine)
    from app.store.tables import metadata

    with database.reading(engine) as connection:
        inspected = sqlalchemy.inspect(connection)
        created = {
            table: {column["name"] for column in inspected.get_columns(table)}
            for table in metadata.tables
        }
    declared = {name: set(t.columns.keys()) for name, t in metadata.tables.items()}
    assert created == declared
    engine.dispose()


def test_workers_start_concurrently(settings: Settings) -> None:
    """Like the workers of a new gateway."""
    failures = []

    def start() -> None:
        try:
            factory.repository(settings).engine.dispose()
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=start) for _ in range(8)]
    run_threads(threads)

    assert failures == []
    repository = factory.repository(settings)
    assert repository.revision() == 0
    repository.engine.dispose()


def test_missing_database_is_unavailable(settings: Settings) -> None:
    gone = replace(settings, database_url="postgresql://nobody@127.0.0.1:1/none")

    with pytest.raises(StoreUnavailable):
        factory.repository(gone)


def test_postgresql_needs_manual_upgrade(settings: Settings, postgres: object) -> None:
    url = postgres.database()  # type: ignore[attr-defined]

    with pytest.raises(StoreUnavailable, match="flask db upgrade"):
        factory.repository(replace(settings, database_url=url))
