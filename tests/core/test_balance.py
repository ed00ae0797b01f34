"""Weighted and sticky load balancing."""

import random

from app.core.balance import pick_by_weight, rendezvous
from app.core.routing import Target


def children(*weights: float) -> list[Target]:
    named = enumerate(weights)
    return [Target("p", name=f"t{i}", weight=w, identity=f"id{i}") for i, w in named]


def test_weights_are_relative() -> None:
    seven, three = children(0.7, 0.3)
    chance = random.Random(4)
    picked = [pick_by_weight([seven, three], chance.random()) for _ in range(2000)]

    # Three sigma of a binomial distribution: 3 * sqrt(2000 * 0.7 * 0.3) = 61.5
    assert abs(picked.count(seven) - 1400) < 62


def test_zero_weight_is_never_picked() -> None:
    targets = children(0, 1, 0)

    assert {pick_by_weight(targets, i / 1000).name for i in range(1000)} == {"t1"}
    assert {rendezvous(targets, str(i)).name for i in range(1000)} == {"t1"}


def test_range_ends_pick_a_child() -> None:
    targets = children(0.1, 0.2, 0.7)

    assert pick_by_weight(targets, 0.0) == targets[0]
    assert pick_by_weight(targets, 1.0 - 2**-53) == targets[2]
    assert pick_by_weight(targets, 1.0) in targets


def test_sticky_callers_follow_weights() -> None:
    targets = children(3, 1)
    picked = [rendezvous(targets, f"user{i}") for i in range(2000)]

    assert picked == [rendezvous(targets, f"user{i}") for i in range(2000)]
    assert abs(picked.count(targets[0]) - 1500) < 59


def test_removed_target_moves_only_its_callers() -> None:
    targets = children(1, 1, 1)
    users = [f"user{i}" for i in range(1000)]
    before = {user: rendezvous(targets, user) for user in users}
    after = {user: rendezvous(targets[:1] + targets[2:], user) for user in users}

    moved = [user for user in users if before[user] != after[user]]
    assert all(before[user] == targets[1] for user in moved)
    assert 250 < len(moved) < 420
    assert {after[user].name for user in moved} == {"t0", "t2"}
