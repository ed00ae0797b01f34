"""How large a config may be, whoever wrote it.

A caller's config says how many upstreams the gateway calls for one request, and how
much it has to work out before: so it has small bounds. One that the operator stored, or
named in GATEWAY_DEFAULT_CONFIG, is trusted, and has bounds that no config needs which
was written with care.
"""

from collections.abc import Iterator, Mapping
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
    entries     of one list or object else: keys of a level, names of headers and
                parameters, statuses, parameters that are filled in or overruled
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

# Keys whose values are counted over all levels.
_COUNTED = ("conditions", "model_aliases", "targets")


def complaints(config: Config, bounds: Bounds) -> Iterator[Complaint]:
    """Path and message of what there is too much of. Its shape may be wrong."""
    levels = [*_levels(config)]
    too_many = [*_of_levels(levels, bounds)]
    yield from too_many
    if too_many:
        return
    yield from _of_conditions(levels, bounds)
    aliases = sum(len(_sized(level.get("model_aliases"))) for _, level in levels)
    yield from _too_many("model_aliases", "aliases", aliases, bounds.aliases)
    for path, level in levels:
        for keys, value in _entries(level):
            at = ",".join((*path, *keys))
            yield from _too_many(at, "entries", len(value), bounds.entries)


def _of_levels(levels: list["_Placed"], bounds: Bounds) -> Iterator[Complaint]:
    is_group = [bool(_targets(level)) for _, level in levels]
    targets, groups = is_group.count(False), is_group.count(True)
    yield from _too_many("targets", "targets", targets, bounds.targets)
    yield from _too_many("targets", "groups of targets", groups, bounds.groups)


def _of_conditions(levels: list["_Placed"], bounds: Bounds) -> Iterator[Complaint]:
    at = "strategy,conditions"
    lists = [_sized(_strategy(level).get("conditions")) for _, level in levels]
    entries = sum(map(len, lists))
    yield from _too_many(at, "conditions", entries, bounds.conditions)
    patterns = [*_patterns(lists)]
    yield from _too_many(at, "patterns", len(patterns), bounds.patterns)
    characters = sum(map(len, patterns))
    most = bounds.pattern_characters
    yield from _too_many(at, "characters of patterns", characters, most)


def _too_many(path: str, what: str, seen: int, most: int) -> Iterator[Complaint]:
    if seen > most:
        yield path, f"At most {most} {what} are allowed, and there are {seen}"


_Placed = tuple[tuple[str, ...], Config]


def _levels(config: Config) -> Iterator[_Placed]:
    """All levels of *config*, each with its path."""
    waiting: list[_Placed] = [((), config)]
    for path, level in waiting:
        yield path, level
        waiting += (
            ((*path, "targets", str(i)), target)
            for i, target in enumerate(_targets(level))
            if isinstance(target, dict)
        )


def _targets(level: Config) -> list[Any]:
    found = level.get("targets")
    return found if isinstance(found, list) else []


def _strategy(level: Config) -> Mapping[str, Any]:
    found = level.get("strategy")
    return found if isinstance(found, dict) else {}


def _sized(value: Any) -> Any:
    return value if isinstance(value, (list, dict)) else ()


def _entries(level: Config) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Lists and objects of a level, by the keys that lead to them; and itself."""
    yield (), level
    for key, value in level.items():
        if isinstance(value, (list, dict)) and key not in _COUNTED:
            yield (key,), value
        if isinstance(value, dict):
            yield from (
                ((key, inner), each)
                for inner, each in value.items()
                if isinstance(each, list) and inner not in _COUNTED
            )


def _patterns(value: Any) -> Iterator[str]:
    """The patterns of `$regex`, however deep in *value* they stand."""
    waiting = [value]
    for each in waiting:
        if isinstance(each, dict):
            waiting += each.values()
            if isinstance(each.get("$regex"), str):
                yield each["$regex"]
        elif isinstance(each, list):
            waiting += each
