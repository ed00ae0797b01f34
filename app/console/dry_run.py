"""Where a request would go, found out as for a real one, without calling anyone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..api.config.nodes import ConfigNode
from ..api.request.headers import RequestHeaders
from ..api.routing import patterns, routing_headers
from ..api.routing.authentication import Caller, trusted_hosts
from ..api.routing.default_route import with_default_route
from ..api.routing.route_builder import build_route
from ..api.routing.routing_headers import RoutingHeaders
from ..core import conditions
from ..core.balance import rendezvous
from ..core.routing import Group, Node, Strategy, Target, open_ways
from ..errors import GatewayError, InvalidRequest, InvalidRoute
from ..planning.plan import Plan
from .config_tree import Mark
from .config_tree import Node as Drawn
from .config_tree import shown, tree
from .services import ConsoleServices

_PATH = "/v1/completions"


@dataclass(frozen=True, slots=True)
class DryRunRequest:
    """A request as it would be sent: *config* is an id or JSON, *params* and *metadata*
    JSON, *key* the name of a gateway key.
    """

    config: str = ""
    model: str = ""
    params: str = ""
    metadata: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class TargetPreview:
    """A target that may be called. *share* is how likely it is the first one.

    *plan* says how it would be asked; without one, *refusal* says why it is not.
    """

    target: Target
    share: float
    available: bool
    plan: Plan | None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class DryRunResult:
    """What would become of it: *problems* if it would be refused."""

    problems: Sequence[str] = ()
    tree: Drawn | None = None
    leaves: Sequence[TargetPreview] = ()
    reasons: Sequence[str] = ()

    @property
    def first(self) -> TargetPreview | None:
        """The target that would most likely be called first."""
        likely = max(self.leaves, key=lambda leaf: leaf.share, default=None)
        return likely if likely and likely.share > 0 else None


def dry_run(question: DryRunRequest, parts: ConsoleServices) -> DryRunResult:
    """What would become of the request that *question* describes."""
    try:
        return _verdict(question, parts)
    except InvalidRoute as e:
        return DryRunResult(list(e.errors) or [e.message])
    except GatewayError as e:
        return DryRunResult([e.message])


def _verdict(question: DryRunRequest, parts: ConsoleServices) -> DryRunResult:
    body = _body(question)
    wanted = _wanted(question, body, parts)
    way = build_route(wanted, body, _PATH, parts.settings.default_max_tokens)
    walk = _Walk(parts, _Reasons(wanted, body))
    walk.through(way.root, 1.0)
    marks = {leaf.target.path: _mark(leaf) for leaf in walk.leaves}
    levels = {level.path for level in _levels(wanted.config_node)}
    passed = levels - {node.path for node in _nodes(way.root)}
    marks |= {path: Mark("unused", "not for this request") for path in passed}
    return DryRunResult((), tree(wanted.config_node, marks), walk.leaves, walk.reasons)


def _body(question: DryRunRequest) -> dict[str, Any]:
    more = _object("Parameters", question.params)
    model = {"model": question.model} if question.model else {}
    return {"prompt": "A prompt."} | more | model


def _object(what: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError) as e:
        raise InvalidRequest(f"{what}: this is not JSON.") from e
    if not isinstance(value, dict):
        raise InvalidRequest(f"{what}: an object is wanted.")
    return value


def _wanted(
    question: DryRunRequest, body: Mapping[str, Any], parts: ConsoleServices
) -> RoutingHeaders:
    """As for a request with these headers."""
    _object("Metadata", question.metadata)
    environ = {
        "HTTP_X_PORTKEY_CONFIG": question.config.strip(),
        "HTTP_X_PORTKEY_METADATA": question.metadata.strip(),
    }
    given = RequestHeaders({name: value for name, value in environ.items() if value})
    caller = _caller(question.key.strip(), parts)
    wanted = routing_headers.parse_routing_headers(given, caller)
    return with_default_route(wanted, body, parts.settings)


# Stands for the key of a provider that callers bring themselves.
_THEIRS = "a key of the caller's own"


def _caller(name: str, parts: ConsoleServices) -> Caller:
    """Who holds the gateway key of this *name*; without one, somebody who may all.

    They bring what the config lacks, if GATEWAY_BYOK lets them.
    """
    byok = parts.settings.byok
    own = _THEIRS if byok else None
    trusted = trusted_hosts(parts.directory, parts.settings, None)
    if not name:
        return Caller(parts.directory, None, own, byok=byok, trusted=trusted)
    named = (key for key in parts.directory.keys if key.name == name)
    key = next(named, None)
    if key is None:
        raise InvalidRequest(f"There is no gateway key {name[:80]!r}.")
    return Caller(parts.directory, key, own, is_open=False, byok=byok, trusted=trusted)


def _levels(level: ConfigNode) -> Iterator[ConfigNode]:
    yield level
    for below in level.below:
        yield from _levels(below)


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children if isinstance(node, Group) else ():
        yield from _nodes(child)


def _mark(leaf: TargetPreview) -> Mark:
    if leaf.refusal:
        return Mark("refuses", "would be refused")
    if leaf.share >= 0.995:
        return Mark("picked", "would be called")
    if leaf.share > 0:
        return Mark("picked", f"{leaf.share:.0%} of requests")
    if not leaf.available:
        return Mark("open", "breaker open")
    return Mark("spare", "if others fail")


class _Walk:
    """The way through a tree, with how likely each of its ends is."""

    def __init__(self, parts: ConsoleServices, reasons: "_Reasons") -> None:
        self._plan = parts.gateway.answering.plan
        self._available = parts.gateway.breaker.available
        self._reasons = reasons
        self.leaves: list[TargetPreview] = []
        self.reasons: list[str] = []

    def through(self, node: Node, share: float) -> float:
        """Go through *node*, where that *share* of requests comes; what it refuses."""
        if isinstance(node, Target):
            return self._leaf(node, share)
        ways = open_ways(node, self._available)
        self.reasons += self._reasons.of(node, ways)
        refused = self._WAYS[node.mode](self, node, ways, share)
        for child in node.children:
            if child not in ways:
                self.through(child, 0.0)
        return refused

    def _leaf(self, target: Target, share: float) -> float:
        plan, refusal = self._planned(target)
        available = self._available(target)
        called = 0.0 if refusal else share
        self.leaves.append(TargetPreview(target, called, available, plan, refusal))
        if refusal and share:
            self.reasons.append(f"{target.path} would refuse: {refusal}")
        return share if refusal else 0.0

    def _planned(self, target: Target) -> tuple[Plan | None, str]:
        try:
            return self._plan(target), ""
        except GatewayError as e:
            return None, e.message

    def _only(self, group: Group, ways: Sequence[Node], share: float) -> float:
        return self.through(ways[0], share)

    def _fallback(self, group: Group, ways: Sequence[Node], share: float) -> float:
        for child in ways:
            share = self.through(child, share)
        return share

    def _loadbalance(self, group: Group, ways: Sequence[Node], share: float) -> float:
        if group.sticky is not None:
            chosen = rendezvous(ways, group.sticky)
            return sum(self.through(each, share * (each is chosen)) for each in ways)
        weights = sum(each.weight for each in ways) or 1
        return sum(self.through(each, share * each.weight / weights) for each in ways)

    _WAYS = {
        Strategy.SINGLE: _only,
        Strategy.CONDITIONAL: _only,
        Strategy.FALLBACK: _fallback,
        Strategy.LOADBALANCE: _loadbalance,
    }


class _Reasons:
    """Says why a group leads where it does, for one request."""

    def __init__(self, wanted: RoutingHeaders, body: Mapping[str, Any]) -> None:
        self._levels = {level.path: level for level in _levels(wanted.config_node)}
        url = {"pathname": _PATH}
        self._context = {"metadata": wanted.metadata, "params": body, "url": url}
        self._searches = patterns.Searches()

    def of(self, group: Group, ways: Sequence[Node]) -> Iterator[str]:
        """A sentence for each reason."""
        if group.mode == Strategy.CONDITIONAL:
            yield from self._conditions(group)
        if group.mode == Strategy.LOADBALANCE:
            yield self._balance(group, ways)
        if group.mode == Strategy.FALLBACK:
            yield f"{group.path} is a fallback: {ways[0].path} comes first."
        left = [child.path for child in group.children if child not in ways]
        if left:
            yield f"{group.path} leaves out {', '.join(left)}: the breaker is open."

    def _conditions(self, group: Group) -> Iterator[str]:
        strategy = self._levels[group.path].own["strategy"]
        for condition in strategy["conditions"]:
            query, then = condition["query"], condition["then"]
            holds = conditions.matches(query, self._context, self._searches)
            yield f"{shown(query)} {'holds' if holds else 'does not hold'} → {then}"
            if holds:
                return
        yield f"No condition holds: the default, {strategy['default']}."

    def _balance(self, group: Group, ways: Sequence[Node]) -> str:
        if group.sticky is not None:
            chosen = rendezvous(ways, group.sticky)
            return f"{group.path} is sticky: {group.sticky!r} belongs to {chosen.path}."
        told = ", ".join(f"{each.path} {each.weight:g}" for each in ways)
        return f"{group.path} balances by weight: {told}."
