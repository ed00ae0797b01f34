"""A config as a tree of values for the template. Pure; it holds no credential."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..api.config.nodes import ConfigNode
from ..api.config.schema import Config
from ..core.routing import Strategy

# Characters of a query that are shown.
_MAX_QUERY = 160


@dataclass(frozen=True, slots=True)
class Mark:
    """The result of a dry run for a node: *look* is a CSS class, *note* its text."""

    look: str
    note: str


@dataclass(frozen=True, slots=True)
class TreeNode:
    """A group or a target. *when* says how the group above selects it."""

    path: str
    title: str
    kind: str
    when: str
    facts: Sequence[tuple[str, str]]
    children: Sequence["TreeNode"] = ()
    mark: Mark | None = None


_NO_MARKS: Mapping[str, Mark] = {}


def config_tree(
    node: ConfigNode, marks: Mapping[str, Mark] = _NO_MARKS, when: str = ""
) -> TreeNode:
    """*node* and all below it, with *marks* by their paths."""
    own = node.own
    mode = (own.get("strategy") or {}).get("mode")
    return TreeNode(
        node.path,
        own.get("name") or mode or _provider_name(own),
        "group" if mode else "target",
        when,
        list(_facts(own)),
        [
            config_tree(child, marks, condition)
            for child, condition in zip(node.below, _conditions(own), strict=False)
        ],
        marks.get(node.path),
    )


def query_text(query: Any) -> str:
    """A query of a condition as text, cut if it is long."""
    text = json.dumps(query, ensure_ascii=False)
    return text if len(text) <= _MAX_QUERY else text[:_MAX_QUERY] + " …"


def _provider_name(own: Config) -> str:
    if own.get("provider"):
        return str(own["provider"])
    return f"@{own['virtual_key']}" if own.get("virtual_key") else "as the request says"


def _conditions(own: Config) -> Iterator[str]:
    """When a group selects each of its targets, as a text for each."""
    targets = own.get("targets") or []
    strategy = own.get("strategy") or {}
    mode = strategy.get("mode")
    weights = [float(target.get("weight", 1)) for target in targets]
    for i, target in enumerate(targets):
        if mode == Strategy.LOADBALANCE:
            yield f"{weights[i] / (sum(weights) or 1):.0%}"
        elif mode == Strategy.FALLBACK:
            yield "then" if i else "first"
        elif mode == Strategy.CONDITIONAL:
            name = target.get("name")
            conditions = [
                f"if {query_text(condition['query'])}"
                for condition in strategy.get("conditions") or ()
                if condition["then"] == name
            ]
            if strategy.get("default") == name:
                conditions.append("otherwise")
            yield ", or ".join(conditions) or "never"
        else:
            # `single`, the default, uses the first target alone.
            yield "never" if i else "always"


def _facts(own: Config) -> Iterator[tuple[str, str]]:
    """Names and values of what a node sets for routing. None of it is secret: these are
    picked one by one, so that a new setting is not shown until somebody adds it.
    """
    strategy = own.get("strategy") or {}
    overrides = own.get("override_params") or {}
    # Where the title is a name, the fact says what the title would have been.
    if own.get("name") and strategy:
        yield "mode", strategy["mode"]
    elif own.get("name") and own.get("provider"):
        yield "provider", str(own["provider"])
    if own.get("provider") and own.get("virtual_key"):
        yield "virtual key", str(own["virtual_key"])
    if strategy.get("on_status_codes"):
        yield "moves on at", ", ".join(map(str, strategy["on_status_codes"]))
    if strategy.get("sticky"):
        yield "sticky by", str(strategy["sticky"])
    if breaker := strategy.get("cb_config"):
        count = breaker.get("failure_threshold")
        percentage = breaker.get("failure_threshold_percentage")
        threshold = f"{count} failures" if count else f"{percentage} % failing"
        # Portkey's intervals are in milliseconds.
        cooldown = breaker.get("cooldown_interval", 30000) / 1000
        yield "breaker", f"{threshold}, {cooldown:g} s"
    if overrides.get("model"):
        yield "model", str(overrides["model"])
    if others := sorted(set(overrides) - {"model"}):
        yield "sets", ", ".join(others)
    if own.get("drop_params"):
        yield "drops", ", ".join(own["drop_params"])
    if own.get("custom_host"):
        # The host alone: the URL may hold a password.
        yield "host", str(urlsplit(own["custom_host"]).hostname)
    if own.get("via"):
        yield "via", str(own["via"])
    if own.get("model_aliases"):
        yield "aliases", ", ".join(sorted(own["model_aliases"]))
    if retry := own.get("retry"):
        yield "retries", str(retry.get("attempts"))
    if own.get("request_timeout"):
        yield "timeout", f"{own['request_timeout']:g} ms"
    if own.get("cache"):
        yield "cache", str(own["cache"].get("mode", "simple"))
