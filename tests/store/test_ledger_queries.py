"""Totals and lists of the ledger, in both databases."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from app.settings import Settings
from app.store import factory
from app.store.ledger import Ledger
from app.store.ledger_queries import (
    STATUSES,
    LedgerAttempt,
    LedgerFilter,
    LedgerQueries,
    wait_of,
)

from .test_ledger import NOON, row


@pytest.fixture
def ledger(stored: Settings) -> Iterator[Ledger]:
    with closing(factory.ledger(stored)) as opened:
        yield opened


@pytest.fixture
def queries(stored: Settings) -> Iterator[LedgerQueries]:
    with closing(factory.ledger_queries(stored)) as opened:
        yield opened


def add(ledger: Ledger, *rows: object) -> None:
    for each in rows:
        ledger.add(each)  # type: ignore[arg-type]
    ledger.flush()


def test_totals_cover_time_slice_by_group(ledger, queries) -> None:
    add(
        ledger,
        row(began=NOON - 1),
        row(cost_micros=500_000, cache="HIT"),
        row(),
        row(provider="groq", first=2.0),
        row(provider="groq", first=None, ended="failed", status=503),
        row(provider=None, first=0.0),
        row(began=NOON + 60),
    )
    totals = {t.group: t for t in queries.sums("provider", NOON, NOON + 60)}

    openai, groq = totals["openai"], totals["groq"]
    assert (openai.requests, openai.cached, openai.prompt_tokens) == (2, 1, 20)
    assert openai.cost == 0.5
    ((step, count),) = openai.waits.items()
    assert wait_of(step) <= 0.1 < wait_of(step + 1) and count == 2
    assert (groq.requests, groq.failed, sum(groq.waits.values())) == (2, 1, 1)
    assert totals[""].waits == {0: 1}
    assert len(totals) == 3


def test_latest_requests_are_filtered(ledger, queries) -> None:
    add(
        ledger,
        row(model="a"),
        row(model="b", key="other", status=404, ended="failed"),
        row(model="c", provider="groq", ended="left"),
    )
    listed = queries.latest()

    def models(**only: str) -> list[str]:
        return [each.model for each in queries.latest(LedgerFilter(**only))]

    assert [each.model for each in listed] == ["c", "b", "a"]
    assert [each.model for each in queries.latest(after=listed[1].id)] == ["c"]
    assert models(key="other") == ["b"] and models(provider="groq") == ["c"]
    assert models(status="4xx") == ["b"] and models(status="left") == ["c"]
    assert models(status="nonsense") == ["c", "b", "a"]
    assert all(isinstance(models(status=each), list) for each in STATUSES)


def test_request_includes_attempts(ledger, queries) -> None:
    story = '{"tries": [["config", "groq", 503, 1, 20]], "dropped": ["seed"]}'
    add(ledger, row(story=story, error="x"), row())
    plain, eventful = queries.latest()

    assert queries.request(eventful.id) == eventful
    assert eventful.tries == (LedgerAttempt("config", "groq", 503, 1, 20),)
    assert eventful.dropped == ("seed",) and eventful.error == "x"
    assert (plain.tries, plain.dropped, plain.alias, plain.via) == ((), (), "", None)
    assert queries.request(2**80) is None


def test_empty_ledger_has_no_results(queries: LedgerQueries) -> None:
    assert queries.latest() == [] and queries.request(1) is None
    assert queries.sums("key", 0, 2e9) == []
