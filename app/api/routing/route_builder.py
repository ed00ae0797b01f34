"""Builds the route of a request: a tree of targets with all inheritance resolved.

What a target is comes from several sources: the levels of the config, the headers, the
body, virtual keys, aliases. The functions below decide one question each, which source
is used: for credentials, base URL, settings and headers. The recurring rule: what the
operator has stored in a virtual key is combined only with what the operator says.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from ...core import conditions
from ...core.cache_key import fingerprint
from ...core.caching import CacheScope
from ...core.forwarding import is_credential_header
from ...core.limits import Limits
from ...core.parameter_aliases import unify_budget
from ...core.permissions import Alias, Permissions, VirtualKey, split_model
from ...core.request import CompletionRequest
from ...core.routing import (
    CompletionMode,
    Group,
    Node,
    Route,
    Strategy,
    Target,
    targets,
)
from ...errors import Forbidden, InvalidRoute
from ...gateway.authorization import authorize
from ...providers import PROVIDERS
from ...providers.declaration import Setting
from ...providers.upstream_request import merge_headers
from ..config import parsing
from ..config.nodes import (
    ConfigNode,
    Inherited,
    ParamOverrides,
)
from ..config.schema import Config
from ..request.schemas import Params, completion_request
from . import patterns
from .default_route import today
from .routing_headers import RoutingHeaders

Authorize = Callable[[Target, Permissions], None]

# The settings of one provider, each with its value for a target.
SettingValues = Sequence[tuple[Setting, Any]]

_NO_LIMITS = Limits()

# The max_tokens of a request without one, or with -1, where tokens or money are limited
# and there is no default: an unknown number cannot be reserved. Source: the default of
# the endpoint.
_LIMITED_MAX_TOKENS = 16

# Characters of a sticky value that are kept as they are. It is hashed once for each
# target and may be a prompt, so a longer one is replaced by its fingerprint.
_MAX_STICKY_LENGTH = 1000


def build_route(
    routing: RoutingHeaders,
    body: Params,
    pathname: str,
    default_max_tokens: int | None,
    authorize: Authorize = authorize,
) -> Route:
    """The route of a request with *body*, every target of it passed by *authorize*.

    Raises InvalidRoute, InvalidRequest, or what *authorize* raises.
    """
    config = routing.config_node
    permissions = routing.caller.permissions(config if routing.is_stored else None)

    def check(target: Target) -> None:
        authorize(target, permissions)

    builder = RouteBuilder(routing, body, pathname, default_max_tokens, check)
    root = builder.node(config)
    key = routing.caller.key
    return Route(
        root,
        config.deadline,
        cache_scope(routing, root),
        key.limits if key else _NO_LIMITS,
        permissions,
        streams=builder.streams,
    )


def cache_scope(routing: RoutingHeaders, root: Node) -> CacheScope:
    """Who shares cached answers with this request.

    A config is part of it only beside a gateway key: without one, nothing but their
    credentials distinguishes callers, so that no config is shared among them. A config
    from a header is identified by its fingerprint, computed only if it caches answers.
    """
    caller = config = ""
    if routing.caller.key:
        caller, config = routing.caller.key.name, routing.stored_id or ""
        if not config and any(target.cache for target in targets(root)):
            config = fingerprint([caller, routing.config_node.own])
    refreshes = "x-portkey-cache-force-refresh" in routing.headers
    namespace = routing.headers.get("x-portkey-cache-namespace", "")
    return CacheScope(caller, config, namespace, refreshes)


@dataclass(frozen=True, slots=True)
class Destination:
    """Which provider a target calls, with which virtual key and request.

    *alias* describes the alias that was applied, *aliased_model* is the model that it
    replaced, *notices* are warnings for the caller.
    """

    provider: str
    virtual_key: VirtualKey | None
    request: CompletionRequest
    alias: str = ""
    aliased_model: str = ""
    notices: tuple[str, ...] = ()


class RouteBuilder:
    """Builds the nodes of one request."""

    def __init__(
        self,
        routing: RoutingHeaders,
        body: Params,
        pathname: str,
        default_max_tokens: int | None,
        check: Callable[[Target], None],
    ) -> None:
        self._routing, self._check = routing, check
        self._params = dict(unify_budget(body))
        self._default_max_tokens = default_max_tokens
        self._body, self._pathname = body, pathname
        self._requests: dict[bytes, CompletionRequest] = {}

    @property
    def streams(self) -> bool:
        """Whether any target's request is for a stream."""
        return any(request.stream for request in self._requests.values())

    @cached_property
    def _searches(self) -> patterns.Searches:
        """The searches of all conditions, which share a budget."""
        return patterns.Searches()

    @cached_property
    def _context(self) -> Mapping[str, Any]:
        """The values that conditions and sticky paths refer to."""
        return {
            "metadata": self._routing.metadata,
            "params": self._body,
            "url": {"pathname": self._pathname},
        }

    # One request of a route may have hundreds of targets, so nothing here does I/O, and
    # what the targets share (the body, its prompts) is not copied for each.

    def node(self, node: ConfigNode) -> Node:
        """The group or the target that *node* of the config describes."""
        strategy = node.own.get("strategy")
        if not strategy:
            return self._target(node)
        mode = Strategy(strategy["mode"])
        children: Sequence[ConfigNode] = node.below
        if mode == Strategy.CONDITIONAL:
            # The target whose condition holds first, else the default.
            names = [target.get("name") for target in node.own["targets"]]
            matching = (
                condition["then"]
                for condition in strategy["conditions"]
                if conditions.matches(condition["query"], self._context, self._searches)
            )
            name = next(matching, strategy["default"])
            children = [node.below[names.index(name)]]
        elif mode == Strategy.SINGLE:
            children = node.below[:1]
        codes = strategy.get("on_status_codes")
        return Group(
            mode,
            tuple(map(self.node, children)),
            # None stands for every status, an empty list for no status.
            on_status_codes=None if codes is None else tuple(codes),
            sticky=self._sticky_value(strategy.get("sticky")),
            name=node.own.get("name"),
            weight=node.own.get("weight", 1),
            identity=node.identity(),
            path=node.path,
        )

    def _sticky_value(self, path: str | None) -> str | None:
        """The value at *path* in the request, as text; None if there is none."""
        value = None if path is None else conditions.value_at(path, self._context)
        if not isinstance(value, (str, int, float)):
            return None
        text = str(value)
        return text if len(text) <= _MAX_STICKY_LENGTH else fingerprint(text)

    def _target(self, node: ConfigNode) -> Target:
        """The target that *node* describes. Raises what the check raises."""
        routing, own, inherited = self._routing, node.own, node.inherited
        destination = self._destination(node)
        provider, key = destination.provider, destination.virtual_key
        trusted = resolve_trusted_hosts(routing, key)
        settings = resolve_settings(routing, own, destination)
        base_url = resolve_base_url(routing, inherited, key, settings, trusted)
        headers = resolve_headers(routing, inherited, key, settings)
        # Credentials in a header belong to an account that the gateway does not know:
        # the answer to them must not be cached for anybody else.
        cache = None if any(map(is_credential_header, headers)) else inherited.cache
        is_limited = any(
            payer and payer.limits.limits_use for payer in (routing.caller.key, key)
        )
        target = Target(
            provider=provider,
            api_key=resolve_credentials(routing, own, destination),
            base_url=base_url.rstrip("/") if base_url else None,
            headers=headers,
            options={setting.name: value for setting, value in settings},
            request_timeout=routing.request_timeout or inherited.request_timeout,
            strict=inherited.strict,
            via=CompletionMode(own["via"]) if own.get("via") else None,
            bridge=inherited.bridge,
            model_info=resolve_model_info(routing, own, key),
            strict_params=inherited.strict_params,
            trusted_hosts=trusted,
            stored_host=is_stored_host(routing, key),
            virtual_key=key.id if key else None,
            # Those of the gateway key belong to the whole route.
            limits=key.limits if key else _NO_LIMITS,
            alias=destination.alias,
            aliased_model=destination.aliased_model,
            notices=destination.notices,
            request=destination.request,
            retry=inherited.retry,
            breaker=inherited.breaker,
            cache=cache,
            default_max_tokens=(
                self._default_max_tokens or _LIMITED_MAX_TOKENS if is_limited else None
            ),
            name=own.get("name"),
            weight=own.get("weight", 1),
            identity=node.identity(provider, base_url, key.id if key else None),
            path=node.path,
        )
        self._check(target)
        return target

    def _destination(self, node: ConfigNode) -> Destination:
        """Provider, virtual key and request of a target, its model's alias applied."""
        routing, caller = self._routing, self._routing.caller
        params, config_aliases = node.inherited.params, node.inherited.aliases
        key = resolve_virtual_key(routing, node)
        provider = key.provider if key else node.own.get("provider")
        provider = provider or routing.provider or ""
        request = self._request(params, key)
        if not provider:
            is_trusted = self._is_models_author_trusted(params)
            named = caller.key_in_model(request.model, trusted=is_trusted)
            if named:
                key = caller.virtual_key(named[0], trusted=is_trusted)
                provider = key.provider
                request = self._request(params.with_model(named[1]), key)
        alias, is_stored = None, routing.is_stored
        # A model that the config sets is never replaced. Otherwise the aliases of the
        # gateway key come first, then those of the config, then those for everybody.
        # Only an alias that the operator has stored may lead to a virtual key which the
        # caller could not use otherwise; one in a config may be the caller's own.
        if "model" not in params.overrides:
            own_aliases = caller.key.aliases if caller.key else {}
            if request.model in config_aliases and request.model not in own_aliases:
                alias = Alias(**config_aliases[request.model])
            else:
                alias, is_stored = caller.stored_alias(request.model), True
        if alias is None:
            destination = Destination(provider, key, request)
        elif (provider or key) and not alias.is_due(today()):
            notice = f"{request.model} will be shut down on {alias.shutdown_date}"
            destination = Destination(provider, key, request, notices=(notice,))
        else:
            if not provider and not alias.names_provider:
                named = caller.key_in_model(alias.model, trusted=is_stored)
                if named:
                    alias = replace(alias, virtual_key=named[0], model=named[1])
            if alias.virtual_key:
                key = caller.virtual_key(alias.virtual_key, trusted=is_stored)
                request = self._request(params, key)
            destination = apply_alias(alias, provider, key, request)
        if not destination.provider:
            # If the model seems to name a virtual key, that one is what is missing.
            if parts := split_model(destination.request.model):
                caller.virtual_key(parts[0])
            path = node.path.replace("config", "", 1).strip(".").replace(".", ",")
            raise parsing.invalid([(path, "Required: provider, or a strategy")])
        return destination

    def _is_models_author_trusted(self, params: ParamOverrides) -> bool:
        """Whether the model of a request is set by a stored config, not by its body."""
        is_set = "model" in params.overrides or self._params.get("model") is None
        return self._routing.is_stored and is_set

    def _request(
        self, overrides: ParamOverrides, key: VirtualKey | None
    ) -> CompletionRequest:
        """The request of a target, validated; targets with equal overrides share it."""
        if key:
            defaults = unify_budget(key.params)
            if key.model is not None:
                defaults = {"model": key.model, **defaults}
            overrides = overrides.with_defaults(defaults)
        if overrides.cache_key in self._requests:
            return self._requests[overrides.cache_key]
        params = self._params
        if not overrides.are_empty:
            params = overrides.apply(params)
        # A prompt may be an array of a million items. If it is the one of the body, it
        # has been validated for the first target, and is not validated for the others.
        first = next(iter(self._requests.values()), None)
        if first is None or params.get("prompt") is not first.prompt:
            request = completion_request(params, self._default_max_tokens)
        else:
            params = {**params, "prompt": ""}
            request = completion_request(params, self._default_max_tokens)
            request = replace(request, prompt=first.prompt)
        self._requests[overrides.cache_key] = request
        return request


