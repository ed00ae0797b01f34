"""Circuit breakers, and the file that keeps their circuits."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from app.core.routing import BreakerPolicy, Target
from app.errors import UpstreamRefused, UpstreamStatus
from app.state.breaker import (
    Breaker,
    Circuit,
    Circuits,
    circuit_name,
    current_circuit,
    guard_call,
)
from app.state.local_store import LocalCircuits, LocalFile

from .conftest import FakeTime
from .test_meter import workers
from .worker import TARGET

# Every example has a target of its own.
NUMBERS = itertools.count(1)

Setup = Callable[..., tuple[Breaker, Target, FakeTime]]


class MemoryCircuits:
    """Circuits in memory: the model of those in a file."""

    def __init__(self) -> None:
        self._circuits: dict[str, Circuit] = {}

    def read(self, name: str, now: float) -> Circuit | None:
        return self._circuits.get(name)

    def enter(self, name: str, policy: BreakerPolicy, now: float) -> None:
        if name in self._circuits:
            self._circuits[name] = self._circuits[name].start_call(policy, now)

    def leave(self, name: str, policy: BreakerPolicy, failed: bool, now: float) -> None:
        circuit = current_circuit(self._circuits.get(name), policy, now)
        self._circuits[name] = circuit.end_call(policy, failed, now)

    def read_all(self, now: float, limit: int) -> Mapping[str, Circuit]:
        return self._circuits


@pytest.fixture
def clock() -> FakeTime:
    return FakeTime()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits.db"


@pytest.fixture
def circuits(path: Path) -> Iterator[Circuits]:
    with closing(LocalFile(path)) as file:
        yield LocalCircuits(file)


@pytest.fixture
def setup(circuits: Circuits, clock: FakeTime) -> Setup:
    """Creates a breaker, a target with this policy, and the breaker's clock."""

    def make(**policy: Any) -> tuple[Breaker, Target, FakeTime]:
        target = Target("p", identity="one", breaker=BreakerPolicy(**policy))
        return Breaker(circuits, clock), target, clock

    return make


def call(breaker: Breaker, target: Target, *statuses: int) -> None:
    for status in statuses:
        breaker.enter(target)
        breaker.leave(target, status)


def test_circuit_opens_at_failure_threshold(setup: Setup) -> None:
    breaker, target, _ = setup(failure_threshold=3)
    call(breaker, target, 500, 200, 503)
    assert breaker.available(target)
    call(breaker, target, 502)
    assert not breaker.available(target)


def test_percentage_needs_minimum_requests(setup: Setup) -> None:
    breaker, target, _ = setup(failure_threshold_percentage=50, minimum_requests=4)
    call(breaker, target, 500, 500, 200)
    assert breaker.available(target)
    call(breaker, target, 500)
    assert not breaker.available(target)


def test_percentage_ignores_circuits_without_failures(setup: Setup) -> None:
    breaker, target, _ = setup(failure_threshold_percentage=1)
    call(breaker, target, 200, 404)
    assert breaker.available(target)


def test_only_listed_failure_statuses_count(setup: Setup) -> None:
    breaker, target, _ = setup(failure_threshold=1, failure_status_codes=(429,))
    call(breaker, target, 500, 503)
    assert breaker.available(target)
    call(breaker, target, 429)
    assert not breaker.available(target)


def test_probe_decides_after_cooldown(setup: Setup) -> None:
    breaker, target, clock = setup(failure_threshold=1, cooldown=30)
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


def test_failures_expire_with_their_window(setup: Setup) -> None:
    breaker, target, clock = setup(failure_threshold=2, cooldown=30)
    call(breaker, target, 500)
    clock.now = 31
    call(breaker, target, 500)
    assert breaker.available(target)


def test_target_without_policy_stays_available(setup: Setup) -> None:
    breaker, _, _ = setup()
    target = Target("p", identity="x")
    call(breaker, target, 500, 500, 500)
    assert breaker.available(target)


def test_circuits_are_separate_by_identity(setup: Setup) -> None:
    breaker, target, _ = setup(failure_threshold=1)
    other = Target("p", identity="other", breaker=target.breaker)
    call(breaker, target, 500)
    assert breaker.available(other) and not breaker.available(target)


def test_lost_probe_is_replaced_after_cooldown(setup: Setup) -> None:
    breaker, target, clock = setup(failure_threshold=1, cooldown=30)
    call(breaker, target, 500)
    clock.now = 30
    breaker.enter(target)
    clock.now = 59.9
    assert not breaker.available(target)
    clock.now = 60

    assert breaker.available(target)


def test_circuit_opens_for_other_processes(circuits: Circuits, path: Path) -> None:
    assert workers("trip", str(path), count=1) == [2]

    assert not Breaker(circuits).available(TARGET)


def test_failures_of_all_processes_count(circuits: Circuits, path: Path) -> None:
    policy = BreakerPolicy(failure_threshold=8)
    target = Target("p", identity="t", breaker=policy)
    workers("trip", str(path), count=3)
    breaker = Breaker(circuits)
    call(breaker, target, 500)
    assert breaker.available(TARGET) is False
    call(breaker, target, 500)

    circuit = circuits.read(circuit_name(target), 0)
    assert circuit and circuit.failures == 8


def test_guarded_call_counts_its_failure(setup: Setup) -> None:
    breaker, target, _ = setup(failure_threshold=2)
    for error in (UpstreamStatus("x", status=429), UpstreamRefused("x"), ValueError()):
        assert breaker.available(target)
        with pytest.raises(type(error)), guard_call(breaker, target):
            raise error

    assert not breaker.available(target)


def test_successful_probe_closes_circuit(setup: Setup) -> None:
    breaker, target, clock = setup(failure_threshold=1, cooldown=30)
    call(breaker, target, 500)
    clock.now = 30
    with guard_call(breaker, target):
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
def test_file_matches_pure_circuit_model(
    circuits: Circuits,
    clock: FakeTime,
    steps: list[tuple[str, int, float]],
    policy: BreakerPolicy,
) -> None:
    target = Target("p", identity=str(next(NUMBERS)), breaker=policy)
    breakers = (Breaker(MemoryCircuits(), clock), Breaker(circuits, clock))
    for action, status, pause in steps:
        clock.now += pause
        for breaker in breakers:
            if action == "enter":
                breaker.enter(target)
            else:
                breaker.leave(target, status)
        expected, actual = (breaker.available(target) for breaker in breakers)
        assert actual == expected


def test_snapshots_describe_targets_and_states(setup: Setup) -> None:
    breaker, target, clock = setup(failure_threshold=1, cooldown=30)
    other = replace(
        target, identity=target.identity + "2", provider="q", virtual_key="vk"
    )
    breaker.enter(target)
    breaker.leave(target, 200)
    breaker.enter(other)
    breaker.leave(other, 500)
    failing, healthy = breaker.snapshots()

    assert (failing.provider, failing.virtual_key) == ("q", "vk")
    assert (failing.state, failing.failures) == ("open", 1)
    assert 0 < failing.seconds <= 30
    assert (healthy.provider, healthy.state, healthy.calls) == ("p", "closed", 1)
    clock.now += 31
    assert breaker.snapshots()[0].state == "ready"


def test_limited_snapshots_prefer_open_circuits(setup: Setup) -> None:
    breaker, target, clock = setup(failure_threshold=1, cooldown=30)
    healthy = replace(target, identity=target.identity + "2", provider="called last")
    breaker.enter(target)
    breaker.leave(target, 500)
    clock.now += 1
    breaker.enter(healthy)
    breaker.leave(healthy, 200)

    assert [each.state for each in breaker.snapshots(1)] == ["open"]
