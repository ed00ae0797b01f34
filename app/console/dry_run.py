"""Shows where a request would go, using the code that routes real ones.

Config, keys and breaker states are those of the gateway, so that the result holds for
the next request; but no upstream is called.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..api.config.nodes import ConfigNode
from ..api.routing import patterns
from ..api.routing.authentication import Caller, is_unprotected, trusted_hosts
from ..api.routing.default_route import with_default_route
from ..api.routing.route_builder import build_route
from ..api.routing.routing_headers import RoutingHeaders, parse_routing_headers
from ..core import conditions
from ..core.balance import rendezvous
from ..core.routing import Group, Node, Strategy, Target, available_children
from ..errors import GatewayError, InvalidRequest, InvalidRoute
from ..planning.plan import Plan
from .config_tree import Mark, TreeNode, config_tree, query_text
from .services import ConsoleServices

_PATH = "/v1/completions"

# Takes the place of the provider's key that a caller would send.
_CALLER_KEY = "a key of the caller's own"


@dataclass(frozen=True, slots=True)
class DryRunRequest:
    """The form: *config* is an id or JSON, *params* and *metadata* are JSON, *key* is
    the name of a gateway key.
    """

    config: str = ""
    model: str = ""
    params: str = ""
    metadata: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class TargetPreview:
    """A target that may be called; *share* is the probability that it is the first.

    *plan* says how it would be called; without one, *refusal* says why it would not.
    """

    target: Target
    share: float
    available: bool
    plan: Plan | None
    refusal: str = ""

    @property
    def mark(self) -> Mark:
        if self.refusal:
            return Mark("refuses", "would be refused")
        # From here on it would be shown as "100% of requests".
        if self.share >= 0.995:
            return Mark("picked", "would be called")
        if self.share > 0:
            return Mark("picked", f"{self.share:.0%} of requests")
        if not self.available:
            return Mark("open", "breaker open")
        return Mark("spare", "if others fail")


@dataclass(frozen=True, slots=True)
class DryRunResult:
    """Where the request would go; or *problems*, if it would be refused at once."""

    problems: Sequence[str] = ()
    tree: TreeNode | None = None
    targets: Sequence[TargetPreview] = ()
    reasons: Sequence[str] = ()

    @property
    def first(self) -> TargetPreview | None:
        """The target that is most likely to be called first."""
        likeliest = max(self.targets, key=lambda each: each.share, default=None)
        return likeliest if likeliest and likeliest.share > 0 else None


def dry_run(dry_request: DryRunRequest, services: ConsoleServices) -> DryRunResult:
    """Where the request that *dry_request* describes would go."""
    try:
        # The parameters are those that conditions and plans look at; the prompt matters
        # to none of them, but a request without one would be refused.
        body: dict[str, Any] = {"prompt": "A prompt."}
        body |= _json_object("Parameters", dry_request.params)
        if dry_request.model:
            body["model"] = dry_request.model
        headers = _routing_headers(dry_request, body, services)
        root = build_route(
            headers, body, _PATH, services.settings.default_max_tokens
        ).root
        walk = _RouteWalk(services, headers, body)
        walk.visit(root, 1.0)
    except InvalidRoute as e:
        return DryRunResult(list(e.errors) or [e.message])
    except GatewayError as e:
        return DryRunResult([e.message])
    # A conditional group of the route has only the child that its conditions chose. The
    # others are in the config alone, and are marked as unused.
    paths = {node.path for node in _nodes_below(root)}
    marks = {
        node.path: Mark("unused", "not for this request")
        for node in _config_nodes_below(headers.config_node)
        if node.path not in paths
    }
    marks |= {each.target.path: each.mark for each in walk.targets}
    tree = config_tree(headers.config_node, marks)
    return DryRunResult((), tree, walk.targets, walk.reasons)


def _routing_headers(
    dry_request: DryRunRequest, body: Mapping[str, Any], services: ConsoleServices
) -> RoutingHeaders:
    """What a real request with this config and metadata would have in its headers.

    Without a gateway key, the caller may use everything. It sends the provider's key
    that the config lacks, if GATEWAY_BYOK allows that.
    """
    # For its error alone: a real request with invalid metadata goes without it.
    _json_object("Metadata", dry_request.metadata)
    store, settings = services.store, services.settings
    name = dry_request.key.strip()
    key = next((key for key in store.keys if key.name == name), None) if name else None
    if name and key is None:
        raise InvalidRequest(f"There is no gateway key {name[:80]!r}.")
    caller = Caller(
        store,
        key,
        _CALLER_KEY if settings.byok else None,
        is_open=key is None,
        byok=settings.byok,
        trusted=trusted_hosts(is_unprotected(store, settings), settings, None),
    )
    # An empty field is an absent header: the two are not the same.
    values = {
        "x-portkey-config": dry_request.config.strip(),
        "x-portkey-metadata": dry_request.metadata.strip(),
    }
    headers = {name: value for name, value in values.items() if value}
    routing = parse_routing_headers(headers, caller)
    if routing.names_route:
        return routing
    return with_default_route(routing, body, settings)


def _json_object(what: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError) as e:
        raise InvalidRequest(f"{what}: this is not JSON.") from e
    if not isinstance(value, dict):
        raise InvalidRequest(f"{what}: an object is wanted.")
    return value


def _config_nodes_below(node: ConfigNode) -> Iterator[ConfigNode]:
    yield node
    for child in node.below:
        yield from _config_nodes_below(child)


def _nodes_below(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children if isinstance(node, Group) else ():
        yield from _nodes_below(child)


class _RouteWalk:
    """Collects the targets of a route, with their shares, and the reasons."""

    def __init__(
        self,
        services: ConsoleServices,
        headers: RoutingHeaders,
        body: Mapping[str, Any],
    ) -> None:
        self._plan = services.gateway.target_caller.plan
        self._is_available = services.gateway.breaker.available
        nodes = _config_nodes_below(headers.config_node)
        self._config_nodes = {node.path: node for node in nodes}
        url = {"pathname": _PATH}
        self._context = {"metadata": headers.metadata, "params": body, "url": url}
        self._searches = patterns.Searches()
        self.targets: list[TargetPreview] = []
        self.reasons: list[str] = []

    def visit(self, node: Node, share: float) -> float:
        """Add the targets below *node*, which gets this *share* of requests.

        Returns the share that they would refuse: a fallback passes it on.
        """
        if isinstance(node, Target):
            return self._visit_target(node, share)
        available = available_children(node, self._is_available)
        self.reasons += self._explain(node, available)
        if node.mode == Strategy.FALLBACK:
            refused = share
            for child in available:
                refused = self.visit(child, refused)
        elif node.mode == Strategy.LOADBALANCE and node.sticky is not None:
            # All requests with this sticky value go to one child.
            chosen = rendezvous(available, node.sticky)
            refused = sum(self.visit(c, share * (c is chosen)) for c in available)
        elif node.mode == Strategy.LOADBALANCE:
            # Those that are left may all have weight 0.
            weights = sum(child.weight for child in available) or 1
            refused = sum(
                self.visit(child, share * child.weight / weights) for child in available
            )
        else:
            refused = self.visit(available[0], share)
        # Listed as well, with no share: the page shows how they would be called.
        for child in node.children:
            if child not in available:
                self.visit(child, 0.0)
        return refused

    def _visit_target(self, target: Target, share: float) -> float:
        plan, refusal = None, ""
        try:
            plan = self._plan(target)
        except GatewayError as e:
            refusal = e.message
        available = self._is_available(target)
        called = 0.0 if refusal else share
        self.targets.append(TargetPreview(target, called, available, plan, refusal))
        if refusal and share:
            self.reasons.append(f"{target.path} would refuse: {refusal}")
        return share if refusal else 0.0

    def _explain(self, group: Group, available: Sequence[Node]) -> Iterator[str]:
        """A sentence for each reason why *group* leads where it does."""
        if group.mode == Strategy.CONDITIONAL:
            strategy = self._config_nodes[group.path].own["strategy"]
            for condition in strategy["conditions"]:
                query, then = condition["query"], condition["then"]
                holds = conditions.matches(query, self._context, self._searches)
                result = "holds" if holds else "does not hold"
                yield f"{query_text(query)} {result} → {then}"
                if holds:
                    break
            else:
                yield f"No condition holds: the default, {strategy['default']}."
        elif group.mode == Strategy.LOADBALANCE and group.sticky is not None:
            chosen = rendezvous(available, group.sticky)
            yield f"{group.path} is sticky: {group.sticky!r} belongs to {chosen.path}."
        elif group.mode == Strategy.LOADBALANCE:
            weights = ", ".join(f"{each.path} {each.weight:g}" for each in available)
            yield f"{group.path} balances by weight: {weights}."
        elif group.mode == Strategy.FALLBACK:
            yield f"{group.path} is a fallback: {available[0].path} comes first."
        left_out = [child.path for child in group.children if child not in available]
        if left_out:
            yield f"{group.path} leaves out {', '.join(left_out)}: the breaker is open."
