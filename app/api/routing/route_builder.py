"""From what the headers want to a tree of targets, with inheritance resolved once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from ...core import conditions
from ...core.cache_key import fingerprint
from ...core.caching import CacheScope
from ...core.forwarding import is_credential_header
from ...core.limits import Limits
from ...core.parameter_aliases import unify_budget
from ...core.permissions import Alias, Permissions, VirtualKey
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
from ...providers.request_parts import merge_headers
from ..config import parsing
from ..config.nodes import (
    ConfigNode,
    Inherited,
    ParamOverrides,
    seconds,
    virtual_key_in,
)
from ..config.schema import Config
from ..request.params import Params, completion_request
from . import patterns
from .authentication import Caller
from .default_route import split, today
from .routing_headers import RoutingHeaders

Authorize = Callable[[Target, Permissions], None]


def route(
    wanted: RoutingHeaders,
    body: Params,
    pathname: str,
    default_max_tokens: int | None,
    authorize: Authorize = authorize,
) -> Route:
    """The way of a request with *body*. Raises InvalidRoute, InvalidRequest, Forbidden.

    Every target of it is one that *authorize* lets pass.
    """
    permissions = wanted.permissions

    def check(target: Target) -> None:
        authorize(target, permissions)

    root = RouteBuilder(wanted, body, pathname, default_max_tokens, check).node(
        wanted.level
    )
    deadline, key = seconds(wanted.config.get("deadline_ms")), wanted.caller.key
    limits = key.limits if key else _NO_LIMITS
    return Route(root, deadline, _asker(wanted, root), limits, permissions)


_NO_LIMITS = Limits()

# The max_tokens of a request that names none, for those who are limited in tokens or
# money: what is not known cannot be reserved. Source: the endpoint's default.
_SHORTEST = 16


def _asker(wanted: RoutingHeaders, root: Node) -> CacheScope:
    """Who asks. A config that was sent has a name only where it shares answers.

    Without a gateway key nothing says who callers are but their credentials, so no
    config is shared among them.
    """
    caller = wanted.caller.key.name if wanted.caller.key else ""
    parsing = (wanted.stored_id or "") if caller else ""
    if caller and not parsing and any(target.cache for target in targets(root)):
        parsing = fingerprint([caller, wanted.config])
    refreshes = "x-portkey-cache-force-refresh" in wanted.headers
    namespace = wanted.headers.get("x-portkey-cache-namespace", "")
    return CacheScope(caller, parsing, namespace, refreshes)


# Characters of what keeps a caller on a target as they are; more are hashed before.
_LONGEST_STICKY = 1000


class RouteBuilder:
    """Makes the nodes for one request."""

    def __init__(
        self,
        wanted: RoutingHeaders,
        body: Params,
        pathname: str,
        default_max_tokens: int | None,
        check: Callable[[Target], None],
    ) -> None:
        self._wanted, self._check = wanted, check
        self._key_in_model, model = split(body.get("model"))
        asked = body | {"model": model} if self._key_in_model else body
        self._body = dict(unify_budget(asked))
        self._default_max_tokens = default_max_tokens
        self._params, self._pathname = body, pathname
        self._searches = patterns.Searches()
        self._requests: dict[bytes, CompletionRequest] = {}

    @cached_property
    def _context(self) -> Mapping[str, Any]:
        """What conditions ask about."""
        return {
            "metadata": self._wanted.metadata,
            "params": self._params,
            "url": {"pathname": self._pathname},
        }

    def node(self, level: ConfigNode) -> Node:
        if level.own.get("strategy"):
            return self._group(level)
        return self._target(level)

    def _group(self, level: ConfigNode) -> Group:
        strategy = level.own["strategy"]
        mode = Strategy(strategy["mode"])
        codes = strategy.get("on_status_codes")
        return Group(
            mode,
            tuple(map(self.node, self._ways(level, mode))),
            on_status_codes=None if codes is None else tuple(codes),
            sticky=self._sticky(strategy.get("sticky")),
            name=level.own.get("name"),
            weight=level.own.get("weight", 1),
            identity=level.identity(),
            path=level.path,
        )

    def _ways(self, level: ConfigNode, mode: Strategy) -> Sequence[ConfigNode]:
        """The children that are ways for this request."""
        if mode == Strategy.CONDITIONAL:
            return [level.below[self._chosen(level.own)]]
        return level.below[:1] if mode == Strategy.SINGLE else level.below

    def _chosen(self, level: Config) -> int:
        """The target whose condition holds first, else the default."""
        strategy = level["strategy"]
        names = [target.get("name") for target in level["targets"]]
        held = (
            condition["then"]
            for condition in strategy["conditions"]
            if conditions.matches(condition["query"], self._context, self._searches)
        )
        return names.index(next(held, strategy["default"]))

    def _sticky(self, path: str | None) -> str | None:
        """What *path* leads to in the request, as text; None if to nothing."""
        value = None if path is None else conditions.value_at(path, self._context)
        if not isinstance(value, (str, int, float)):
            return None
        text = str(value)
        # It is hashed once for each target, and may be a prompt.
        return text if len(text) <= _LONGEST_STICKY else fingerprint(text)

    def _target(self, level: ConfigNode) -> Target:
        own, inherited = level.own, level.inherited
        place = self._place(level)
        said = self._settings(own, place)
        base_url = self._host(place, inherited) or self._address(said, place)
        known = place.key.id if place.key else None
        headers = self._headers(said, inherited, place)
        # An answer to credentials in a header is that of an account which this gateway
        # knows nothing of: nobody else may be given it.
        cache = None if any(map(is_credential_header, headers)) else inherited.cache
        target = Target(
            provider=place.provider,
            api_key=self._key(own, place),
            base_url=base_url.rstrip("/") if base_url else None,
            headers=headers,
            options={setting.name: value for setting, value in said},
            request_timeout=self._wanted.request_timeout or inherited.request_timeout,
            strict=inherited.strict,
            via=CompletionMode(own["via"]) if own.get("via") else None,
            bridge=inherited.bridge,
            model_info=self._model_info(own, place),
            strict_params=inherited.strict_params,
            trusted_hosts=self._trusted(place),
            virtual_key=known,
            limits=place.key.limits if place.key else _NO_LIMITS,
            alias=place.alias,
            aliased_model=place.aliased_model,
            notices=place.notices,
            request=place.request,
            retry=inherited.retry,
            breaker=inherited.breaker,
            cache=cache,
            default_max_tokens=_SHORTEST if self._is_limited(place) else None,
            name=own.get("name"),
            weight=own.get("weight", 1),
            identity=level.identity(place.provider, base_url, known),
            path=level.path,
        )
        self._check(target)
        return target

    # Where a target is

    def _place(self, level: ConfigNode) -> "_Place":
        """The provider, or virtual key, of a level; or of an alias of its model."""
        key = self._virtual_key(level.own)
        provider = key.provider if key else level.own.get("provider")
        provider = provider or self._wanted.provider or ""
        changes, aliases = level.inherited.changes, level.inherited.aliases
        request = self._request(changes, key)
        fixed = "model" in changes.overrides
        alias, is_stored = (None, False) if fixed else self._alias(request, aliases)
        if alias and not alias.is_due(today()) and (provider or key):
            notice = f"{request.model} will be shut down on {alias.shutdown_date}"
            place = _Place(provider, key, request, notices=(notice,))
        elif alias:
            if alias.virtual_key:
                key = self._caller.virtual_key(alias.virtual_key, trusted=is_stored)
                request = self._request(changes, key)
            place = _elsewhere(alias, provider, key, request)
        else:
            place = _Place(provider, key, request)
        if not place.provider:
            at = level.path.replace("config", "", 1).strip(".").replace(".", ",")
            raise parsing.invalid([(at, "Required: provider, or a strategy")])
        return place

    def _alias(
        self, request: CompletionRequest, near: Mapping[str, Any]
    ) -> tuple[Alias | None, bool]:
        """What answers in place of a model: the key's, the config's, anybody's alias.

        And whether the operator stored it. *near* are those of the config, which may be
        the caller's own: only one that is stored may lead to a virtual key that the
        caller may not use otherwise.
        """
        model, key = request.model, self._caller.key
        if model in near and not (key and model in key.aliases):
            return Alias(**near[model]), self._wanted.is_stored
        return self._caller.stored_alias(model), True

    @property
    def _caller(self) -> Caller:
        return self._wanted.caller

    def _virtual_key(self, level: Config) -> VirtualKey | None:
        """The virtual key of a level, else of the request if that level names nobody.

        One that the caller names must be meant for them.
        """
        named = level.get("virtual_key") or virtual_key_in(level.get("provider"))
        if named:
            return self._caller.virtual_key(named, trusted=self._wanted.is_stored)
        asked = self._wanted.virtual_key or self._key_in_model
        if not asked or level.get("provider"):
            return None
        return self._caller.virtual_key(asked)

    def _host(self, place: "_Place", inherited: Inherited) -> str | None:
        """Where it lies, if not at its provider's own address.

        What is sealed in a virtual key goes where the operator says, and nowhere else.
        """
        named = self._wanted.custom_host or inherited.custom_host
        if place.key is None:
            return named
        if self._wanted.custom_host or (named and not self._wanted.is_stored):
            raise Forbidden("A virtual key cannot be used with a custom host.")
        return named or place.key.custom_host

    def _key(self, level: Config, place: "_Place") -> str | None:
        """Its own key, else the request's, if that is not meant for somebody else."""
        if place.key:
            return place.key.settings.get("api_key")
        if place.provider != (level.get("provider") or place.provider):
            return None
        meant = self._wanted.provider in (None, place.provider)
        own = level.get("api_key")
        return own or (self._caller.provider_key if meant else None)

    def _settings(self, level: Config, place: "_Place") -> "_Said":
        """What the provider alone has to know, from the config or the request.

        A config that names its provider says all of it; the request's headers are about
        the provider that it names itself. A virtual key says it itself, and only a
        stored config may say more.
        """
        own = level if place.key is None or self._wanted.is_stored else {}
        sealed = place.key.settings if place.key else {}
        asked = place.key is None and not level.get("provider")
        return [
            (setting, value)
            for setting, headers in _settings(place.provider)
            if (
                value := (asked and self._in_header(headers))
                or own.get(setting.name)
                or own.get(setting.alias or setting.name)
                or sealed.get(setting.name)
                or setting.default
            )
        ]

    def _model_info(self, level: Config, place: "_Place") -> Config:
        """What a level says of its model.

        Where a virtual key pays, only a stored config may say how a budget of tokens is
        spelled: by another name it would not be kept.
        """
        info: Config = level.get("model_info") or {}
        if place.key and not self._wanted.is_stored:
            if "max_tokens" in info or "max_tokens" in (info.get("lacks") or ()):
                raise Forbidden(
                    "A virtual key cannot be used with a model_info that says how, or "
                    "whether, its model takes max_tokens."
                )
        return info

    def _is_limited(self, place: "_Place") -> bool:
        """Whether whoever pays for it is limited in tokens or in money."""
        keys = (self._caller.key, place.key)
        return any(key and key.limits.limits_use for key in keys)

    def _address(self, said: "_Said", place: "_Place") -> str | None:
        """The address that a setting holds; guarded as a custom host is."""
        given = next(((s, value) for s, value in said if s.url), None)
        if given is None:
            return None
        setting, value = given
        try:
            return setting.check_url(value, self._trusted(place))
        except ValueError as e:
            raise InvalidRoute(
                f"Invalid {setting.name}: {e}.",
                legacy=f"Invalid {setting.name} passed",
            ) from e

    def _trusted(self, place: "_Place") -> tuple[str, ...]:
        """The hosts that may be internal: fewer, where the operator has stored it."""
        trusted = self._caller.trusted
        is_stored = place.key is not None or self._wanted.is_stored
        named_by_caller = self._wanted.custom_host is not None
        return trusted.stored if is_stored and not named_by_caller else trusted.sent

    def _in_header(self, names: Iterable[str]) -> str | None:
        found = map(self._wanted.headers.get, names)
        return next((value for value in found if value), None)

    def _headers(
        self, said: "_Said", inherited: Inherited, place: "_Place"
    ) -> dict[str, str]:
        """Those of the provider's settings, and those of the caller's that travel on.

        A header of the caller's replaces that of a setting, however they are spelled;
        but beside a virtual key, settings and credentials are the operator's alone.
        """
        own = {s.sends: str(value) for s, value in said if s.sends}
        forward = self._wanted.forward
        listed = inherited.forward_headers if forward is None else forward
        if not listed:
            return own
        reserved = _RESERVED if place.key else None
        return merge_headers(own, self._wanted.forwarded(listed, reserved))

    def _request(
        self, changes: ParamOverrides, key: VirtualKey | None
    ) -> CompletionRequest:
        """What a target is asked; the same for all whose levels change it alike."""
        if key:
            changes = changes.under(_defaults(key))
        if changes.text not in self._requests:
            params = changes.of(self._body)
            self._requests[changes.text] = self._checked(params)
        return self._requests[changes.text]

    def _checked(self, params: Params) -> CompletionRequest:
        """The request in *params*; the body's own prompt is checked only once.

        It may be an array of a million, which every target would look through.
        """
        first = next(iter(self._requests.values()), None)
        if first is None or params.get("prompt") is not first.prompt:
            return completion_request(params, self._default_max_tokens)
        without = completion_request({**params, "prompt": ""}, self._default_max_tokens)
        return replace(without, prompt=first.prompt)


