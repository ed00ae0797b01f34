"""A real PostgreSQL that fails under requests and recovers."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.permissions import GatewayKey, VirtualKey
from app.settings import Settings
from app.store import factory
from tests.conftest import Caller, upgrade_database
from tests.e2e.server import eventually
from tests.postgres import Postgres
from tests.upstream import Upstream


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Postgres]:
    """A PostgreSQL of the test's own."""
    server = Postgres(tmp_path / "pg")
    yield server
    server.stop()


@pytest.fixture
def settings(settings: Settings, mortal: Postgres) -> Settings:
    return replace(
        settings,
        database_url=mortal.database(),
        secret_key="a secret of the tests",
        store_ttl=0.001,
        ledger=True,
    )


@pytest.fixture
def key(settings: Settings, upstream: Upstream) -> str:
    """A gateway key, and a virtual key that it may use."""
    upgrade_database(settings)
    store = factory.repository(settings)
    store.put_virtual_key(
        VirtualKey("v", "openai", {"api_key": "sk-1"}, custom_host=upstream.url)
    )
    text = store.create_key(GatewayKey("job"))
    store.engine.dispose()
    return text


@pytest.fixture
def make_probe(
    call: Callable[..., Caller], upstream: Upstream, key: str
) -> Callable[..., int]:
    """Creates functions that send a completion with that key and return the status."""

    def make(**changes: float) -> Callable[[], int]:
        caller = call(upstream, **changes)
        caller.headers.clear()
        caller.headers["Authorization"] = f"Bearer {key}"
        caller.headers["x-portkey-virtual-key"] = "v"
        return lambda: caller.complete().status_code

    return make


def test_cached_records_serve_within_grace(make_probe, mortal) -> None:
    patient, strict = make_probe(store_grace=300), make_probe(store_grace=0.2)
    assert (patient(), strict()) == (200, 200)
    mortal.pause()

    eventually(lambda: strict() == 503)
    assert patient() == 200


def test_database_recovery_needs_no_action(make_probe, mortal: Postgres) -> None:
    probe = make_probe(store_grace=0.0)
    assert probe() == 200
    mortal.pause()
    eventually(lambda: probe() == 503)
    mortal.go_on()

    eventually(lambda: probe() == 200)
