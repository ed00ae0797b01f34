"""The gateway in this process, and a scripted upstream for it to call."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app import create_app
from app.core.hosts import LOCALHOST
from app.settings import Settings
from app.store import database

from . import upstream as scripted
from .e2e.server import Server, children, eventually
from .postgres import Postgres, running
from .upstream import Upstream, completion, whole
from .valkey import Valkey
from .valkey import running as valkey_running

KEY = "sk-a-key-of-the-caller"

# No deadline: tests must not fail on a busy machine.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After all tests no process and no thread of theirs still runs.

    Nor has a test written to `instance`, the folder of a developer's own gateway.
    """
    before, kept = set(threading.enumerate()), Path("instance").exists()
    yield
    assert kept or not Path("instance").exists()
    eventually(lambda: set(threading.enumerate()) <= before, actual=threading.enumerate)
    assert children(os.getpid()) == []


@dataclass
class Caller:
    """A client of the gateway, with headers that are always sent."""

    app: Flask
    headers: dict[str, str] = field(default_factory=dict)
    responses: list[TestResponse] = field(default_factory=list)

    def complete(
        self,
        path: str = "/v1/completions",
        headers: dict[str, str] | None = None,
        **body: Any,
    ) -> TestResponse:
        """Post a completion request; model and prompt have defaults."""
        fields = {"model": "m", "prompt": "Hi"} | body
        sent = {key: value for key, value in fields.items() if value is not Absent}
        return self.post(json.dumps(sent).encode(), path, headers)

    def post(
        self,
        body: bytes,
        path: str = "/v1/completions",
        headers: dict[str, str] | None = None,
        content_type: str | None = "application/json",
    ) -> TestResponse:
        sent = {**self.headers, **(headers or {})}
        response = self.app.test_client(use_cookies=False).post(
            path, data=body, headers=sent, content_type=content_type
        )
        self.responses.append(response)
        return response

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.app.test_client().get(path, headers=self.headers, **options)

    def leave(self) -> None:
        """Close every response, as a server does after sending it, and the gateway."""
        for response in self.responses:
            response.close()
        self.app.extensions["lastword"].close()
        self.app.extensions["lastword.directory"].close()
        self.app.extensions["lastword.ledger"].close()


class Absent:
    """Stands for a field that is not sent."""


Script = Callable[..., Upstream]


@pytest.fixture
def upstreams() -> Iterator[list[Upstream]]:
    """The upstreams of the test, which stop with it."""
    started: list[Upstream] = []
    yield started
    for upstream in started:
        upstream.stop()


@pytest.fixture
def script(upstreams: list[Upstream]) -> Script:
    """Creates upstreams with scripted answers."""

    def make(*answers: scripted.Script) -> Upstream:
        upstreams.append(Upstream(list(answers)))
        return upstreams[-1]

    return make


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The defaults, but without a default for max_tokens.

    The instance folder is the test's own, and custom hosts may be on this machine.
    """
    return Settings(
        default_max_tokens=None,
        instance=str(tmp_path / "instance"),
        ledger=False,
        trusted_custom_hosts=LOCALHOST,
    )


@pytest.fixture
def call(settings: Settings) -> Iterator[Callable[..., Caller]]:
    """Creates callers whose gateway reaches *upstream* as provider openai."""
    callers: list[Caller] = []

    def make(upstream: Upstream, **changes: Any) -> Caller:
        headers = {
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": upstream.url,
            "Authorization": f"Bearer {KEY}",
        }
        callers.append(Caller(create_app(replace(settings, **changes)), headers))
        return callers[-1]

    yield make
    for caller in callers:
        caller.leave()


@pytest.fixture(scope="session")
def engine() -> Iterator[Server]:
    """A gateway with two workers and the embedded engine, once for all tests."""
    server = Server(GATEWAY_ENGINE="1", WEB_CONCURRENCY="2")
    server.wait_until_ready()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def gateway_url(engine: Server) -> str:
    """The URL of that gateway."""
    return engine.url


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A real PostgreSQL, once for all tests."""
    yield from running(tmp_path_factory.mktemp("pg"))


@pytest.fixture(scope="session")
def the_valkey() -> Iterator[Valkey]:
    """A real Valkey, once for all tests."""
    yield from valkey_running()


@pytest.fixture
def valkey(the_valkey: Valkey) -> Valkey:
    """The Valkey of all tests, emptied."""
    the_valkey.clear()
    return the_valkey


def upgrade_database(settings: Settings) -> None:
    """Create the tables of the store of *settings*."""
    engine = database.connect(settings.database_url, Path(settings.instance))
    database.upgrade(engine)
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def stored(request: Any, settings: Settings) -> Settings:
    """Settings with a migrated store: in a file, and in PostgreSQL."""
    chosen = settings
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        chosen = replace(settings, database_url=server.database())
    upgrade_database(chosen)
    return replace(chosen, secret_key="a secret of the tests", store_ttl=0.0001)


@pytest.fixture
def upstream(script: Script) -> Upstream:
    """An upstream that answers every request with one completion."""
    return script(whole(completion()))


@pytest.fixture
def caller(call: Callable[..., Caller], upstream: Upstream) -> Caller:
    """A caller whose gateway reaches *upstream*."""
    return call(upstream)


def events(response: TestResponse) -> list[Any]:
    """The data of a streamed answer's events; JSON is read, `[DONE]` stays text."""
    blocks = response.get_data(as_text=True).split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") for block in blocks)
    texts = [block.removeprefix("data: ") for block in blocks]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


def read_until(response: TestResponse, marker: bytes) -> bytes:
    """Read a stream until *marker* has arrived; return what was read."""
    received = b""
    for piece in response.iter_encoded():
        received += piece
        if marker in received:
            break
    return received
