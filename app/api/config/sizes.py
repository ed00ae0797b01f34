"""Bounds on the size of a config.

A caller's config determines how many upstreams the gateway calls for one request and
how much it computes before, so its bounds are small. A config that the operator has
stored, or named in GATEWAY_DEFAULT_CONFIG, is trusted: its bounds are above what any
carefully written config needs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .schema import Config


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that a config may have, all of its levels together.

    targets     leaves, each of which may be called
    groups      levels with a strategy
    conditions  entries of all strategies
    patterns    `$regex` conditions
    pattern_characters  of all of them
    aliases     entries of all `model_aliases`
    entries     of any other list or object: keys of a level, names of headers and
                parameters, statuses, default and override parameters
    """

    targets: int
    groups: int
    conditions: int
    patterns: int
    pattern_characters: int
    aliases: int
    entries: int


SENT = Bounds(
    targets=64,
    groups=64,
    conditions=256,
    patterns=32,
    pattern_characters=4000,
    aliases=256,
    entries=256,
)
STORED = Bounds(
    targets=1024,
    groups=1024,
    conditions=4096,
    patterns=1024,
    pattern_characters=64_000,
    aliases=4096,
    entries=4096,
)

Complaint = tuple[str, str]

# These have bounds of their own, over all levels.
_COUNTED = ("conditions", "model_aliases", "targets")


def complaints(config: Config, bounds: Bounds) -> Iterator[Complaint]:
    """Path and message of each bound that *config* exceeds.

    The schema is checked later, so that any value may have a wrong type here.
    """
    # Targets first: their number bounds the work of all that follows.
    levels = [*_levels(config)]
    is_group = [bool(targets_of(level)) for _, level in levels]
    leaves, groups = is_group.count(False), is_group.count(True)
    excess = [
        *_excess("targets", "targets", leaves, bounds.targets),
        *_excess("targets", "groups of targets", groups, bounds.groups),
    ]
    yield from excess
    # The rest would take long to count in a config with too many levels.
    if excess:
        return

    # Sums over all levels: otherwise 64 groups could have 64 times as many conditions.
    strategies = [_container(level.get("strategy"), dict) for _, level in levels]
    conditions = [_container(s.get("conditions"), (list, dict)) for s in strategies]
    patterns = [*_patterns(conditions)]
    characters = sum(map(len, patterns))
    at = "strategy,conditions"
    yield from _excess(at, "conditions", sum(map(len, conditions)), bounds.conditions)
    yield from _excess(at, "patterns", len(patterns), bounds.patterns)
    yield from _excess(
        at, "characters of patterns", characters, bounds.pattern_characters
    )

    aliases = [
        _container(level.get("model_aliases"), (list, dict)) for _, level in levels
    ]
    yield from _excess(
        "model_aliases", "aliases", sum(map(len, aliases)), bounds.aliases
    )
    for path, level in levels:
        for keys, value in _containers(level):
            at = ",".join((*path, *keys))
            yield from _excess(at, "entries", len(value), bounds.entries)


def _excess(path: str, unit: str, count: int, maximum: int) -> Iterator[Complaint]:
    if count > maximum:
        yield path, f"At most {maximum} {unit} are allowed, and there are {count}"


def targets_of(config: Any) -> list[Any]:
    """The targets of a level that may have any type."""
    targets = config.get("targets") if isinstance(config, dict) else None
    return targets if isinstance(targets, list) else []


def _levels(config: Config) -> Iterator[tuple[tuple[str, ...], Config]]:
    """All levels of *config*, each with its path."""
    # A list that grows while it is iterated over: breadth first, without recursion.
    queue: list[tuple[tuple[str, ...], Config]] = [((), config)]
    for path, level in queue:
        yield path, level
        queue += (
            ((*path, "targets", str(i)), target)
            for i, target in enumerate(targets_of(level))
            if isinstance(target, dict)
        )


def _container(value: Any, types: type | tuple[type, ...]) -> Any:
    """*value* if it is of these types, else an empty object."""
    return value if isinstance(value, types) else {}


def _containers(level: Config) -> Iterator[tuple[tuple[str, ...], Any]]:
    """*level*, and the lists and objects in it, each with its path."""
    # Two levels are enough: what is nested deeper is the caller's data, or has a bound
    # of its own.
    yield (), level
    for key, value in level.items():
        if isinstance(value, (list, dict)) and key not in _COUNTED:
            yield (key,), value
        if isinstance(value, dict):
            for inner_key, inner in value.items():
                if isinstance(inner, list) and inner_key not in _COUNTED:
                    yield (key, inner_key), inner


def _patterns(value: Any) -> Iterator[str]:
    """The patterns of `$regex` at any depth of *value*."""
    queue = [value]
    for item in queue:
        if isinstance(item, dict):
            queue += item.values()
            if isinstance(item.get("$regex"), str):
                yield item["$regex"]
        elif isinstance(item, list):
            queue += item
