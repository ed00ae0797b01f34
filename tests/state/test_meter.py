"""Limits, counted in a file and in Redis."""

import logging
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.core.counters import LimitReached, PriorUsage, UsageRequest, format_duration
from app.core.limits import LEASE, Limits
from app.state.local_store import LocalCounters, LocalFile
from app.state.meter import Charge, Meter, Reservation
from tests.threads import run_threads

from ..e2e.server import ROOT
from .conftest import Store

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()


@pytest.fixture
def meter(store: Store) -> Meter:
    return Meter(store.counters())


def claim(
    holder: str = "key:a", tokens: int = 0, money: str | None = None, **limits: Any
) -> UsageRequest:
    price = None if money is None else Decimal(money)
    return UsageRequest(holder, Limits.of(limits), tokens, price)


def reserve(meter: Meter, one: UsageRequest, now: float = NOON) -> Reservation:
    (reserved,) = meter.reserve([one], now)
    return reserved


def refusal(meter: Meter, *claims: UsageRequest, now: float = NOON) -> LimitReached:
    with pytest.raises(LimitReached) as raised:
        meter.reserve(claims, now)
    return raised.value


def passes(meter: Meter, *claims: UsageRequest, now: float = NOON) -> bool:
    try:
        meter.reserve(claims, now)
    except LimitReached:
        return False
    return True


# Parsing


def test_limits_are_parsed_from_json() -> None:
    body = {"requests_per_minute": 5, "money_per_day": 0.1, "tokens_per_day": None}

    assert Limits.of(body) == Limits(5, money_per_day=Decimal("0.1"))


def test_all_invalid_limits_are_named() -> None:
    body = {"requests_per_minute": "5", "money_per_day": -1, "tokens_per_year": 7}
    with pytest.raises(ValueError, match="tokens_per_year is no limit") as raised:
        Limits.of(body)

    assert "requests_per_minute must be a whole number" in str(raised.value)
    assert "money_per_day must be an amount of US dollars" in str(raised.value)


@pytest.mark.parametrize("value", [True, 1.5, -1, 2**60, "many", []], ids=str)
def test_request_limit_must_be_integer(value: Any) -> None:
    with pytest.raises(ValueError, match="requests_per_minute must be a whole number"):
        Limits.of({"requests_per_minute": value})


