"""Routing: the tree of groups and targets of a request, and how it is traversed.

Pure: the calls, the random choice and the state of breakers are passed in as functions.

Source: the routing of the Portkey gateway, https://portkey.ai/docs/product/ai-gateway;
docs/routing.md says where this one differs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ..errors import GatewayError, UpstreamInBand, UpstreamStatus, UpstreamTimeout
from .caching import CachePolicy, CacheScope
from .limits import Limits
from .permissions import Permissions
from .request import CompletionRequest
from .retry import RetryPolicy


class Strategy(StrEnum):
    """How a group chooses among its children."""

    SINGLE = "single"
    FALLBACK = "fallback"
    LOADBALANCE = "loadbalance"
    CONDITIONAL = "conditional"


class CompletionMode(StrEnum):
    """By which kind of endpoint a provider generates a completion."""

    NATIVE = "native"
    FIM = "fim"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class Bridge:
    """How a prompt becomes a chat. By default it is the only message.

    *template* is the user message, in which `{prompt}` stands for the prompt.
    """

    system: str | None = None
    template: str | None = None


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When the circuit of a target opens, and for how long.

    It opens after *failure_threshold* failures, or at that share of failed calls in
    percent once there were *minimum_requests*; it stays open for *cooldown* seconds.
    """

    failure_threshold: int | None = None
    failure_threshold_percentage: float | None = None
    minimum_requests: int = 1
    cooldown: float = 30.0
    failure_status_codes: tuple[int, ...] | None = None

    def is_failure(self, status: int) -> bool:
        """Whether an answer with *status* counts against its target."""
        if self.failure_status_codes is not None:
            return status in self.failure_status_codes
        return status >= 500


@dataclass(frozen=True, slots=True)
class Target:
    """One provider with all that a call to it needs, and the request for it.

    path             where it stands in the config; `config` if only headers name it
    identity         distinguishes it from other targets, even if *path* changes
    base_url         replaces the provider's own
    headers          sent upstream, over those that the provider sets
    options          provider-specific settings: accounts, regions, credentials
    request_timeout  seconds until the first event of the answer
    strict           keeps provider-specific values, such as finish reasons, out of
                     answers
    via              overrides the choice of the completion mode
    model_info       overrides what is known about the model
    strict_params    refuses what would be dropped
    trusted_hosts    hosts that *base_url* and the options may name although internal
    stored_host      *base_url* was stored by the operator, and is not shown to callers
    virtual_key      the id of the virtual key with its credentials
    limits           those of the virtual key
    alias            describes which model replaces which; *aliased_model* is the latter
    notices          warnings for the caller
    cache            None: no answer is taken from the cache
    default_max_tokens  for requests without max_tokens; None leaves the length to the
                     provider, where the caller has no limits
    context          trace headers for the call, which are no part of the request
    """

    provider: str
    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    request_timeout: float | None = None
    strict: bool = True
    via: CompletionMode | None = None
    bridge: Bridge = Bridge()
    model_info: Mapping[str, Any] = field(default_factory=dict)
    strict_params: bool = False
    trusted_hosts: tuple[str, ...] = ()
    stored_host: bool = False
    virtual_key: str | None = None
    limits: Limits = Limits()
    alias: str = ""
    aliased_model: str = ""
    notices: tuple[str, ...] = ()
    request: CompletionRequest | None = field(default=None, repr=False)
    retry: RetryPolicy = RetryPolicy()
    breaker: BreakerPolicy | None = None
    cache: CachePolicy | None = None
    default_max_tokens: int | None = None
    name: str | None = None
    weight: float = 1
    identity: str = field(default="", repr=False)
    path: str = "config"
    context: Mapping[str, str] | None = None

    def has(self, options: Iterable[str]) -> bool:
        """Whether all these options are set."""
        return all(map(self.options.get, options))


@dataclass(frozen=True, slots=True)
class Group:
    """Several nodes, of which *mode* chooses.

    A group of mode single or conditional has one child left, chosen for this request.
    *on_status_codes* are those at which a fallback goes on to its next child; None
    stands for every failure. *sticky* is the value that keeps a caller on one child of
    a loadbalance.
    """

    mode: Strategy
    children: tuple["Node", ...]
    on_status_codes: tuple[int, ...] | None = None
    sticky: str | None = None
    name: str | None = None
    weight: float = 1
    identity: str = field(default="", repr=False)
    path: str = "config"


Node = Target | Group


@dataclass(frozen=True, slots=True)
class Route:
    """The tree for one request, and the seconds in which it has to give an answer.

    *limits* and *permissions* are those of the caller's gateway key. *streams* says
    whether any target is asked for a stream.
    """

    root: Node
    deadline: float | None = None
    cache_scope: CacheScope = CacheScope()
    limits: Limits = Limits()
    permissions: Permissions = Permissions()
    streams: bool = False


def targets(node: Node) -> Iterator[Target]:
    """The leaves of *node*, in order."""
    if isinstance(node, Target):
        yield node
    else:
        for child in node.children:
            yield from targets(child)


def available_children(
    group: Group, available: Callable[[Target], bool]
) -> Sequence[Node]:
    """The children that have an available target; all of them, if none has."""
    children = [c for c in group.children if any(map(available, targets(c)))]
    return children or group.children


def should_fall_back(
    error: GatewayError, on_status_codes: Sequence[int] | None
) -> bool:
    """Whether a fallback tries its next child after *error*.

    A list of statuses applies to statuses that an upstream answered, and to timeouts.
    After every other failure (unsupported, refused, malformed) it goes on in any case.
    """
    in_band = isinstance(error, UpstreamInBand)
    has_status = isinstance(error, (UpstreamStatus, UpstreamTimeout)) and not in_band
    return on_status_codes is None or not has_status or error.status in on_status_codes
