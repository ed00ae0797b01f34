"""The ledger: rows are queued, written, aggregated and purged, in both databases."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from app.errors import StoreUnavailable
from app.settings import Settings
from app.store import factory
from app.store.ledger import Ledger, Row, purge
from app.store.ledger_queries import GROUPS, usage_totals
from app.store.tables import requests
from tests.e2e.server import eventually
from tests.threads import run_threads

NOON = 1_790_000_000.0
DAY = 86400


def row(**changes: Any) -> Row:
    """A row of the ledger."""
    return {
        "began": NOON,
        "took": 0.5,
        "first": 0.1,
        "ended": "whole",
        "status": 200,
        "key": "nightly",
        "config": None,
        "target": "config.targets[0]",
        "provider": "openai",
        "virtual_key": None,
        "model": "gpt-4o",
        "stream": False,
        "cache": "DISABLED",
        "attempts": 1,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "estimated": False,
        "cost_micros": None,
        "trace_id": "t",
        "via": None,
        "error": None,
        "story": None,
    } | changes


@pytest.fixture
def engine(stored: Settings) -> Iterator[Engine]:
    engine = factory.database(stored)
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(stored: Settings) -> Iterator[Ledger]:
    with closing(factory.ledger(stored)) as ledger:
        yield ledger


def written(engine: Engine) -> int:
    with engine.begin() as connection:
        return connection.scalar(select(func.count()).select_from(requests)) or 0


def unavailable() -> Engine:
    raise StoreUnavailable


def models_in(engine: Engine) -> set[str]:
    with engine.begin() as connection:
        return set(connection.scalars(select(requests.c.model)))


def models_of(ledger: Ledger) -> list[str]:
    return [each["model"] for each in ledger._rows]


def test_rows_are_written_in_background(stored, engine) -> None:
    with closing(Ledger(lambda: factory.database(stored), interval=0.01)) as ledger:
        ledger.add(row())
        eventually(lambda: written(engine) == 1)


def test_close_writes_waiting_rows(ledger: Ledger, engine: Engine) -> None:
    for _ in range(3):
        ledger.add(row())
    ledger.close()

    assert written(engine) == 3


def test_concurrent_rows_are_written_once(ledger, engine) -> None:
    def add() -> None:
        for _ in range(50):
            ledger.add(row())
            ledger.flush()

    threads = [threading.Thread(target=add) for _ in range(4)]
    run_threads(threads)
    ledger.close()

    assert written(engine) == 200


def test_oldest_waiting_rows_are_dropped() -> None:
    with closing(Ledger(unavailable, interval=60, max_waiting=3, patience=0)) as ledger:
        for number in range(5):
            ledger.add(row(model=str(number)))

        assert models_of(ledger) == ["2", "3", "4"]
        assert ledger.dropped == 2


def test_rows_wait_for_unavailable_database(stored: Settings, engine: Engine) -> None:
    engines: list[Callable[[], Engine]] = [
        unavailable,
        lambda: factory.database(stored),
    ]
    with closing(Ledger(lambda: engines.pop(0)(), interval=60)) as ledger:
        ledger.add(row(model="first"))
        ledger.flush()
        ledger.add(row(model="second"))
        assert models_of(ledger) == ["first", "second"] and ledger.dropped == 0

        ledger.flush()

    assert written(engine) == 2


def test_returned_rows_respect_maximum() -> None:
    with closing(Ledger(unavailable, interval=60, max_waiting=2, patience=0)) as ledger:
        for number in range(2):
            ledger.add(row(model=str(number)))
        ledger.flush()
        ledger.add(row(model="2"))
        ledger.flush()

        assert models_of(ledger) == ["1", "2"] and ledger.dropped == 1


def test_invalid_row_blocks_no_others(ledger, engine) -> None:
    for each in (row(), row(took=None), row(completion_tokens=2**70), row()):
        ledger.add(each)
    ledger.close()

    assert written(engine) == 2 and ledger.dropped == 2


def test_close_retries_unavailable_database(stored, engine) -> None:
    engines: list[Callable[[], Engine]] = [
        unavailable,
        unavailable,
        lambda: factory.database(stored),
    ]
    ledger = Ledger(lambda: engines.pop(0)(), interval=60, clock=lambda: 0.0)
    ledger.add(row())
    ledger.close()

    assert written(engine) == 1 and ledger.dropped == 0 and engines == []


def test_close_gives_up_and_logs_loss(caplog) -> None:
    seconds = iter([0.0, 1.0, 4.0])
    ledger = Ledger(unavailable, interval=60, clock=lambda: next(seconds))
    for _ in range(2):
        ledger.add(row())
    with caplog.at_level(logging.ERROR):
        ledger.close()

    assert ledger.dropped == 2 and models_of(ledger) == []
    assert [r.message for r in caplog.records if r.levelno == logging.ERROR] == [
        "2 rows of the ledger are lost: it cannot be written"
    ]


# Old rows


def test_old_rows_are_purged_in_batches(ledger: Ledger, engine: Engine) -> None:
    for day in range(8):
        ledger.add(row(model=f"of day {day}", began=NOON + day * DAY))
    ledger.close()

    deleted = [purge(engine, NOON + 5 * DAY, limit=2) for _ in range(4)]
    assert deleted == [2, 2, 1, 0]
    assert models_in(engine) == {"of day 5", "of day 6", "of day 7"}


def test_ledger_purges_at_start_and_hourly(stored, engine) -> None:
    clock = [0.0]
    with closing(
        Ledger(
            lambda: factory.database(stored),
            interval=0.01,
            days=400,
            now=lambda: NOON + 400 * DAY,
            clock=lambda: clock[0],
        )
    ) as ledger:
        ledger.add(row(model="old", began=NOON - 1))
        ledger.add(row(model="young", began=NOON))
        eventually(lambda: models_in(engine) == {"young"})

        ledger.add(row(model="late", began=NOON - 1))
        eventually(lambda: models_in(engine) == {"young", "late"})
        clock[0] = 3600.0
        eventually(lambda: models_in(engine) == {"young"})


def test_failed_purge_blocks_no_writing(stored, engine, caplog) -> None:
    engines: list[Callable[[], Engine]] = [
        unavailable,
        unavailable,
        lambda: factory.database(stored),
    ]
    with closing(Ledger(lambda: engines.pop(0)(), interval=0.01, days=1)) as ledger:
        ledger.add(row(began=NOON + 100_000 * DAY))
        eventually(lambda: written(engine) == 1)

    assert "old rows of the ledger stay for now" in caplog.text


def test_nothing_is_purged_without_days(stored, engine) -> None:
    with closing(Ledger(lambda: factory.database(stored), interval=0.01)) as ledger:
        ledger.add(row(began=0.0))
        eventually(lambda: written(engine) == 1)
        ledger.add(row(began=1.0))
        eventually(lambda: written(engine) == 2)


# Totals


def test_usage_totals_by_each_group(ledger: Ledger, engine: Engine) -> None:
    for each in (
        row(cost_micros=1_500_000),
        row(provider="groq", status=502, ended="failed", cost_micros=250_000),
        row(key=None, model="", began=NOON + DAY, config="main", cache="HIT"),
    ):
        ledger.add(each)
    ledger.close()

    by_key = {each.group: each for each in usage_totals(engine, "key")}
    assert (by_key["nightly"].requests, by_key["nightly"].failed) == (2, 1)
    assert (by_key["nightly"].prompt_tokens, by_key["nightly"].completion_tokens) == (
        20,
        10,
    )
    assert by_key["nightly"].cost == 1.75
    assert (by_key["-"].requests, by_key["-"].cached) == (1, 1)
    assert by_key["nightly"].cached == 0
    assert [each.group for each in usage_totals(engine, "config")] == ["-", "main"]
    assert [each.requests for each in usage_totals(engine, "virtual_key")] == [3]
    assert [each.group for each in usage_totals(engine, "model")] == ["gpt-4o", "-"]
    assert {each.group for each in usage_totals(engine, "status")} == {"200", "502"}
    assert {each.group for each in usage_totals(engine, "provider")} == {
        "openai",
        "groq",
    }
    days = [(each.group, each.requests) for each in usage_totals(engine, "day")]
    assert days == [("2026-09-21", 2), ("2026-09-22", 1)]


def test_totals_may_exceed_column_range(ledger: Ledger, engine: Engine) -> None:
    for _ in range(4):
        ledger.add(row(prompt_tokens=2**62))
    ledger.close()

    (sums,) = usage_totals(engine, "key")
    assert sums.prompt_tokens == 2**64


@pytest.mark.parametrize("by", GROUPS)
def test_usage_totals_respect_since(ledger, engine, by: str) -> None:
    ledger.add(row())
    ledger.add(row(began=NOON + DAY))
    ledger.close()

    assert sum(each.requests for each in usage_totals(engine, by, NOON + 1)) == 1
    assert usage_totals(engine, by, NOON + 2 * DAY) == []
