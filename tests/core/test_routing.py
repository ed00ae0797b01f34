"""Routing through a tree, compared with a simple model."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.route_walk import RouteWalk
from app.core.routing import (
    Group,
    Node,
    Strategy,
    Target,
    should_fall_back,
    targets,
)
from app.errors import (
    GatewayError,
    UnsupportedParameter,
    UnsupportedProvider,
    UpstreamCut,
    UpstreamInBand,
    UpstreamRefused,
    UpstreamStatus,
    UpstreamTimeout,
)

# Trees of targets, each with the status of its answer. 0 stands for a failure in the
# gateway itself, which no list of statuses contains.

statuses = st.sampled_from([200, 200, 400, 401, 404, 429, 500, 503, 0])
codes = st.none() | st.lists(st.sampled_from([400, 404, 429, 500, 503]), max_size=3)
leaves = statuses.map(lambda status: ("leaf", status))


def groups(children: Any) -> Any:
    several = st.lists(children, min_size=1, max_size=4)
    return st.one_of(
        st.tuples(st.just("fallback"), several, codes),
        st.tuples(st.just("loadbalance"), several, st.integers(0, 3)),
        st.tuples(st.just("single"), several.map(lambda c: c[:1]), st.none()),
    )


trees = st.recursive(leaves, groups, max_leaves=12)


def node(tree: Any, path: str = "config") -> Node:
    if tree[0] == "leaf":
        return Target("p", path=path, name=str(tree[1]))
    kind, children, option = tree
    return Group(
        Strategy(kind),
        tuple(node(c, f"{path}.targets[{i}]") for i, c in enumerate(children)),
        on_status_codes=tuple(option) if isinstance(option, list) else None,
        sticky=str(option) if kind == "loadbalance" else None,
        path=path,
    )


def model(tree: Any, path: str = "config") -> tuple[int, list[str]]:
    """The final status, and the paths that were called."""
    if tree[0] == "leaf":
        return tree[1], [path]
    kind, children, option = tree
    paths = [f"{path}.targets[{i}]" for i in range(len(children))]
    if kind != "fallback":
        i = option % len(children) if kind == "loadbalance" else 0
        return model(children[i], paths[i])
    called: list[str] = []
    for child, child_path in zip(children, paths, strict=True):
        status, child_calls = model(child, child_path)
        called += child_calls
        if status == 200 or (status and option is not None and status not in option):
            break
    return status, called


def traverse(tree: Any) -> tuple[int, list[str]]:
    called: list[str] = []

    def attempt(target: Target) -> int:
        called.append(target.path)
        status = int(target.name or 0)
        if status == 200:
            return 200
        raise UpstreamStatus("x", status=status) if status else UpstreamRefused("x")

    def pick(group: Group, children: Sequence[Node]) -> Node:
        return children[int(group.sticky or 0) % len(children)]

    walk = RouteWalk(node(tree), pick)
    target: Target | None = walk.first()
    while target:
        try:
            return attempt(target), called
        except GatewayError as e:
            status = 0 if isinstance(e, UpstreamRefused) else e.status
            target = walk.after(e)
    return status, called


@given(trees)
def test_run_follows_the_model(tree: Any) -> None:
    assert traverse(tree) == model(tree)


@given(trees, st.randoms(use_true_random=False))
def test_unavailable_targets_come_last(tree, random) -> None:
    root = node(tree)
    paths = [target.path for target in targets(root)]
    open_ = {path for path in paths if random.random() < 0.5}
    called: list[str] = []
    walk = RouteWalk(root, lambda g, c: c[0], lambda t: t.path in open_)
    target: Target | None = walk.first()
    while target:
        called.append(target.path)
        target = walk.after(UpstreamRefused("x"))

    if open_ and isinstance(root, Group) and root.mode == Strategy.FALLBACK:
        direct = [c for c in root.children if isinstance(c, Target)]
        assert not {c.path for c in direct} & set(called) - open_


@pytest.mark.parametrize(
    "error",
    [
        UnsupportedParameter("x", "echo"),
        UnsupportedProvider("x"),
        UpstreamRefused("x"),
        UpstreamCut("x"),
        UpstreamInBand("x", status=500),
    ],
    ids=lambda e: type(e).__name__,
)
def test_failures_without_a_status_of_their_own_always_move_on(error) -> None:
    assert (
        should_fall_back(error, None)
        and should_fall_back(error, ())
        and should_fall_back(error, (429,))
    )


@pytest.mark.parametrize(
    "error",
    [UpstreamStatus("x", status=503), UpstreamTimeout("x", status=408)],
    ids=["status", "timeout"],
)
def test_statuses_move_on_if_they_are_listed(error: GatewayError) -> None:
    assert should_fall_back(error, None)
    assert should_fall_back(error, (error.status,))
    assert not should_fall_back(error, (429,)) and not should_fall_back(error, ())
