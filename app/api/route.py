"""From what the headers want to a tree of targets, with inheritance resolved once."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from ..core import conditions
from ..core.access import Alias, VirtualKey
from ..core.cachekey import fingerprint
from ..core.caching import Asker, CachePolicy
from ..core.hosts import custom_host
from ..core.limits import Limits
from ..core.request import CompletionRequest
from ..core.retry import RETRY_STATUS_CODES, RetryPolicy
from ..core.routing import (
    BreakerPolicy,
    Bridge,
    Group,
    Mode,
    Node,
    Route,
    Target,
    Way,
    targets,
)
from ..errors import Forbidden, InvalidRoute
from ..providers import PROVIDERS
from ..providers.spec import Setting
from . import config, patterns
from .access import Caller, no_key
from .config_schema import Config
from .headers import Wanted
from .params import Params, completion_request
from .resolution import split


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a target has from the levels above it, unless it says otherwise."""

    override_params: Mapping[str, Any]
    default_params: Mapping[str, Any]
    drop_params: tuple[str, ...] = ()
    retry: RetryPolicy = RetryPolicy()
    breaker: BreakerPolicy | None = None
    cache: CachePolicy | None = None
    request_timeout: float | None = None
    custom_host: str | None = None
    forward_headers: tuple[str, ...] = ()
    strict: bool = True
    strict_params: bool = False
    bridge: Bridge = Bridge()
    aliases: Mapping[str, Any] = field(default_factory=dict)

    def at(self, level: Config) -> "Inherited":
        """The same, as *level* has it for itself and for what is below it."""
        return replace(
            self,
            override_params={**self.override_params, **_get(level, "override_params")},
            default_params={**self.default_params, **_get(level, "default_params")},
            drop_params=(*self.drop_params, *(level.get("drop_params") or ())),
            retry=_retry(level["retry"]) if level.get("retry") else self.retry,
            breaker=_breaker(level) or self.breaker,
            cache=CachePolicy.of(level["cache"]) if level.get("cache") else self.cache,
            request_timeout=_seconds(level.get("request_timeout"))
            or self.request_timeout,
            custom_host=level.get("custom_host") or self.custom_host,
            forward_headers=tuple(level.get("forward_headers") or self.forward_headers),
            strict=level.get("strict_open_ai_compliance", self.strict),
            strict_params=level.get("strict_params", self.strict_params),
            bridge=Bridge(**level["bridge"]) if level.get("bridge") else self.bridge,
            aliases={**self.aliases, **_get(level, "model_aliases")},
        )


def route(
    wanted: Wanted, body: Params, pathname: str, default_max_tokens: int | None
) -> Route:
    """The way of a request with *body*. Raises InvalidRoute or InvalidRequest."""
    tree = _Tree(wanted, body, pathname, default_max_tokens)
    strict = wanted.headers.get("x-portkey-strict-open-ai-compliance") != "false"
    root = tree.node(wanted.config, Inherited({}, {}, strict=strict), "config")
    deadline, key = _seconds(wanted.config.get("deadline_ms")), wanted.caller.key
    return Route(root, deadline, _asker(wanted, root), key.limits if key else Limits())


def _asker(wanted: Wanted, root: Node) -> Asker:
    """Who asks. A config that was sent has a name only where it shares answers."""
    caller = wanted.caller.key.name if wanted.caller.key else ""
    config = wanted.stored_id or ""
    if not config and any(target.cache for target in targets(root)):
        config = fingerprint([caller, wanted.config])
    refreshes = "x-portkey-cache-force-refresh" in wanted.headers
    namespace = wanted.headers.get("x-portkey-cache-namespace", "")
    return Asker(caller, config, namespace, refreshes)