def apply_alias(
    alias: Alias, provider: str, key: VirtualKey | None, request: CompletionRequest
) -> Destination:
    """The destination of *request* after *alias*.

    *key* is the alias's own virtual key if it names one. Otherwise it is the target's,
    and used only if the provider stays the same.
    """
    if not alias.virtual_key and alias.provider and alias.provider != provider:
        key = None
    return Destination(
        key.provider if key else alias.provider or provider,
        key,
        replace(request, model=alias.model),
        f"{request.model} -> {alias.model}",
        request.model,
    )


def resolve_virtual_key(routing: RoutingHeaders, node: ConfigNode) -> VirtualKey | None:
    """The virtual key of a target: its config's, else that of the headers.

    The latter only if the config names no provider. A key that the caller names must be
    allowed to them; one that a stored config names need not.
    """
    caller = routing.caller
    if node.virtual_key:
        return caller.virtual_key(node.virtual_key, trusted=routing.is_stored)
    if not routing.virtual_key or node.own.get("provider"):
        return None
    return caller.virtual_key(routing.virtual_key)


def resolve_credentials(
    routing: RoutingHeaders, config: Config, destination: Destination
) -> str | None:
    """The API key of a target: the virtual key's, the config's, or the caller's.

    A key is sent to no other provider than the one beside which it was written: an
    alias may have changed the provider, and the headers may name a different one.
    """
    key, provider = destination.virtual_key, destination.provider
    if key:
        return key.settings.get("api_key")
    if provider != (config.get("provider") or provider):
        return None
    is_callers = routing.provider in (None, provider)
    return config.get("api_key") or (
        routing.caller.provider_key if is_callers else None
    )


