"""Targets that are left alone for a while."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from app.core.routing import BreakerPolicy, Target
from app.errors import UpstreamRefused, UpstreamStatus
from app.state.breaker import Breaker, Circuit, Circuits, current, guarded, name_of
from app.state.redis_store import RedisClient

from ..e2e.server import eventually
from .conftest import PLACES, FakeTime, Gateway, Place, opened
from .test_meter import workers
from .worker import TARGET

# Every example has a target of its own.
NUMBERS = itertools.count(1)


Setting = Callable[..., tuple[Breaker, Target, FakeTime]]
SHARED = (*PLACES, "failover")


@pytest.fixture
def clock() -> FakeTime:
    return FakeTime()


def kept(
    kind: str, request: Any, path: Path, stack: ExitStack, clock: FakeTime
) -> Circuits:
    """New circuits of this kind."""
    if kind != "failover":
        return opened(kind, request, path, stack).circuits()
    server = opened("redis", request, path, stack)
    link = stack.enter_context(closing(RedisClient(server.url)))
    return stack.enter_context(closing(Gateway(link, path, clock))).circuits


class MemoryCircuits:
    """Circuits as the pure functions have them, which is how all have to be."""

    def __init__(self) -> None:
        self._circuits: dict[str, Circuit] = {}

    def read(self, name: str, now: float) -> Circuit | None:
        return self._circuits.get(name)

    def enter(self, name: str, policy: BreakerPolicy, now: float) -> None:
        if name in self._circuits:
            self._circuits[name] = self._circuits[name].entered(policy, now)

    def leave(self, name: str, policy: BreakerPolicy, failed: bool, now: float) -> None:
        circuit = current(self._circuits.get(name), policy, now)
        self._circuits[name] = circuit.left(policy, failed, now)

    def known(self, now: float, most: int) -> Mapping[str, Circuit]:
        return self._circuits


@pytest.fixture(params=SHARED)
def setting(request: Any, tmp_path: Path, clock: FakeTime) -> Iterator[Setting]:
    """Makes a breaker, a target with this policy, and the breaker's clock."""
    with ExitStack() as stack:

        def make(**policy: Any) -> tuple[Breaker, Target, FakeTime]:
            target = Target("p", identity="one", breaker=BreakerPolicy(**policy))
            path = tmp_path / "limits.db"
            circuits = kept(request.param, request, path, stack, clock)
            return Breaker(circuits, clock), target, clock

        yield make


@pytest.fixture(params=SHARED)
def circuits(request: Any, tmp_path: Path, clock: FakeTime) -> Iterator[Circuits]:
    with ExitStack() as stack:
        yield kept(request.param, request, tmp_path / "limits.db", stack, clock)


def call(breaker: Breaker, target: Target, *statuses: int) -> None:
    for status in statuses:
        breaker.enter(target)
        breaker.leave(target, status)


def test_a_target_opens_after_so_many_failures(setting: Setting) -> None:
    breaker, target, _ = setting(failure_threshold=3)
    call(breaker, target, 500, 200, 503)
    assert breaker.available(target)
    call(breaker, target, 502)
    assert not breaker.available(target)


def test_a_share_counts_from_so_many_calls_on(setting: Setting) -> None:
    breaker, target, _ = setting(failure_threshold_percentage=50, minimum_requests=4)
    call(breaker, target, 500, 500, 200)
    assert breaker.available(target)
    call(breaker, target, 500)
    assert not breaker.available(target)


def test_a_share_of_nothing_opens_nothing(setting: Setting) -> None:
    breaker, target, _ = setting(failure_threshold_percentage=1)
    call(breaker, target, 200, 404)
    assert breaker.available(target)


def test_only_listed_statuses_count_where_a_list_is_given(setting: Setting) -> None:
    breaker, target, _ = setting(failure_threshold=1, failure_status_codes=(429,))
    call(breaker, target, 500, 503)
    assert breaker.available(target)
    call(breaker, target, 429)
    assert not breaker.available(target)


def test_after_the_cooldown_one_call_decides(setting: Setting) -> None:
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


def test_old_failures_are_forgotten(setting: Setting) -> None:
    breaker, target, clock = setting(failure_threshold=2, cooldown=30)
    call(breaker, target, 500)
    clock.now = 31
    call(breaker, target, 500)
    assert breaker.available(target)


def test_targets_without_policy_are_always_available(setting: Setting) -> None:
    breaker, _, _ = setting()
    target = Target("p", identity="x")
    call(breaker, target, 500, 500, 500)
    assert breaker.available(target)