class _Tree:
    """Makes the nodes for one request."""

    def __init__(
        self,
        wanted: Wanted,
        body: Params,
        pathname: str,
        default_max_tokens: int | None,
    ) -> None:
        self._wanted = wanted
        self._key_in_model, model = split(body.get("model"))
        self._body = body | {"model": model} if self._key_in_model else body
        self._default_max_tokens = default_max_tokens
        self._requests: dict[bytes, CompletionRequest] = {}
        self._context = {
            "metadata": wanted.metadata,
            "params": body,
            "url": {"pathname": pathname},
        }

    def node(self, level: Config, above: Inherited, path: str) -> Node:
        inherited = above.at(level)
        if level.get("strategy"):
            return self._group(level, inherited, path)
        return self._target(level, inherited, path)

    def _group(self, level: Config, inherited: Inherited, path: str) -> Group:
        strategy = level["strategy"]
        mode = Mode(strategy["mode"])
        codes = strategy.get("on_status_codes")
        ways = list(self._ways(level, mode))
        return Group(
            mode,
            tuple(
                self.node(level["targets"][i], inherited, f"{path}.targets[{i}]")
                for i in ways
            ),
            on_status_codes=None if codes is None else tuple(codes),
            sticky=self._sticky(strategy.get("sticky")),
            name=level.get("name"),
            weight=level.get("weight", 1),
            identity=_identity(level),
            path=path,
        )

    def _ways(self, level: Config, mode: Mode) -> Iterator[int]:
        """The children that are ways for this request."""
        if mode == Mode.CONDITIONAL:
            yield self._chosen(level)
        elif mode == Mode.SINGLE:
            yield 0
        else:
            yield from range(len(level["targets"]))

    def _chosen(self, level: Config) -> int:
        """The target whose condition holds first, else the default."""
        strategy = level["strategy"]
        names = [target.get("name") for target in level["targets"]]
        held = (
            condition["then"]
            for condition in strategy["conditions"]
            if conditions.matches(condition["query"], self._context, patterns.search)
        )
        return names.index(next(held, strategy["default"]))

    def _sticky(self, path: str | None) -> str | None:
        """What *path* leads to in the request, as text; None if to nothing."""
        value = None if path is None else conditions.value_at(path, self._context)
        return str(value) if isinstance(value, (str, int, float)) else None

    def _target(self, level: Config, inherited: Inherited, path: str) -> Target:
        place = self._place(level, inherited, path)
        said = self._settings(level, place)
        options = {setting.name: said[setting] for setting in said}
        base_url = self._host(place, inherited) or self._address(said)
        target = Target(
            provider=place.provider,
            api_key=self._key(level, place),
            base_url=base_url.rstrip("/") if base_url else None,
            headers=self._headers(said, inherited),
            options=options,
            request_timeout=self._wanted.request_timeout or inherited.request_timeout,
            strict=inherited.strict,
            via=Way(level["via"]) if level.get("via") else None,
            bridge=inherited.bridge,
            model_info=level.get("model_info") or {},
            strict_params=inherited.strict_params,
            virtual_key=place.key.id if place.key else None,
            limits=place.key.limits if place.key else Limits(),
            alias=place.alias,
            notices=place.notices,
            request=place.request,
            retry=inherited.retry,
            breaker=inherited.breaker,
            cache=inherited.cache,
            name=level.get("name"),
            weight=level.get("weight", 1),
            path=path,
        )
        known = place.key.id if place.key else None
        return replace(
            target, identity=_identity(level, place.provider, base_url, known)
        )

    # Where a target is

    def _place(self, level: Config, inherited: Inherited, path: str) -> "_Place":
        """The provider, or virtual key, of a level; or of an alias of its model."""
        key = self._virtual_key(level)
        provider = key.provider if key else level.get("provider")
        provider = provider or self._wanted.provider or ""
        request = self._request(inherited, key)
        model = request.model
        fixed = "model" in inherited.override_params
        alias = None if fixed else self._caller.alias(model, inherited.aliases)
        if alias and not alias.is_due(_today()) and (provider or key):
            notice = f"{model} will be shut down on {alias.shutdown_date}"
            place = _Place(provider, key, request, notices=(notice,))
        elif alias:
            place = self._elsewhere(alias, provider, key, request)
        else:
            place = _Place(provider, key, request)
        return self._allowed(place, model if alias else request.model, path)

    def _elsewhere(
        self,
        alias: Alias,
        provider: str,
        key: VirtualKey | None,
        request: CompletionRequest,
    ) -> "_Place":
        """Where an alias leads. A key of the caller's own is only for its provider."""
        if alias.virtual_key:
            key = self._caller.virtual_key(alias.virtual_key, trusted=True)
        elif alias.provider and alias.provider != provider:
            key = None
        provider = key.provider if key else alias.provider or provider
        told = f"{request.model} -> {alias.model}"
        return _Place(provider, key, replace(request, model=alias.model), told)

    def _allowed(self, place: "_Place", model: str, path: str) -> "_Place":
        if not place.provider:
            at = path.replace("config", "", 1).strip(".").replace(".", ",")
            raise config.invalid([(at, "Required: provider, or a strategy")])
        self._caller.check(place.provider, model)
        known = PROVIDERS.get(place.provider)
        if known and known.hosted and not self._caller.is_known:
            raise no_key()
        return place

    @property
    def _caller(self) -> Caller:
        return self._wanted.caller

    def _virtual_key(self, level: Config) -> VirtualKey | None:
        """The virtual key of a level, else of the request if that level names nobody.

        One that the caller names must be meant for them.
        """
        named = level.get("virtual_key") or _at_sign(level.get("provider"))
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

    def _settings(self, level: Config, place: "_Place") -> dict[Setting, Any]:
        """What the provider alone has to know, from the config or the request.

        A config that names its provider says all of it; the request's headers are about
        the provider that it names itself. A virtual key says it itself, and only a
        stored config may say more.
        """
        provider = PROVIDERS.get(place.provider)
        settings = provider.settings if provider else ()
        said = {s: level.get(s.name) or level.get(s.alias or s.name) for s in settings}
        if place.key:
            sealed = place.key.settings
            kept = said if self._wanted.is_stored else dict[Setting, Any]()
            said = {s: kept.get(s) or sealed.get(s.name) for s in settings}
        elif not level.get("provider"):
            said |= {s: self._in_header(s) or said[s] for s in settings}
        given = {s: value or s.default for s, value in said.items()}
        return {s: value for s, value in given.items() if value}

    def _address(self, said: Mapping[Setting, Any]) -> str | None:
        """The address that a setting holds; guarded as a custom host is."""
        given = next(((s.name, str(said[s])) for s in said if s.url), None)
        if given is None:
            return None
        name, address = given
        try:
            return custom_host(address, self._wanted.trusted)
        except ValueError as e:
            raise InvalidRoute(
                f"Invalid {name}: {e}.", legacy=f"Invalid {name} passed"
            ) from e

    def _in_header(self, setting: Setting) -> str | None:
        found = map(self._wanted.headers.get, setting.headers)
        return next((value for value in found if value), None)

    def _headers(
        self, said: Mapping[Setting, Any], inherited: Inherited
    ) -> dict[str, str]:
        """Those of the provider, and the forwarded."""
        own = {s.sends: str(said[s]) for s in said if s.sends}
        forward = self._wanted.forward
        listed = inherited.forward_headers if forward is None else forward
        return own | self._wanted.forwarded(listed)

    def _request(
        self, inherited: Inherited, key: VirtualKey | None
    ) -> CompletionRequest:
        """What a target is asked; the same for all that share these settings."""
        defaults = {**_defaults(key), **inherited.default_params}
        settings = (defaults, inherited.drop_params, inherited.override_params)
        told = orjson.dumps(settings)
        if told not in self._requests:
            params = _merged(self._body, *settings)
            request = completion_request(params, self._default_max_tokens)
            self._requests[told] = request
        return self._requests[told]