# What is said to a provider alone.
_Said = Sequence[tuple[Setting, Any]]


@lru_cache
def _settings(provider: str) -> Sequence[tuple[Setting, tuple[str, ...]]]:
    """What *provider* alone has to know, and the headers that may say it."""
    known = PROVIDERS.get(provider)
    return [(s, s.headers) for s in known.settings] if known else []


def _headers_of_settings() -> frozenset[str]:
    """The headers, in lower case, that a setting or a key of any provider is sent in.

    Of any, since a server of one provider's shape may read another's headers.
    """
    names = {s.sends for provider in PROVIDERS.values() for s in provider.settings}
    for provider in PROVIDERS.values():
        names.update(provider.auth(Target(provider.name, api_key="key")))
    return frozenset(name.lower() for name in names if name)


_RESERVED = _headers_of_settings()


@dataclass(frozen=True, slots=True)
class _Place:
    """Whom a target asks for what. *alias* says which model stands for which."""

    provider: str
    key: VirtualKey | None
    request: CompletionRequest
    alias: str = ""
    aliased_model: str = ""
    notices: tuple[str, ...] = ()


def _elsewhere(
    alias: Alias, provider: str, key: VirtualKey | None, request: CompletionRequest
) -> _Place:
    """Where *alias* leads from a *provider* or from its own virtual *key*.

    A key of the caller's own is only for its provider.
    """
    if not alias.virtual_key and alias.provider and alias.provider != provider:
        key = None
    provider = key.provider if key else alias.provider or provider
    notice = f"{request.model} -> {alias.model}"
    asked = replace(request, model=alias.model)
    return _Place(provider, key, asked, notice, request.model)


def _defaults(key: VirtualKey) -> Mapping[str, Any]:
    """What a virtual key fills up a request with."""
    params = unify_budget(key.params)
    return params if key.model is None else {"model": key.model, **params}
