"""The pages of the console, over HTTP."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.console.requests import LiveFeed
from app.errors import StoreUnavailable
from app.settings import Settings
from app.store import factory
from app.store.ledger import Ledger
from app.store.ledger_queries import LedgerEntry, LedgerFilter, LedgerQueries
from tests.conftest import Script
from tests.store.test_ledger import row
from tests.upstream import completion, whole

from .conftest import Console, Operator
from .demo import CONFIGS, _eventful, fill, trip


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with closing(factory.ledger(settings)) as ledger:
        yield ledger


@pytest.fixture
def busy(settings: Settings, operator: Operator) -> Operator:
    """An operator whose gateway has served requests."""
    fill(settings, many=400)
    trip(operator.app)
    return operator


# Overview


def test_overview_of_new_gateway(operator: Operator) -> None:
    page = operator.text()

    assert "No request in the last 15 min." in page
    assert "No target with a breaker was called" in page
    assert page.count('<svg class="plot"') == 5


@pytest.mark.parametrize("window", ["15m", "24h", "30d", "nonsense"])
@pytest.mark.parametrize("by", ["provider", "key", "nonsense"])
def test_overview_shows_groups_and_breakers(
    busy: Operator, window: str, by: str
) -> None:
    page = busy.text(f"/?window={window}&by={by}")

    assert ("batch-jobs" if by == "key" else "anthropic") in page
    assert "openai-prod" in page and ">open<" in page and ">closed<" in page


def test_overview_of_one_group(busy: Operator) -> None:
    page = busy.text("/?by=provider&window=24h&only=groq")

    assert "Show all" in page and "/console/requests?provider=groq" in page
    assert ">anthropic</a>" not in page
    assert "<script>" not in busy.text("/?only=<script>")


def test_console_notes_disabled_ledger(visitor: Console) -> None:
    somebody = visitor(ledger=False)
    somebody.log_in()

    assert "The ledger is off" in somebody.text()
    assert "The ledger is off" in somebody.text("/requests")


def test_unavailable_store_has_error_page(
    operator: Operator, settings: Settings
) -> None:
    operator.get()
    with closing(sqlite3.connect(Path(settings.instance) / "gateway.db")) as file:
        file.execute("DROP TABLE requests")
    response = operator.get("/requests")

    assert response.status_code == 503
    assert "out of reach" in response.get_data(as_text=True)


# Requests


def test_request_list_is_filtered(busy: Operator) -> None:
    assert "4 tries" in busy.text("/requests?provider=anthropic")
    assert "4 tries" not in busy.text("/requests?provider=openai")
    assert 'value="&lt;script&gt;"' in busy.text("/requests?key=<script>")


def test_request_page_shows_attempts(operator: Operator, ledger: Ledger) -> None:
    ledger.add(_eventful(1_790_000_000))
    ledger.flush()
    page = operator.text("/requests/1")

    assert page.count('class="label') == 5
    assert "config.targets[1].targets[1]" in page and "<code>best_of</code>" in page
    assert "text-davinci-003 -&gt; claude-haiku-4-5" in page
    assert operator.get("/requests/2").status_code == 404


def test_request_pages_escape_names(operator: Operator, ledger: Ledger) -> None:
    ledger.add(row(model="<script>alert(1)</script>", trace_id="<b>"))
    ledger.flush()

    for page in ("/requests", "/requests/1"):
        assert "<script>alert" not in operator.text(page)


def test_request_page_of_real_fallback(operator: Operator, script: Script) -> None:
    bad, good = script(whole({"error": {"message": "no"}}, 503)), script(
        whole(completion())
    )
    targets = [
        {"provider": "openai", "api_key": "k", "custom_host": each.url}
        for each in (bad, good)
    ]
    config = {"strategy": {"mode": "fallback"}, "targets": targets}
    reply = operator.client.post(
        "/v1/completions",
        json={"model": "m", "prompt": "Hi", "max_tokens": 3},
        headers={"x-portkey-config": json.dumps(config)},
    )
    reply.close()
    operator.app.extensions["lastword.ledger"].flush()
    page = operator.text("/requests/1")

    assert reply.status_code == 200
    assert "503" in page and "config.targets[1]" in page and page.count("<tr>") == 3


# Live updates


def live(history: LedgerQueries, **options: Any) -> LiveFeed:
    def render(entries: list[LedgerEntry]) -> str:
        return ",".join(each.model for each in entries)

    options = {
        "selection": LedgerFilter(),
        "sleep": lambda _: None,
        "render": render,
    } | options
    return LiveFeed(history, options.pop("selection"), **options)


@pytest.fixture
def history(settings: Settings) -> Iterator[LedgerQueries]:
    with closing(factory.ledger_queries(settings)) as history:
        yield history


def test_live_feed_sends_each_request_once(
    history: LedgerQueries, ledger: Ledger
) -> None:
    ledger.add(row(model="old"))
    ledger.flush()
    feed = live(history)
    retry, nothing = next(feed), next(feed)
    ledger.add(row(model="a"))
    ledger.add(row(model="b"))
    ledger.flush()
    event, again = next(feed), next(feed)

    assert retry.startswith(b"retry:") and nothing == again == b": nothing new\n\n"
    assert event == b'event: requests\ndata: "b,a"\n\n'


def test_live_feed_is_filtered(history: LedgerQueries, ledger: Ledger) -> None:
    feed = live(history, selection=LedgerFilter(key="mine"))
    next(feed)
    ledger.add(row(model="a"))
    ledger.add(row(model="b", key="mine"))
    ledger.flush()

    assert next(feed) == b'event: requests\ndata: "b"\n\n'


def test_live_feed_ends_and_releases_slot(history: LedgerQueries) -> None:
    freed: list[int] = []
    feed = live(history, duration=3, release=lambda: freed.append(1))
    pieces = list(feed)
    feed.close()
    feed.close()

    assert len(pieces) == 4 and freed == [1]


def test_live_feed_ends_with_gateway(history: LedgerQueries) -> None:
    feed = live(history)
    feed.is_stopping = lambda: True

    assert len(list(feed)) == 1


def test_live_feed_reports_unavailable_ledger(history: LedgerQueries) -> None:
    feed = live(history)
    next(feed)

    def gone(*_: object, **__: object) -> list[LedgerEntry]:
        raise StoreUnavailable

    feed._ledger = type("Gone", (), {"latest": gone})()  # type: ignore[assignment]
    assert next(feed).startswith(b"event: trouble")


def test_live_feeds_are_limited(operator: Operator) -> None:
    answers = [operator.get("/requests/live") for _ in range(9)]
    statuses = [each.status_code for each in answers]
    for each in answers:
        each.close()
    again = operator.get("/requests/live")
    again.close()

    assert statuses == [200] * 8 + [503]
    assert again.status_code == 200 and again.mimetype == "text/event-stream"


def test_live_feeds_leave_threads_free(operator: Operator) -> None:
    operator.app.extensions["lastword"].clients.max_connections = 7
    one, other = operator.get("/requests/live"), operator.get("/requests/live")
    one.close()

    assert (one.status_code, other.status_code) == (200, 503)


# Playground


def test_playground_offers_configs_and_providers(busy: Operator) -> None:
    page = busy.text("/playground")

    assert '<option value="by-plan">' in page and '<option value="groq">' in page


def test_snippets_hold_no_key(operator: Operator) -> None:
    config = {"provider": "groq", "api_key": "SECRET", "virtual_key": "known"}
    document = {
        "headers": {
            "x-portkey-config": json.dumps(config),
            "Authorization": "Bearer SECRET",
            "X-API-Key": "SECRET",
        },
        "body": {"model": "m", "prompt": "Hi"},
        "has_key": True,
    }
    response = operator.post("/playground/snippets", json=document)

    assert set(response.json) == {"curl", "Python", "openai 0.28"}
    for text in response.json.values():
        assert "SECRET" not in text and "LASTWORD_KEY" in text and "known" in text


@pytest.mark.parametrize("document", [[], {}, {"headers": 1, "body": {}}, "text"])
def test_malformed_snippet_request_refused(operator: Operator, document: Any) -> None:
    assert operator.post("/playground/snippets", json=document).status_code == 400


# Configs


def test_config_tree_hides_secrets(busy: Operator) -> None:
    page = busy.text("/configs")

    for id in CONFIGS:
        assert f">{id}</h2>" in page
        assert "nobody-may-see" not in busy.text(f"/configs/{id}")
    assert "75%" in page and "metadata.plan" in page
    assert "nobody-may-see" not in page
    assert busy.get("/configs/nothing").status_code == 404


def dry_run(operator: Operator, config: Any, **fields: Any) -> str:
    text = config if isinstance(config, str) else json.dumps(config)
    sent = {"config": text, "model": "m"} | fields
    return operator.post("/try", data=sent).get_data(as_text=True)


def test_dry_run_explains_conditions(busy: Operator) -> None:
    pro = dry_run(busy, "by-plan", metadata='{"plan": "pro"}')
    free = dry_run(busy, "by-plan")

    assert "groq would be called" in pro and "holds → fast" in pro
    assert "openai would be called" in free and "No condition holds" in free
    assert free.count("not for this request") == 2


def test_dry_run_shows_loadbalance_shares(operator: Operator) -> None:
    targets = [{"provider": "groq", "weight": 3}, {"provider": "openai", "weight": 1}]
    config = {"strategy": {"mode": "loadbalance"}, "targets": targets}
    page = dry_run(operator, config)

    assert "75% of requests" in page and "25% of requests" in page


def test_dry_run_skips_refusing_target(operator: Operator) -> None:
    targets = [{"provider": "anthropic"}, {"provider": "openai"}]
    config = {"strategy": {"mode": "fallback"}, "targets": targets}
    page = dry_run(operator, config, params='{"logprobs": 3}')

    assert "openai would be called" in page and "would be refused" in page


def test_dry_run_skips_open_breaker(operator: Operator, script: Script) -> None:
    upstream = script(whole({"error": {"message": "no"}}, 500))
    strategy = {
        "mode": "fallback",
        "cb_config": {
            "failure_threshold": 1,
            "minimum_requests": 1,
            "cooldown_interval": 60_000,
        },
    }
    targets = [
        {"provider": "openai", "api_key": "k", "custom_host": upstream.url},
        {"provider": "groq"},
    ]
    config = {"strategy": strategy, "targets": targets}
    assert "openai would be called" in dry_run(operator, config)
    operator.client.post(
        "/v1/completions",
        json={"model": "m", "prompt": "Hi"},
        headers={
            "x-portkey-config": json.dumps(config | {"targets": targets[:1]}),
        },
    ).close()
    page = dry_run(operator, config)

    assert "groq would be called" in page and "breaker open" in page
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "config, problem",
    [
        ("{", "not JSON"),
        ('{"strategy": {"mode": "nonsense"}}', "strategy"),
        ("unknown", "There is no config"),
        ("", "x-portkey-config or x-portkey-provider header is required"),
        ('{"provider": "openai", "custom_host": "http://10.0.0.1"}', "custom_host"),
    ],
)
def test_dry_run_reports_invalid_config(
    operator: Operator, config: str, problem: str
) -> None:
    page = dry_run(operator, config)

    assert "It would be refused" in page and problem in page


@pytest.mark.parametrize("field", ["params", "metadata"])
@pytest.mark.parametrize("text", ["{", "[]", "[" * 5000])
def test_dry_run_reports_malformed_json(
    operator: Operator, field: str, text: str
) -> None:
    page = dry_run(operator, {"provider": "openai"}, **{field: text})

    assert "It would be refused" in page


def test_dry_run_reports_unknown_key(operator: Operator) -> None:
    assert "no gateway key" in dry_run(operator, {"provider": "openai"}, key="x")
