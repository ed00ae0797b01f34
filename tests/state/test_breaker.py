"""Targets that are left alone for a while."""

from typing import Any

from app.core.routing import BreakerPolicy, Target
from app.state.breaker import LocalBreaker


class FakeTime:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def setting(**policy: Any) -> tuple[LocalBreaker, Target, FakeTime]:
    clock = FakeTime()
    target = Target("p", identity="one", breaker=BreakerPolicy(**policy))
    return LocalBreaker(clock), target, clock


def call(breaker: LocalBreaker, target: Target, *statuses: int) -> None:
    for status in statuses:
        breaker.enter(target)
        breaker.leave(target, status)


def test_a_target_opens_after_so_many_failures() -> None:
    breaker, target, _ = setting(failure_threshold=3)
    call(breaker, target, 500, 200, 503)
    assert breaker.available(target)
    call(breaker, target, 502)
    assert not breaker.available(target)


def test_a_share_counts_from_so_many_calls_on() -> None:
    breaker, target, _ = setting(failure_threshold_percentage=50, minimum_requests=4)
    call(breaker, target, 500, 500, 200)
    assert breaker.available(target)
    call(breaker, target, 500)
    assert not breaker.available(target)


def test_a_share_of_nothing_opens_nothing() -> None:
    breaker, target, _ = setting(failure_threshold_percentage=1)
    call(breaker, target, 200, 404)
    assert breaker.available(target)


def test_only_listed_statuses_count_where_a_list_is_given() -> None:
    breaker, target, _ = setting(failure_threshold=1, failure_status_codes=(429,))
    call(breaker, target, 500, 503)
    assert breaker.available(target)
    call(breaker, target, 429)
    assert not breaker.available(target)


def test_after_the_cooldown_one_call_decides() -> None:
    breaker, target, clock = setting(failure_threshold=1, cooldown=30)
    call(breaker, target, 500)
    clock.now = 29.9
    assert not breaker.available(target)
    clock.now = 30
    assert breaker.available(target)
    breaker.enter(target)
    assert not breaker.available(target)
    breaker.leave(target, 500)
    assert not breaker.available(target)
    clock.now = 60
    call(breaker, target, 200)
    assert breaker.available(target)
    call(breaker, target, 200)
    assert breaker.available(target)


def test_old_failures_are_forgotten() -> None:
    breaker, target, clock = setting(failure_threshold=2, cooldown=30)
    call(breaker, target, 500)
    clock.now = 31
    call(breaker, target, 500)
    assert breaker.available(target)


def test_targets_without_policy_are_always_available() -> None:
    breaker = LocalBreaker()
    target = Target("p", identity="x")
    call(breaker, target, 500, 500, 500)
    assert breaker.available(target)


def test_targets_are_told_apart_by_identity() -> None:
    breaker, target, _ = setting(failure_threshold=1)
    other = Target("p", identity="other", breaker=target.breaker)
    call(breaker, target, 500)
    assert breaker.available(other) and not breaker.available(target)
