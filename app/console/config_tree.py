"""A config as a tree to look at. Pure; no credential of it is ever shown."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..api.config.nodes import ConfigNode
from ..api.config.schema import Config
from ..core.routing import Strategy


@dataclass(frozen=True, slots=True)
class Mark:
    """What a dry run says of a place: *look* is a class, *note* a few words."""

    look: str
    note: str


@dataclass(frozen=True, slots=True)
class Node:
    """A group or a target. *when* says how one gets here from the group above."""

    path: str
    title: str
    kind: str
    when: str
    facts: Sequence[tuple[str, str]]
    children: Sequence["Node"] = ()
    mark: Mark | None = None


_NO_MARKS: Mapping[str, Mark] = {}


def tree(
    level: ConfigNode, marks: Mapping[str, Mark] = _NO_MARKS, when: str = ""
) -> Node:
    """The *level* and all below it, with *marks* by their paths."""
    own = level.own
    mode = (own.get("strategy") or {}).get("mode")
    ways = _ways(own)
    return Node(
        level.path,
        own.get("name") or mode or _whom(own),
        "group" if mode else "target",
        when,
        [*_facts(level)],
        [
            tree(below, marks, way)
            for below, way in zip(level.below, ways, strict=False)
        ],
        marks.get(level.path),
    )


def _whom(own: Config) -> str:
    name = own.get("provider") or ""
    key = own.get("virtual_key") or ""
    return name or (f"@{key}" if key else "as the request says")


def _ways(own: Config) -> Sequence[str]:
    """How a group comes to each of its targets."""
    targets = own.get("targets") or []
    strategy = own.get("strategy") or {}
    if strategy.get("mode") == Strategy.LOADBALANCE:
        return [f"{share:.0%}" for share in _shares(targets)]
    if strategy.get("mode") == Strategy.FALLBACK:
        return ["first", *["then"] * (len(targets) - 1)]
    if strategy.get("mode") == Strategy.CONDITIONAL:
        return [_condition(strategy, target.get("name")) for target in targets]
    return ["always", *["never"] * (len(targets) - 1)]


def _shares(targets: Sequence[Config]) -> list[float]:
    weights = [float(target.get("weight", 1)) for target in targets]
    return [weight / (sum(weights) or 1) for weight in weights]


def _condition(strategy: Config, name: Any) -> str:
    told = [
        f"if {shown(condition['query'])}"
        for condition in strategy.get("conditions") or ()
        if condition["then"] == name
    ]
    otherwise = ["otherwise"] if strategy.get("default") == name else []
    return ", or ".join([*told, *otherwise]) or "never"


_LONGEST = 160


def shown(query: Any) -> str:
    """A query as text, cut if it is long."""
    text = json.dumps(query, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"


def _facts(level: ConfigNode) -> Iterator[tuple[str, str]]:
    """What a level says that matters to its way, without what is secret."""
    own = level.own
    strategy = own.get("strategy") or {}
    if own.get("name") and (strategy or own.get("provider")):
        yield ("mode", strategy["mode"]) if strategy else ("provider", _whom(own))
    if own.get("provider") and own.get("virtual_key"):
        yield "virtual key", str(own["virtual_key"])
    yield from _of_strategy(strategy)
    yield from _of_request(own)
    retry = own.get("retry")
    if retry:
        yield "retries", str(retry.get("attempts"))
    if own.get("request_timeout"):
        yield "timeout", f"{own['request_timeout']:g} ms"
    if own.get("cache"):
        yield "cache", str(own["cache"].get("mode", "simple"))


def _of_strategy(strategy: Config) -> Iterator[tuple[str, str]]:
    if strategy.get("on_status_codes"):
        yield "moves on at", ", ".join(map(str, strategy["on_status_codes"]))
    if strategy.get("sticky"):
        yield "sticky by", str(strategy["sticky"])
    breaker = strategy.get("cb_config")
    if breaker:
        most = breaker.get("failure_threshold")
        share = breaker.get("failure_threshold_percentage")
        told = f"{most} failures" if most else f"{share} % failing"
        yield "breaker", f"{told}, {breaker.get('cooldown_interval', 30000) / 1000:g} s"


def _of_request(own: Config) -> Iterator[tuple[str, str]]:
    overrides = own.get("override_params") or {}
    if overrides.get("model"):
        yield "model", str(overrides["model"])
    others = sorted(set(overrides) - {"model"})
    if others:
        yield "sets", ", ".join(others)
    if own.get("drop_params"):
        yield "drops", ", ".join(own["drop_params"])
    if own.get("custom_host"):
        yield "host", str(urlsplit(own["custom_host"]).hostname)
    if own.get("via"):
        yield "via", str(own["via"])
    if own.get("model_aliases"):
        yield "aliases", ", ".join(sorted(own["model_aliases"]))