@dataclass(frozen=True, slots=True)
class _Place:
    """Whom a target asks for what. *alias* says which model stands for which."""

    provider: str
    key: VirtualKey | None
    request: CompletionRequest
    alias: str = ""
    notices: tuple[str, ...] = ()


def _defaults(key: VirtualKey | None) -> Mapping[str, Any]:
    """What a virtual key fills up a request with."""
    if key is None:
        return {}
    return key.params if key.model is None else {"model": key.model, **key.params}


def _at_sign(provider: str | None) -> str | None:
    """The virtual key that is written as a provider: `@id`."""
    return provider[1:] if provider and provider.startswith("@") else None


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def _merged(
    body: Params,
    default_params: Mapping[str, Any],
    drop_params: tuple[str, ...],
    override_params: Mapping[str, Any],
) -> Params:
    """The body as a config changes it: filled up, thinned out, and overruled."""
    given = {key: value for key, value in body.items() if value is not None}
    prompt = {"prompt": body["prompt"]} if "prompt" in body else {}
    full = {**default_params, **prompt, **given} if default_params else body
    kept = {key: value for key, value in full.items() if key not in drop_params}
    return {**kept, **override_params}


def _get(level: Config, key: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = level.get(key) or {}
    return found


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _retry(given: Config) -> RetryPolicy:
    codes = given.get("on_status_codes")
    obeys = ("use_retry_after_header", "use_retry_after_headers")
    return RetryPolicy(
        attempts=int(given["attempts"]),
        on_status_codes=RETRY_STATUS_CODES if codes is None else tuple(codes),
        use_retry_after=any(given.get(key) for key in obeys),
    )


def _breaker(level: Config) -> BreakerPolicy | None:
    given = (level.get("strategy") or {}).get("cb_config")
    if not given:
        return None
    codes = given.get("failure_status_codes")
    return BreakerPolicy(
        failure_threshold=given.get("failure_threshold"),
        failure_threshold_percentage=given.get("failure_threshold_percentage"),
        minimum_requests=int(given.get("minimum_requests", 1)),
        cooldown=given.get("cooldown_interval", 30_000) / 1000,
        failure_status_codes=None if codes is None else tuple(codes),
    )


def _identity(level: Config, *more: str | None) -> str:
    """What tells a node from others, wherever in a config it stands."""
    told = {k: v for k, v in level.items() if k not in ("weight", "retry", "cache")}
    text = orjson.dumps([told, more], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=16).hexdigest()