def resolve_trusted_hosts(
    routing: RoutingHeaders, key: VirtualKey | None
) -> tuple[str, ...]:
    """The hosts that may be internal: fewer for what the operator has stored."""
    trusted = routing.caller.trusted
    return trusted.stored if is_stored_host(routing, key) else trusted.sent


def is_stored_host(routing: RoutingHeaders, key: VirtualKey | None) -> bool:
    """Whether the operator has stored the custom host, if there is one."""
    return (key is not None or routing.is_stored) and not routing.custom_host


def resolve_base_url(
    routing: RoutingHeaders,
    inherited: Inherited,
    key: VirtualKey | None,
    settings: SettingValues,
    trusted: tuple[str, ...],
) -> str | None:
    """The custom host, else the URL in the provider's settings, else None.

    The credentials of a virtual key are sent to no host that the caller chooses.
    """
    host = routing.custom_host or inherited.custom_host
    if key is not None:
        # Whoever chooses the host would be sent the key.
        if routing.custom_host or (host and not routing.is_stored):
            raise Forbidden("A virtual key cannot be used with a custom host.")
        host = host or key.custom_host
    if host:
        return host
    for setting, value in settings:
        if setting.is_base_url:
            try:
                return setting.check_url(value, trusted)
            except ValueError as e:
                raise InvalidRoute(
                    f"Invalid {setting.name}: {e}.",
                    legacy=f"Invalid {setting.name} passed",
                ) from e
    return None


