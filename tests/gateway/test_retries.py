"""Retries along a whole tree, compared with a simple model; with a fake clock."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.retry import RETRY_STATUS_CODES, RetryPolicy
from app.core.route_walk import RouteWalk
from app.core.routing import Group, Node, Strategy, Target
from app.errors import GatewayError, UpstreamRefused, UpstreamStatus
from app.gateway.retries import Clock, RetrySchedule, Trace, recorded_attempt

# A leaf is the statuses of its answers, of which the last repeats, and its number of
# retries. 0 stands for a refused connection.
outcomes = st.lists(st.sampled_from([200, 400, 429, 503, 0]), min_size=1, max_size=4)
leaves = st.tuples(st.just("leaf"), outcomes, st.integers(0, 6))
trees = st.recursive(
    leaves,
    lambda inner: st.tuples(
        st.just("fallback"),
        st.lists(inner, min_size=1, max_size=3),
        st.none() | st.lists(st.sampled_from([400, 429, 503]), max_size=2),
    ),
    max_leaves=6,
)


def node(tree: Any, path: str = "config") -> Node:
    kind, inner, option = tree
    if kind == "leaf":
        name = ",".join(map(str, inner))
        return Target("p", path=path, name=name, retry=RetryPolicy(option))
    children = (node(c, f"{path}.targets[{i}]") for i, c in enumerate(inner))
    codes = None if option is None else tuple(option)
    return Group(Strategy.FALLBACK, tuple(children), on_status_codes=codes, path=path)


def model(tree: Any, path: str = "config") -> tuple[int, list[tuple[str, int]]]:
    """The final status, and every call with its status."""
    kind, inner, option = tree
    calls: list[tuple[str, int]] = []
    if kind == "leaf":
        for i in range(min(option, 5) + 1):
            status = inner[min(i, len(inner) - 1)]
            calls.append((path, status))
            if status and status not in RETRY_STATUS_CODES:
                break
        return status, calls
    for i, child in enumerate(inner):
        status, more = model(child, f"{path}.targets[{i}]")
        calls += more
        if status == 200 or (status and option is not None and status not in option):
            break
    return status, calls


class World:
    """Targets that answer as their names say, and a clock that only sleep advances."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.calls: list[tuple[str, int]] = []
        self.trace = Trace()

    def answer(self, target: Target) -> int:
        left = [int(status) for status in str(target.name).split(",")]
        before = sum(path == target.path for path, _ in self.calls)
        status = left[min(before, len(left) - 1)]
        self.calls.append((target.path, status))
        if status == 200:
            return status
        raise UpstreamStatus("x", status=status) if status else UpstreamRefused("x")

    def sleep(self, seconds: float) -> None:
        self.passed += seconds

    def walk(self, root: Node) -> int:
        clock = Clock(lambda: self.passed, lambda: 0.0, self.sleep, lambda: 1.0)
        walk = RouteWalk(root, lambda group, children: children[0])
        target: Target | None = walk.first()
        while target:
            retries = RetrySchedule(target, self.trace, clock, None)
            delay: float | None = 0.0
            while delay is not None:
                self.sleep(delay)
                try:
                    with recorded_attempt(target, self.trace, clock, 0.0):
                        return self.answer(target)
                except GatewayError as e:
                    status = 0 if isinstance(e, UpstreamRefused) else e.status
                    delay, error = retries.next_delay(e), e
            target = walk.after(error)
        return status


@given(trees)
def test_routing_matches_the_model(tree: Any) -> None:
    world = World()
    status = world.walk(node(tree))

    assert (status, world.calls) == model(tree)
    assert [a.path for a in world.trace.attempts] == [path for path, _ in world.calls]
    assert world.trace.target is not None
    assert world.trace.target.path == world.calls[-1][0]


@given(trees)
def test_retry_waits_fit_target_budget(tree: Any) -> None:
    world = World()
    world.walk(node(tree))

    targets = {path for path, _ in world.calls}
    assert world.passed <= 60 * len(targets)


@pytest.mark.parametrize(
    "statuses, attempts, retries",
    [("200", 3, 0), ("503,200", 3, 1), ("503,400", 3, 1), ("503", 2, -1)]
    + [("400", 2, 0), ("503", 0, 0)],
)
def test_retry_count_is_portkeys(statuses, attempts, retries) -> None:
    world = World()
    world.walk(Target("p", name=statuses, retry=RetryPolicy(attempts)))

    assert world.trace.retries == retries


def test_internal_error_is_recorded_and_raised() -> None:
    trace = Trace()

    with pytest.raises(ZeroDivisionError):
        with recorded_attempt(Target("p"), trace, Clock(), 0.0):
            raise ZeroDivisionError
    assert [attempt.status for attempt in trace.attempts] == [500]
