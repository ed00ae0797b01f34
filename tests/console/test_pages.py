"""The pages of the console, at the wire."""

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
    with closing(factory.ledger(settings)) as made:
        yield made


@pytest.fixture
def busy(settings: Settings, operator: Operator) -> Operator:
    """An operator whose gateway has done something."""
    fill(settings, many=400)
    trip(operator.app)
    return operator


# Overview


def test_a_new_gateway_has_an_empty_overview(operator: Operator) -> None:
    page = operator.text()

    assert "No request in the last 15 min." in page
    assert "No target with a breaker was called" in page
    assert page.count('<svg class="plot"') == 5


@pytest.mark.parametrize("window", ["15m", "24h", "30d", "nonsense"])
@pytest.mark.parametrize("by", ["provider", "key", "nonsense"])
def test_the_overview_shows_groups_and_breakers(
    busy: Operator, window: str, by: str
) -> None:
    page = busy.text(f"/?window={window}&by={by}")

    assert ("batch-jobs" if by == "key" else "anthropic") in page
    assert "openai-prod" in page and ">open<" in page and ">closed<" in page


def test_the_overview_shows_one_group_alone(busy: Operator) -> None:
    page = busy.text("/?by=provider&window=24h&only=groq")

    assert "Show all" in page and "/console/requests?provider=groq" in page
    assert ">anthropic</a>" not in page
    assert "<script>" not in busy.text("/?only=<script>")


def test_a_ledger_that_is_off_is_said_to_be(visitor: Console) -> None:
    somebody = visitor(ledger=False)
    somebody.log_in()

    assert "The ledger is off" in somebody.text()
    assert "The ledger is off" in somebody.text("/requests")


def test_a_store_out_of_reach_is_a_page(operator: Operator, settings: Settings) -> None:
    operator.get()
    with closing(sqlite3.connect(Path(settings.instance) / "gateway.db")) as file:
        file.execute("DROP TABLE requests")
    response = operator.get("/requests")

    assert response.status_code == 503
    assert "out of reach" in response.get_data(as_text=True)


# Requests


def test_requests_are_filtered(busy: Operator) -> None:
    assert "4 tries" in busy.text("/requests?provider=anthropic")
    assert "4 tries" not in busy.text("/requests?provider=openai")
    assert 'value="&lt;script&gt;"' in busy.text("/requests?key=<script>")


def test_a_request_shows_its_way(operator: Operator, ledger: Ledger) -> None:
    ledger.add(_eventful(1_790_000_000))
    ledger.flush()
    page = operator.text("/requests/1")

    assert page.count('class="label') == 5
    assert "config.targets[1].targets[1]" in page and "<code>best_of</code>" in page
    assert "text-davinci-003 -&gt; claude-haiku-4-5" in page
    assert operator.get("/requests/2").status_code == 404


def test_what_a_caller_makes_up_is_text(operator: Operator, ledger: Ledger) -> None:
    ledger.add(row(model="<script>alert(1)</script>", trace_id="<b>"))
    ledger.flush()

    for page in ("/requests", "/requests/1"):
        assert "<script>alert" not in operator.text(page)


def test_a_request_with_fallback_is_entered_with_its_tries(
    operator: Operator, script: Script
) -> None:
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


# What is live


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
    with closing(factory.history(settings)) as made:
        yield made


def test_requests_that_end_are_told_once(
    history: LedgerQueries, ledger: Ledger
) -> None:
    ledger.add(row(model="old"))
    ledger.flush()
    feed = live(history)
    retry, nothing = next(feed), next(feed)
    ledger.add(row(model="a"))
    ledger.add(row(model="b"))
    ledger.flush()
    told, again = next(feed), next(feed)

    assert retry.startswith(b"retry:") and nothing == again == b": nothing new\n\n"
    assert told == b'event: requests\ndata: "b,a"\n\n'


def test_only_those_are_told_that_are_wanted(
    history: LedgerQueries, ledger: Ledger
) -> None:
    feed = live(history, selection=LedgerFilter(key="mine"))
    next(feed)
    ledger.add(row(model="a"))
    ledger.add(row(model="b", key="mine"))
    ledger.flush()

    assert next(feed) == b'event: requests\ndata: "b"\n\n'


def test_it_has_an_end_and_frees_its_place_once(history: LedgerQueries) -> None:
    freed: list[int] = []
    feed = live(history, duration=3, release=lambda: freed.append(1))
    pieces = list(feed)
    feed.close()
    feed.close()

    assert len(pieces) == 4 and freed == [1]


def test_it_ends_when_the_gateway_does(history: LedgerQueries) -> None:
    feed = live(history)
    feed.is_stopping = lambda: True

    assert len(list(feed)) == 1


def test_a_ledger_out_of_reach_is_told(history: LedgerQueries) -> None:
    feed = live(history)
    next(feed)

    def gone(*_: object, **__: object) -> list[LedgerEntry]:
        raise StoreUnavailable

    feed._ledger = type("Gone", (), {"latest": gone})()  # type: ignore[assignment]
    assert next(feed).startswith(b"event: trouble")