def resolve_settings(
    routing: RoutingHeaders, config: Config, destination: Destination
) -> SettingValues:
    """The provider's settings that have a value, from headers, config or virtual key.

    Headers count only where the headers also name the provider, and never beside a
    virtual key, which only a stored config may complete.
    """
    key = destination.virtual_key
    # Settings such as an account or a region say where a virtual key's secret is sent,
    # and whose bill it is: a config of the caller's must not choose them.
    own = config if key is None or routing.is_stored else {}
    sealed = key.settings if key else {}
    reads_headers = key is None and not config.get("provider")
    get, values = routing.headers.get, []
    for setting, headers in _settings_of(destination.provider):
        value = (
            (reads_headers and next(filter(None, map(get, headers)), None))
            or own.get(setting.name)
            or own.get(setting.alias or setting.name)
            or sealed.get(setting.name)
            or setting.default
        )
        if value:
            values.append((setting, value))
    return values


@lru_cache
def _settings_of(provider: str) -> Sequence[tuple[Setting, tuple[str, ...]]]:
    """The settings of *provider*, each with the headers that may hold it."""
    declaration = PROVIDERS.get(provider)
    if declaration is None:
        return []
    return [(s, tuple(map(str.lower, s.headers))) for s in declaration.settings]


def resolve_model_info(
    routing: RoutingHeaders, config: Config, key: VirtualKey | None
) -> Config:
    """The config's `model_info`.

    Where a virtual key pays, only a stored config may change how max_tokens is sent:
    under another name, the limit of tokens would have no effect.
    """
    info: Config = config.get("model_info") or {}
    if key and not routing.is_stored:
        if "max_tokens" in info or "max_tokens" in (info.get("lacks") or ()):
            raise Forbidden(
                "A virtual key cannot be used with a model_info that says how, or "
                "whether, its model takes max_tokens."
            )
    return info


def resolve_headers(
    routing: RoutingHeaders,
    inherited: Inherited,
    key: VirtualKey | None,
    settings: SettingValues,
) -> dict[str, str]:
    """The headers of the provider's settings, and those of the caller to be forwarded.

    A forwarded header replaces that of a setting, in whichever case they are written;
    but beside a virtual key, no header of settings or credentials is forwarded.
    """
    own = {s.upstream_header: str(value) for s, value in settings if s.upstream_header}
    names = inherited.forward_headers if routing.forward is None else routing.forward
    if not names:
        return own
    reserved = _RESERVED_HEADERS if key else None
    return merge_headers(own, routing.forwarded(names, reserved))


def _reserved_headers() -> Collection[str]:
    """The headers, in lower case, that hold a setting or the key of any provider.

    Of any, since a server with one provider's API may read another's headers.
    """
    names = {
        s.upstream_header for provider in PROVIDERS.values() for s in provider.settings
    }
    for provider in PROVIDERS.values():
        names.update(provider.auth(Target(provider.name, api_key="key")))
    return frozenset(name.lower() for name in names if name)


_RESERVED_HEADERS = _reserved_headers()
