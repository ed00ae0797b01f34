"""What the console reads of the ledger, in both stores."""

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
    with closing(factory.ledger(stored)) as made:
        yield made


@pytest.fixture
def history(stored: Settings) -> Iterator[LedgerQueries]:
    with closing(factory.history(stored)) as made:
        yield made


def enter(ledger: Ledger, *rows: object) -> None:
    for each in rows:
        ledger.add(each)  # type: ignore[arg-type]
    ledger.flush()


def test_sums_are_of_a_slice_of_time_by_group_and_wait(ledger, history) -> None:
    enter(
        ledger,
        row(began=NOON - 1),
        row(cost_micros=500_000, cache="HIT"),
        row(),
        row(provider="groq", first=2.0),
        row(provider="groq", first=None, ended="failed", status=503),
        row(provider=None, first=0.0),
        row(began=NOON + 60),
    )
    found = {(s.group, s.wait): s for s in history.sums("provider", NOON, NOON + 60)}

    openai = next(s for (group, _), s in found.items() if group == "openai")
    assert (openai.requests, openai.cached, openai.prompt_tokens) == (2, 1, 20)
    assert openai.cost == 0.5
    assert openai.wait is not None and wait_of(openai.wait) <= 0.1
    assert wait_of(openai.wait + 1) > 0.1
    assert found["groq", None].failed == 1
    assert found["", 0].requests == 1
    assert len(found) == 4


def test_the_newest_requests_come_first_as_they_are_wanted(ledger, history) -> None:
    enter(
        ledger,
        row(model="a"),
        row(model="b", key="other", status=404, ended="failed"),
        row(model="c", provider="groq", ended="left"),
    )
    listed = history.latest()

    def models(**wanted: str) -> list[str]:
        return [each.model for each in history.latest(LedgerFilter(**wanted))]

    assert [each.model for each in listed] == ["c", "b", "a"]
    assert [each.model for each in history.latest(after=listed[1].id)] == ["c"]
    assert models(key="other") == ["b"] and models(provider="groq") == ["c"]
    assert models(status="4xx") == ["b"] and models(status="left") == ["c"]
    assert models(status="nonsense") == ["c", "b", "a"]
    assert all(isinstance(models(status=each), list) for each in STATUSES)


def test_a_request_is_told_with_its_way(ledger, history) -> None:
    story = '{"tries": [["config", "groq", 503, 1, 20]], "dropped": ["seed"]}'
    enter(ledger, row(story=story, error="x"), row())
    plain, eventful = history.latest()

    assert history.request(eventful.id) == eventful
    assert eventful.tries == (LedgerAttempt("config", "groq", 503, 1, 20),)
    assert eventful.dropped == ("seed",) and eventful.error == "x"
    assert (plain.tries, plain.dropped, plain.alias, plain.via) == ((), (), "", None)
    assert history.request(2**80) is None


def test_an_empty_ledger_tells_nothing(history: LedgerQueries) -> None:
    assert history.latest() == [] and history.request(1) is None
    assert history.sums("key", 0, 2e9) == []
