"""Where a request goes: a tree of groups and targets, and the way through it.

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
    """How a group makes use of its children."""

    SINGLE = "single"
    FALLBACK = "fallback"
    LOADBALANCE = "loadbalance"
    CONDITIONAL = "conditional"


class CompletionMode(StrEnum):
    """How a provider comes to a completion."""

    NATIVE = "native"
    FIM = "fim"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class Bridge:
    """How a prompt becomes a chat. Without any of these it is the only message.

    *template* is the user's message, in which `{prompt}` stands for the prompt.
    """

    system: str | None = None
    template: str | None = None


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a target is left alone, and for how long.

    It opens after *failure_threshold* failures (or that share of calls in percent, from
    *minimum_requests* on), for *cooldown* seconds.
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
    """One provider, with all that is needed to call it, and what it is asked.

    *path* is its place in the config (`config` when the headers alone name it);
    *identity* tells it from others, and stays when its place changes. *base_url*
    replaces the provider's own. *headers* go upstream as they are, over those that the
    provider sets; *options* are what else this provider has to know: accounts, regions,
    credentials. *request_timeout* is in seconds, until the answer's first event.
    *strict* keeps a provider's own words, such as finish reasons, out of answers.
    *via* overrules which way a provider goes, *model_info* what is known of the model;
    *strict_params* refuses what would be dropped. *trusted_hosts* are those that
    *base_url*, and what else it has called, may lead to although they are internal.
    *virtual_key* is the id of the one
    that it has its credentials from, and *limits* are those of that; *alias* says which
    model answers for which, *aliased_model* is the latter alone, and *notices* is what
    the caller has to be told. Without *cache*, no answer is given twice.
    *default_max_tokens* is for requests that name no length; None leaves that to the
    provider, where nobody is limited in what they use. *context* are headers that say
    within which span it is called, beside all that is asked.
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
        """Whether all these options are given."""
        return all(map(self.options.get, options))


@dataclass(frozen=True, slots=True)
class Group:
    """Several ways, of which *mode* chooses.

    A group of mode single or conditional has one child left, which was chosen for the
    request at hand. *on_status_codes* are those at which a fallback moves on; None
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
    """A tree, and the seconds in which the whole of it has to give an answer.

    *limits* are those of the gateway key of who asks, *permissions* what they may
    reach.
    """

    root: Node
    deadline: float | None = None
    cache_scope: CacheScope = CacheScope()
    limits: Limits = Limits()
    permissions: Permissions = Permissions()


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
    ways = [c for c in group.children if any(map(available, targets(c)))]
    return ways or group.children


def should_fall_back(
    error: GatewayError, on_status_codes: Sequence[int] | None
) -> bool:
    """Whether a fallback tries its next child after *error*.

    A list of statuses speaks of statuses that an upstream answered, and of timeouts.
    Every other failure (unsupported, refused, broken) moves on in any case.
    """
    in_band = isinstance(error, UpstreamInBand)
    listed = isinstance(error, (UpstreamStatus, UpstreamTimeout)) and not in_band
    return on_status_codes is None or not listed or error.status in on_status_codes