@pytest.mark.parametrize("value", [True, "NaN", "inf", -0.1, 1e9, "much", []], ids=str)
def test_money_limit_must_be_amount(value: Any) -> None:
    with pytest.raises(ValueError, match="money_per_day must be an amount"):
        Limits.of({"money_per_day": value})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0199, "20ms"), (1, "1s"), (7.01, "8s"), (360, "6m0s")]
    + [(93605, "26h0m5s")],
)
def test_durations_have_openai_format(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


# Reserving


def test_everything_passes_without_limits(meter: Meter) -> None:
    reserved = reserve(meter, claim(tokens=10**9))
    meter.settle([Charge(reserved, 5)], NOON)

    assert reserved.headers == {}


def test_requests_per_minute_are_limited(meter: Meter) -> None:
    mine = claim(requests_per_minute=3)
    passed = [passes(meter, mine) for _ in range(5)]

    assert passed == [True, True, True, False, False]


def test_minute_window_slides(meter: Meter) -> None:
    mine = claim(requests_per_minute=2)
    times = (0, 30, 59.9, 61, 61.5, 90.5, 91)
    passed = [passes(meter, mine, now=NOON + seconds) for seconds in times]

    assert passed == [True, True, False, True, False, False, True]


def test_holders_are_counted_separately(meter: Meter) -> None:
    assert passes(meter, claim("key:a", requests_per_minute=1))
    assert passes(meter, claim("key:b", requests_per_minute=1))
    assert not passes(meter, claim("key:a", requests_per_minute=1))


def test_all_holders_reserve_or_none(meter: Meter) -> None:
    narrow = claim("virtual-key:v", requests_per_minute=1)
    wide = claim("key:a", requests_per_minute=3)
    assert passes(meter, wide, narrow)
    error = refusal(meter, wide, narrow)

    assert error.holder == "virtual-key:v"
    assert [passes(meter, wide) for _ in range(3)] == [True, True, False]


def test_refusal_names_limit_and_retry_time(
    meter: Meter,
) -> None:
    mine = claim(tokens=60, tokens_per_minute=100, requests_per_minute=5)
    reserve(meter, mine)
    error = refusal(meter, mine, now=NOON + 20.5)

    assert error.to_body()["error"] == {
        "message": "Limit of key:a reached on tokens_per_minute: Limit 100, Used 60, "
        "Requested 60. Please try again in 41s.",
        "type": "tokens",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert (error.status, error.retry_after) == (429, 40.5)
    assert (error.limit, error.used, error.requested) == (100, 60, 60)
    assert error.headers == {
        "retry-after": "41",
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-reset-requests": "41s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "40",
        "x-ratelimit-reset-tokens": "41s",
    }


def test_retry_after_is_exact(meter: Meter) -> None:
    mine = claim(tokens=30, tokens_per_minute=100)
    for seconds in (0, 10, 20):
        reserve(meter, mine, NOON + seconds)
    wait = refusal(meter, mine, now=NOON + 25).retry_after

    assert wait == 36
    assert not passes(meter, mine, now=NOON + 25 + wait - 0.01)
    assert passes(meter, mine, now=NOON + 25 + wait)


def test_too_large_request_gets_no_retry_after(meter: Meter) -> None:
    error = refusal(meter, claim(tokens=101, tokens_per_minute=100))

    assert error.retry_after is None and "retry-after" not in error.headers
    assert error.message.endswith("The request is too large for this limit.")


def test_headers_show_tightest_limits_by_holder(
    meter: Meter,
) -> None:
    claims = (
        claim("key:a", 60, tokens_per_minute=100, tokens_per_day=90),
        claim("virtual-key:v", 60, tokens_per_minute=1000, requests_per_minute=7),
    )
    key, virtual_key = meter.reserve(claims, NOON)

    assert key.headers == {
        "x-ratelimit-limit-tokens": "90",
        "x-ratelimit-remaining-tokens": "30",
        "x-ratelimit-reset-tokens": "12h0m0s",
    }
    assert virtual_key.headers == {
        "x-ratelimit-limit-requests": "7",
        "x-ratelimit-remaining-requests": "6",
        "x-ratelimit-reset-requests": "1m1s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "940",
        "x-ratelimit-reset-tokens": "1m1s",
    }


# Budgets


def test_exhausted_budget_is_insufficient_quota(meter: Meter) -> None:
    mine = claim(money="0.75", money_per_month=1, money_per_day="1")
    reserve(meter, mine)
    error = refusal(meter, mine)

    assert (error.code, error.type) == ("insufficient_quota", "insufficient_quota")
    assert error.rule == "money_per_month"
    assert "Limit $1, Used $0.75, Requested $0.75." in error.message
    # From noon of the 24th to the end of November.
    assert error.headers["retry-after"] == str(6 * 86400 + 43200)


def test_days_end_at_midnight_utc(meter: Meter) -> None:
    mine = claim(tokens=6, tokens_per_day=10)
    midnight = datetime(2026, 11, 25, tzinfo=UTC).timestamp()
    assert passes(meter, mine, now=NOON)

    assert not passes(meter, mine, now=midnight - 0.001)
    assert passes(meter, mine, now=midnight)


@pytest.mark.parametrize("month", [1, 2, 11, 12])
def test_months_are_calendar_months(meter: Meter, month: int) -> None:
    mine = claim(money="6", money_per_month=10)
    begin = datetime(2027, month, 1, tzinfo=UTC).timestamp()
    end = datetime(2027 + month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp()
    assert passes(meter, mine, now=begin - 0.001)
    assert passes(meter, mine, now=begin)

    assert not passes(meter, mine, now=end - 0.001)
    assert passes(meter, mine, now=end)


def test_money_is_counted_in_nanodollars(meter: Meter) -> None:
    mine = claim(money="0.000000001", money_per_day="0.000000003")

    assert [passes(meter, mine) for _ in range(4)] == [True, True, True, False]


def test_unpriced_request_counts_tokens_alone(meter: Meter) -> None:
    limits = {"money_per_day": "1", "tokens_per_day": 30}
    reserve(meter, claim(tokens=10, money="1", **limits))
    unpriced = claim(tokens=10, **limits)

    assert passes(meter, unpriced) and passes(meter, unpriced)
    assert refusal(meter, unpriced).rule == "tokens_per_day"


def test_later_price_is_charged(meter: Meter) -> None:
    reserved = reserve(meter, claim(money_per_day="1"))
    meter.settle([Charge(reserved, 0, Decimal("0.75"))], NOON)

    assert refusal(meter, claim(money="0.5", money_per_day="1")).used == 750_000_000


# Settling


def test_settling_releases_unused_amount(meter: Meter) -> None:
    limits = {"tokens_per_minute": 100, "tokens_per_day": 100, "money_per_month": "1"}
    big, small = (claim(tokens=n, money=f"{n / 100}", **limits) for n in (100, 90))
    reserved = reserve(meter, big)
    assert not passes(meter, small)
    meter.settle([Charge(reserved, 10, Decimal("0.1"))], NOON + 5)

    assert passes(meter, small, now=NOON + 6)
    assert not passes(meter, claim(tokens=1, **limits), now=NOON + 6)


def test_settling_charges_excess(meter: Meter) -> None:
    limits = {"tokens_per_minute": 100, "tokens_per_day": 300}
    meter.settle([Charge(reserve(meter, claim(tokens=10, **limits)), 250)], NOON)

    assert refusal(meter, claim(tokens=1, tokens_per_minute=100)).used == 250
    assert refusal(meter, claim(tokens=51, tokens_per_day=300)).used == 250


def test_excess_counts_in_final_minute(
    meter: Meter,
) -> None:
    limits = {"tokens_per_minute": 100}
    reserved = reserve(meter, claim(tokens=10, **limits))
    meter.settle([Charge(reserved, 90)], NOON + 300)

    assert refusal(meter, claim(tokens=21, **limits), now=NOON + 301).used == 80


def test_request_counts_in_day_it_began(meter: Meter) -> None:
    limits = {"tokens_per_day": 100}
    midnight = datetime(2026, 11, 25, tzinfo=UTC).timestamp()
    reserved = reserve(meter, claim(tokens=10, **limits), midnight - 1)
    meter.settle([Charge(reserved, 90)], midnight + 1)

    assert passes(meter, claim(tokens=100, **limits), now=midnight + 2)


def test_second_settling_does_nothing(meter: Meter) -> None:
    limits = {"tokens_per_day": 100, "requests_in_parallel": 2}
    reserve(meter, claim(tokens=50, **limits))
    reserved = reserve(meter, claim(tokens=50, **limits))
    for tokens in (40, 0, 500):
        meter.settle([Charge(reserved, tokens)], NOON)

    assert passes(meter, claim(tokens=10, **limits))
    assert refusal(meter, claim(tokens=1, **limits)).used == 100


def test_concurrent_settling_happens_once(meter: Meter) -> None:
    reserved = reserve(meter, claim(tokens=50, tokens_per_day=100))
    threads = [
        threading.Thread(target=meter.settle, args=([Charge(reserved, 60)], NOON))
        for _ in range(8)
    ]
    run_threads(threads)

    assert refusal(meter, claim(tokens=41, tokens_per_day=100)).used == 60


def test_unused_request_still_counts(
    meter: Meter,
) -> None:
    mine = claim(tokens=5, requests_per_minute=1, tokens_per_minute=5)
    meter.settle([Charge(reserve(meter, mine), 0)], NOON)

    assert refusal(meter, mine).rule == "requests_per_minute"


def test_holders_are_settled_separately(meter: Meter) -> None:
    limits = {"tokens_per_day": 100, "requests_in_parallel": 1}
    wide, narrow = claim("key:a", 50, **limits), claim("virtual-key:v", 50, **limits)
    key, virtual_key = meter.reserve([wide, narrow], NOON)
    meter.settle([Charge(virtual_key, 20)], NOON + 5)
    assert refusal(meter, claim("virtual-key:v", 81, **limits)).used == 20
    assert refusal(meter, claim("key:a", 51, **limits)).used == 50
    meter.settle([Charge(key, 30)], NOON + 9)
    meter.settle([Charge(virtual_key, 90)], NOON + 9)

    assert refusal(meter, claim("key:a", 71, **limits)).used == 30
    rest = claim("key:a", 70, **limits), claim("virtual-key:v", 80, **limits)
    assert passes(meter, *rest)


def test_unlimited_holder_reserves_beside_others(meter: Meter) -> None:
    free, narrow = claim("key:a", 9), claim("virtual-key:v", requests_in_parallel=1)
    first, second = meter.reserve([free, narrow], NOON)
    meter.settle([Charge(first, 9)], NOON)

    assert (first.counters, first.headers) == (None, {})
    assert second.counters and not passes(meter, narrow)


# Additions to a reservation


def add(
    meter: Meter,
    first: UsageRequest,
    *held: Reservation,
    charged: Any = (0, None),
    **more: Any,
) -> Reservation:
    """Reserve for one more attempt, in addition to what is *held* and was *charged*."""
    entries = [entry for each in held for entry in each.entries]
    again = replace(first, prior=PriorUsage(entries, *charged), **more)
    return reserve(meter, again)


def used(meter: Meter, rule: str, now: float = NOON) -> int:
    limit = {rule: "1" if rule.startswith("money") else 10**6}
    return refusal(meter, claim(tokens=2 * 10**6, money="2", **limit), now=now).used


def test_addition_reserves_missing_amount(meter: Meter) -> None:
    mine = claim(tokens=60, tokens_per_day=100)
    first = reserve(meter, mine)
    add(meter, mine, first, charged=(10, None))
    assert used(meter, "tokens_per_day") == 70
    add(meter, mine, first, charged=(0, None), tokens=20)

    assert used(meter, "tokens_per_day") == 70


def test_addition_beyond_limit_is_refused(meter: Meter) -> None:
    mine = claim(tokens=60, tokens_per_day=100)
    first = reserve(meter, mine)
    with pytest.raises(LimitReached) as refused:
        add(meter, mine, first, charged=(50, None))

    assert (refused.value.used, refused.value.requested) == (60, 50)
    assert used(meter, "tokens_per_day") == 60


def test_addition_counts_no_further_request(meter: Meter) -> None:
    limits = {"requests_per_minute": 1, "requests_in_parallel": 1}
    mine = claim(tokens=10, tokens_per_day=100, **limits)
    first = reserve(meter, mine)
    second = add(meter, mine, first, tokens=50)
    assert used(meter, "tokens_per_day") == 50
    meter.settle([Charge(first, 5, None, [second])], NOON)

    assert refusal(meter, claim(**limits)).rule == "requests_per_minute"
    assert passes(meter, claim(requests_in_parallel=1))


def test_addition_with_first_price_reserves_all(meter: Meter) -> None:
    """The first target has no price, and reserved no money."""
    mine = claim(tokens=5, money_per_day="1")
    first = reserve(meter, mine)
    second = add(meter, mine, first, money=Decimal("0.6"))
    assert used(meter, "money_per_day") == 600_000_000
    third = claim(money="0.5", money_per_day="1")
    assert refusal(meter, third).requested == 500_000_000
    meter.settle([Charge(first, 5, Decimal("0.2"), [second])], NOON)

    assert used(meter, "money_per_day") == 200_000_000


def test_unpriced_addition_keeps_earlier_charge(meter: Meter) -> None:
    mine = claim(tokens=5, money="0.5", money_per_day="1")
    first = reserve(meter, mine)
    second = add(meter, mine, first, charged=(5, Decimal("0.4")), money=None)
    assert not second.entries
    meter.settle([Charge(first, 9, Decimal("0.4"), [second])], NOON)

    assert used(meter, "money_per_day") == 400_000_000


def test_all_reservations_are_settled_once(meter: Meter) -> None:
    mine = claim(tokens=10, tokens_per_day=10**6)
    first = reserve(meter, mine)
    second = add(meter, mine, first, tokens=40)
    third = add(meter, mine, first, second, tokens=90)
    for tokens in (25, 500, 0):
        meter.settle([Charge(first, tokens, None, [second, third])], NOON)

    assert used(meter, "tokens_per_day") == 25


def test_excess_over_all_reservations_is_charged(meter: Meter) -> None:
    mine = claim(tokens=10, tokens_per_minute=10**6, tokens_per_day=10**6)
    first = reserve(meter, mine)
    second = add(meter, mine, first, tokens=40)
    meter.settle([Charge(first, 100, None, [second])], NOON + 30)

    assert used(meter, "tokens_per_day") == 100
    assert used(meter, "tokens_per_minute", NOON + 30) == 100
    assert used(meter, "tokens_per_minute", NOON + 61) == 60


def test_expired_reservations_hold_nothing(meter: Meter) -> None:
    """A retry after a minute reserves again, except for what was charged before."""
    mine = claim(tokens=60, tokens_per_minute=100)
    first = reserve(meter, mine)
    later = replace(mine, prior=PriorUsage(first.entries, 60))
    second = reserve(meter, later, NOON + 70)
    assert [entry.amount for entry in second.entries] == [60]
    meter.settle([Charge(first, 120, None, [second])], NOON + 75)

    wide = claim(tokens=100, tokens_per_minute=100)
    assert refusal(meter, wide, now=NOON + 75).used == 60


def test_retry_counts_on_its_own_day(meter: Meter) -> None:
    midnight = datetime(2026, 11, 25, tzinfo=UTC).timestamp()
    mine = claim(tokens=60, tokens_per_day=100)
    first = reserve(meter, mine, midnight - 5)
    second = reserve(
        meter, replace(mine, prior=PriorUsage(first.entries, 10)), midnight + 5
    )
    meter.settle([Charge(first, 70, None, [second])], midnight + 9)

    assert refusal(meter, mine, now=midnight + 10).used == 60


def test_additions_are_reserved_together_or_none(meter: Meter) -> None:
    wide = claim("key:a", 10, tokens_per_day=10**6)
    narrow = claim("virtual-key:v", 30, tokens_per_day=20)
    first = reserve(meter, wide)
    error = refusal(
        meter, replace(wide, tokens=30, prior=PriorUsage(first.entries)), narrow
    )

    assert error.holder == "virtual-key:v"
    assert used(meter, "tokens_per_day") == 10


class _Request:
    """The reservations and charges of one request, by limit."""

    def __init__(self, parts: list[Reservation], tokens: int, money: int) -> None:
        self.parts, self.held = parts, [tokens, money]
        self.charged = [0, 0]


class RaisedReservations(RuleBasedStateMachine):
    """Parallel requests with several attempts each, on one key with two budgets.

    The counters are the reservations of open requests plus the charges of the others.
    An attempt begins if and only if its estimate fits.
    """

    TOKENS, MONEY = 1000, 300

    def __init__(self) -> None:
        super().__init__()
        self.holder = f"key:{os.urandom(8).hex()}"
        self.open: list[_Request] = []
        self.settled = [0, 0]
        self.beyond = [0, 0]

    @property
    def counted(self) -> list[int]:
        return [
            self.settled[i] + sum(each.held[i] for each in self.open) for i in (0, 1)
        ]

    def claim(self, tokens: int, money: int | None) -> UsageRequest:
        return claim(
            self.holder,
            tokens,
            None if money is None else f"{money}e-9",
            tokens_per_day=self.TOKENS,
            money_per_day=f"{self.MONEY}e-9",
        )

    def fits(self, *more: int) -> bool:
        limits = (self.TOKENS, self.MONEY)
        return all(
            not extra or now + extra <= limit
            for now, extra, limit in zip(self.counted, more, limits, strict=True)
        )

    @rule(tokens=some.integers(0, 400), money=some.none() | some.integers(0, 200))
    def begin(self, tokens: int, money: int | None) -> None:
        fits = self.fits(tokens, money or 0)
        try:
            first = reserve(self.meter, self.claim(tokens, money))
        except LimitReached:
            # An overrun budget refuses also a reservation of nothing.
            overrun = self.counted[0] > self.TOKENS or self.counted[1] > self.MONEY
            assert not fits or overrun
        else:
            assert fits
            self.open.append(_Request([first], tokens, money or 0))

    @precondition(lambda self: self.open)
    @rule(
        which=some.integers(0, 9),
        used=some.integers(0, 500),
        spent=some.integers(0, 250),
        tokens=some.integers(0, 400),
        money=some.none() | some.integers(0, 200),
    )
    def try_again(
        self, which: int, used: int, spent: int, tokens: int, money: int | None
    ) -> None:
        """The last attempt was charged; the next one needs its own estimate."""
        request = self.open[which % len(self.open)]
        request.charged = [request.charged[0] + used, request.charged[1] + spent]
        needed = request.charged[0] + tokens, request.charged[1] + (money or 0)
        more = [max(w - h, 0) for w, h in zip(needed, request.held, strict=True)]
        if money is None:
            more[1] = 0
        fits = self.fits(*more)
        entries = [entry for part in request.parts for entry in part.entries]
        prior = PriorUsage(
            entries, request.charged[0], Decimal(request.charged[1]) / 10**9
        )
        again = replace(self.claim(tokens, money), prior=prior)
        try:
            part = reserve(self.meter, again)
        except LimitReached:
            assert not fits
        else:
            assert fits
            request.parts.append(part)
            request.held = [h + m for h, m in zip(request.held, more, strict=True)]

    @precondition(lambda self: self.open)
    @rule(
        which=some.integers(0, 9), used=some.integers(0, 500), spent=some.integers(0, 9)
    )
    def end(self, which: int, used: int, spent: int) -> None:
        request = self.open.pop(which % len(self.open))
        total = request.charged[0] + used, request.charged[1] + spent
        first, *more = request.parts
        money = Decimal(total[1]) / 10**9
        for _ in range(2):
            self.meter.settle([Charge(first, total[0], money, more)], NOON)
        for i in (0, 1):
            self.settled[i] += total[i]
            self.beyond[i] += max(total[i] - request.held[i], 0)

    @invariant()
    def budgets_hold(self) -> None:
        for counted, limit, beyond in zip(
            self.counted, (self.TOKENS, self.MONEY), self.beyond, strict=True
        ):
            assert counted <= limit + beyond

    def teardown(self) -> None:
        """Compare the counters at the end."""
        for rule_, counted in zip(
            ("tokens_per_day", "money_per_day"), self.counted, strict=True
        ):
            limit = {rule_: "1" if rule_.startswith("money") else 10**6}
            most = claim(self.holder, 2 * 10**6, "2", **limit)
            assert refusal(self.meter, most).used == counted


def test_budgets_hold_for_any_sequence(meter: Meter) -> None:
    machine = type("Machine", (RaisedReservations,), {"meter": meter})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=60, stateful_step_count=25)
    )


# Parallel requests


def test_settling_frees_slot(meter: Meter) -> None:
    mine = claim(requests_in_parallel=2)
    first, _ = reserve(meter, mine), reserve(meter, mine)
    error = refusal(meter, mine)
    assert (error.headers["retry-after"], error.type) == ("1", "requests")
    meter.settle([Charge(first, 0)], NOON)

    assert passes(meter, mine) and not passes(meter, mine)


def test_lost_slot_is_free_after_lease(
    meter: Meter,
) -> None:
    mine = claim(requests_in_parallel=1)
    lost = reserve(meter, mine)

    assert not passes(meter, mine, now=NOON + LEASE - 0.1)
    assert passes(meter, mine, now=NOON + LEASE)
    meter.settle([Charge(lost, 0)], NOON + LEASE)
    assert not passes(meter, mine, now=NOON + LEASE)


# Several processes


def workers(what: str, where: str, *numbers: Any, count: int = 4) -> list[int]:
    """How many reservations each of so many parallel processes got."""
    command = [sys.executable, "-m", "tests.state.worker", what, where]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([*command, *map(str, numbers)], cwd=ROOT, **pipes)
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    return [int(process.communicate(timeout=30)[0]) for process in processes]


def test_limit_is_exact_across_processes(store: Store) -> None:
    assert sum(workers("requests", store.address, 100, NOON)) == 100


def test_slots_of_dead_process_expire(
    store: Store,
) -> None:
    assert sum(workers("slots", store.address, 2, NOON)) == 3
    meter = Meter(store.counters())

    assert not passes(meter, claim(requests_in_parallel=3), now=NOON + 60)
    assert passes(meter, claim(requests_in_parallel=3), now=NOON + LEASE)


def test_limit_is_exact_across_threads(meter: Meter) -> None:
    passed: list[bool] = []
    mine = claim(requests_per_minute=100)

    def reserve_25() -> None:
        passed.extend(passes(meter, mine) for _ in range(25))

    threads = [threading.Thread(target=reserve_25) for _ in range(16)]
    run_threads(threads)

    assert (len(passed), sum(passed)) == (400, 100)


# The model


HOLDERS = ("a", "b")
LIMITS = {
    "tokens_per_minute": 40,
    "requests_per_minute": 5,
    "requests_in_parallel": 3,
    "tokens_per_day": 90,
}


class Model:
    """All requests so far, counted by the definitions of the limits."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.beyond: list[tuple[str, float, int]] = []

    def fits(self, holder: str, tokens: int, now: float) -> bool:
        mine = [r for r in self.requests if r["holder"] == holder]
        minute = [r for r in mine if int(r["at"]) + 61 > now]
        late = sum(n for who, at, n in self.beyond if who == holder and at + 61 > now)
        places = [r for r in mine if not r["done"] and r["at"] + LEASE > now]
        day = sum(r["tokens"] for r in mine if r["at"] // 86400 == now // 86400)
        return (
            sum(min(r["tokens"], r["drawn"]) for r in minute) + late + tokens <= 40
            and len(minute) < 5
            and len(places) < 3
            and day + tokens <= 90
        )

    def make(self, holder: str, tokens: int, now: float) -> dict[str, Any]:
        drawn = {"holder": holder, "at": now, "tokens": tokens, "drawn": tokens}
        self.requests.append(drawn | {"done": False})
        return self.requests[-1]

    def settle(self, request: dict[str, Any], tokens: int, now: float) -> None:
        if not request["done"]:
            request |= {"done": True, "tokens": tokens}
            beyond = tokens - request["drawn"]
            self.beyond.append((request["holder"], int(now), max(beyond, 0)))


STEPS = some.lists(
    some.tuples(
        some.sampled_from(["a", "b", "ab", "settle"]),
        some.integers(0, 45),
        some.integers(0, 12),
        some.sampled_from([0, 0, 1, 7, 30, 61, 900, 43200]),
    ),
    max_size=40,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_counters_match_model_of_limits(
    meter: Meter, steps: list[tuple[str, int, int, int]]
) -> None:
    # Every example has its own holders.
    mark = os.urandom(8).hex()
    model, now = Model(), NOON
    held: list[tuple[Reservation, dict[str, Any]]] = []
    for what, tokens, which, pause in steps:
        now += pause
        if what == "settle":
            if held:
                reserved, request = held[which % len(held)]
                meter.settle([Charge(reserved, tokens)], now)
                model.settle(request, tokens, now)
            continue
        claims = [claim(mark + holder, tokens, **LIMITS) for holder in what]
        expected = all(model.fits(holder, tokens, now) for holder in what)
        try:
            reserved = meter.reserve(claims, now)
        except LimitReached:
            assert not expected
        else:
            assert expected
            modelled = [model.make(holder, tokens, now) for holder in what]
            held.extend(zip(reserved, modelled, strict=True))


# The file


def test_file_deletes_expired_entries(tmp_path: Path) -> None:
    with closing(LocalFile(tmp_path / "limits.db")) as file:
        meter = Meter(LocalCounters(file))
        for number in range(30):
            passes(meter, claim(f"key:{number}", requests_per_minute=1))
        for _ in range(4):
            passes(meter, claim(requests_per_minute=9), now=NOON + 100)
        with file.connection() as connection:
            left = connection.execute("SELECT counter FROM entries").fetchall()

    assert left == [("key:a:requests_per_minute",)]


def test_limits_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "instance" / "limits.db"
    with closing(LocalFile(path)) as file:
        passes(Meter(LocalCounters(file)), claim(requests_per_minute=1))

        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_corrupt_limits_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "limits.db"
    path.write_bytes(b"this is no database, and never was one. " * 200)
    with closing(LocalFile(path)) as file:
        meter = Meter(LocalCounters(file))
        mine = claim(requests_per_minute=1)

        assert passes(meter, mine) and not passes(meter, mine)


def test_file_corrupted_in_use_is_replaced(tmp_path: Path) -> None:
    """SQLite reports corruption of an attached file in the same way."""
    (tmp_path / "broken").write_bytes(b"no database at all " * 200)
    with closing(LocalFile(tmp_path / "limits.db")) as file:
        meter = Meter(LocalCounters(file))
        mine = claim(requests_per_minute=1)
        assert passes(meter, mine) and not passes(meter, mine)
        with pytest.raises(sqlite3.DatabaseError), file.connection() as connection:
            connection.execute("ATTACH ? AS other", (str(tmp_path / "broken"),))

        assert passes(meter, mine) and not passes(meter, mine)


def test_requests_pass_without_limits_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    meter = Meter(LocalCounters(LocalFile(tmp_path / "file" / "limits.db")))
    mine = claim(tokens=5, requests_per_minute=1, tokens_per_day=5)
    with caplog.at_level(logging.WARNING, "lastword"):
        for _ in range(3):
            meter.settle([Charge(reserve(meter, mine), 9)], NOON)

    assert caplog.messages == ["the file of limits fails: nothing is limited"]


FORKED = """
import os, sys
from pathlib import Path
from app.core.counters import LimitReached, UsageRequest
from app.core.limits import Limits
from app.state.meter import Meter
from app.state.local_store import LocalCounters, LocalFile

meter = Meter(LocalCounters(LocalFile(Path(sys.argv[1]))))

def ask():
    try:
        meter.reserve([UsageRequest("k", Limits(requests_per_minute=2))], 0.0)
        return "yes"
    except LimitReached:
        return "no"

before, child = ask(), os.fork()
if not child:
    os._exit(0 if ask() == "yes" else 1)
_, status = os.waitpid(child, 0)
print(before, status, ask())
"""


def test_forked_process_reopens_limits_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKED, str(tmp_path / "limits.db")]
    output = subprocess.check_output(command, cwd=ROOT, text=True)

    assert output.split() == ["yes", "0", "no"]