def test_no_more_follow_than_there_is_room_for(operator: Operator) -> None:
    answers = [operator.get("/requests/live") for _ in range(9)]
    statuses = [each.status_code for each in answers]
    for each in answers:
        each.close()
    again = operator.get("/requests/live")
    again.close()

    assert statuses == [200] * 8 + [503]
    assert again.status_code == 200 and again.mimetype == "text/event-stream"


def test_who_follows_does_not_take_all_threads(operator: Operator) -> None:
    operator.app.extensions["lastword"].callers.most = 7
    one, other = operator.get("/requests/live"), operator.get("/requests/live")
    one.close()

    assert (one.status_code, other.status_code) == (200, 503)


# Playground


def test_the_playground_offers_what_is_stored(busy: Operator) -> None:
    page = busy.text("/playground")

    assert '<option value="by-plan">' in page and '<option value="groq">' in page


def test_snippets_hold_no_key(operator: Operator) -> None:
    config = {"provider": "groq", "api_key": "SECRET", "virtual_key": "known"}
    given = {
        "headers": {
            "x-portkey-config": json.dumps(config),
            "Authorization": "Bearer SECRET",
            "X-API-Key": "SECRET",
        },
        "body": {"model": "m", "prompt": "Hi"},
        "has_key": True,
    }
    response = operator.post("/playground/snippets", json=given)

    assert set(response.json) == {"curl", "Python", "openai 0.28"}
    for text in response.json.values():
        assert "SECRET" not in text and "LASTWORD_KEY" in text and "known" in text


@pytest.mark.parametrize("given", [[], {}, {"headers": 1, "body": {}}, "text"])
def test_snippets_of_nonsense_are_refused(operator: Operator, given: Any) -> None:
    assert operator.post("/playground/snippets", json=given).status_code == 400


# Configs


def test_configs_are_drawn_without_what_is_secret(busy: Operator) -> None:
    page = busy.text("/configs")

    for id in CONFIGS:
        assert f">{id}</h2>" in page
        assert "nobody-may-see" not in busy.text(f"/configs/{id}")
    assert "75%" in page and "metadata.plan" in page
    assert "nobody-may-see" not in page
    assert busy.get("/configs/nothing").status_code == 404


def dry_run(operator: Operator, config: Any, **given: Any) -> str:
    text = config if isinstance(config, str) else json.dumps(config)
    sent = {"config": text, "model": "m"} | given
    return operator.post("/try", data=sent).get_data(as_text=True)


def test_a_dry_run_says_which_condition_leads_where(busy: Operator) -> None:
    pro = dry_run(busy, "by-plan", metadata='{"plan": "pro"}')
    free = dry_run(busy, "by-plan")

    assert "groq would be called" in pro and "holds → fast" in pro
    assert "openai would be called" in free and "No condition holds" in free
    assert free.count("not for this request") == 2


def test_a_dry_run_of_a_loadbalance_says_how_likely_each_is(operator: Operator) -> None:
    targets = [{"provider": "groq", "weight": 3}, {"provider": "openai", "weight": 1}]
    config = {"strategy": {"mode": "loadbalance"}, "targets": targets}
    page = dry_run(operator, config)

    assert "75% of requests" in page and "25% of requests" in page


def test_a_dry_run_passes_over_what_would_be_refused(operator: Operator) -> None:
    targets = [{"provider": "anthropic"}, {"provider": "openai"}]
    config = {"strategy": {"mode": "fallback"}, "targets": targets}
    page = dry_run(operator, config, params='{"logprobs": 3}')

    assert "openai would be called" in page and "would be refused" in page


def test_a_dry_run_leaves_out_whose_breaker_is_open(
    operator: Operator, script: Script
) -> None:
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
    "config, said",
    [
        ("{", "not JSON"),
        ('{"strategy": {"mode": "nonsense"}}', "strategy"),
        ("unknown", "There is no config"),
        ("", "x-portkey-config or x-portkey-provider header is required"),
        ('{"provider": "openai", "custom_host": "http://10.0.0.1"}', "custom_host"),
    ],
)
def test_a_config_that_cannot_work_is_said_to_be_refused(
    operator: Operator, config: str, said: str
) -> None:
    page = dry_run(operator, config)

    assert "It would be refused" in page and said in page


@pytest.mark.parametrize("field", ["params", "metadata"])
@pytest.mark.parametrize("text", ["{", "[]", "[" * 5000])
def test_nonsense_beside_a_config_is_said_to_be(
    operator: Operator, field: str, text: str
) -> None:
    page = dry_run(operator, {"provider": "openai"}, **{field: text})

    assert "It would be refused" in page


def test_a_key_that_is_not_there_is_said_to_be(operator: Operator) -> None:
    assert "no gateway key" in dry_run(operator, {"provider": "openai"}, key="x")