def test_targets_are_told_apart_by_identity(setting: Setting) -> None:
    breaker, target, _ = setting(failure_threshold=1)
    other = Target("p", identity="other", breaker=target.breaker)
    call(breaker, target, 500)
    assert breaker.available(other) and not breaker.available(target)


def test_a_probe_that_is_never_heard_of_again_is_replaced(setting: Setting) -> None:
    breaker, target, clock = setting(failure_threshold=1, cooldown=30)
    call(breaker, target, 500)
    clock.now = 30
    breaker.enter(target)
    clock.now = 59.9
    assert not breaker.available(target)
    clock.now = 60

    assert breaker.available(target)


def test_two_processes_share_what_they_know(place: Place) -> None:
    assert workers("trip", place.where, count=1) == [2]

    assert not Breaker(place.circuits()).available(TARGET)


def test_a_shared_breaker_counts_the_failures_of_all(place: Place) -> None:
    policy = BreakerPolicy(failure_threshold=8)
    target = Target("p", identity="t", breaker=policy)
    workers("trip", place.where, count=3)
    breaker = Breaker(place.circuits())
    call(breaker, target, 500)
    assert breaker.available(TARGET) is False
    call(breaker, target, 500)

    assert place.circuits().read(name_of(target), 0).failures == 8


def test_a_guarded_call_tells_the_breaker_of_its_end(setting: Setting) -> None:
    breaker, target, _ = setting(failure_threshold=2)
    for error in (UpstreamStatus("x", status=429), UpstreamRefused("x"), ValueError()):
        assert breaker.available(target)
        with pytest.raises(type(error)), guarded(breaker, target):
            raise error

    assert not breaker.available(target)


def test_a_guarded_call_that_ends_well_closes_a_circuit(setting: Setting) -> None:
    breaker, target, clock = setting(failure_threshold=1, cooldown=30)
    call(breaker, target, 500)
    clock.now = 30
    with guarded(breaker, target):
        assert not breaker.available(target)

    assert breaker.available(target)


STEPS = some.lists(
    some.tuples(
        some.sampled_from(["enter", "leave", "leave"]),
        some.sampled_from([200, 500, 500]),
        some.sampled_from([0, 0.25, 7, 29.75, 30, 31]),
    ),
    max_size=30,
)
POLICIES = some.builds(
    BreakerPolicy,
    failure_threshold=some.none() | some.integers(1, 3),
    failure_threshold_percentage=some.none() | some.sampled_from([0.5, 50, 100]),
    minimum_requests=some.integers(1, 3),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, policy=POLICIES)
def test_every_place_keeps_a_circuit_as_the_pure_functions_do(
    circuits: Circuits,
    clock: FakeTime,
    steps: list[tuple[str, int, float]],
    policy: BreakerPolicy,
) -> None:
    target = Target("p", identity=str(next(NUMBERS)), breaker=policy)
    breakers = (Breaker(MemoryCircuits(), clock), Breaker(circuits, clock))
    for what, status, pause in steps:
        clock.now += pause
        for breaker in breakers:
            if what == "enter":
                breaker.enter(target)
            else:
                breaker.leave(target, status)
        here, there = (breaker.available(target) for breaker in breakers)
        assert here == there


def test_those_that_are_left_alone_are_known_by_what_they_are(setting: Setting) -> None:
    breaker, target, clock = setting(failure_threshold=1, cooldown=30)
    other = replace(
        target, identity=target.identity + "2", provider="q", virtual_key="vk"
    )
    breaker.enter(target)
    breaker.leave(target, 200)
    breaker.enter(other)
    breaker.leave(other, 500)
    eventually(lambda: {each.provider for each in breaker.known()} >= {"p", "q"})
    left, well = [each for each in breaker.known() if each.provider in "pq"][:2]

    assert (left.virtual_key, left.state, left.failures) == ("vk", "open", 1)
    assert 0 < left.seconds <= 30
    assert (well.provider, well.state, well.calls) == ("p", "closed", 1)
    clock.now += 31
    assert breaker.known()[0].state == "ready"


def test_of_many_those_that_are_left_alone_are_known_first(setting: Setting) -> None:
    breaker, target, clock = setting(failure_threshold=1, cooldown=30)
    well = replace(target, identity=target.identity + "2", provider="called last")
    breaker.enter(target)
    breaker.leave(target, 500)
    clock.now += 1
    breaker.enter(well)
    breaker.leave(well, 200)
    eventually(lambda: any(s.provider == well.provider for s in breaker.known(1000)))

    assert [each.state for each in breaker.known(1)] == ["open"]
