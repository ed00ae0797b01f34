"""From what the headers want to a tree of targets, with inheritance resolved once."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from ..core import conditions
from ..core.access import Alias, VirtualKey
from ..core.cachekey import fingerprint
from ..core.caching import Asker
from ..core.hosts import custom_host
from ..core.limits import Limits
from ..core.request import CompletionRequest
from ..core.routing import Group, Mode, Node, Route, Target, Way, targets
from ..errors import Forbidden, InvalidRoute
from ..providers import PROVIDERS
from ..providers.spec import Setting
from . import config, patterns
from .access import Caller, no_key
from .config_schema import Config
from .headers import Wanted
from .levels import Changes, Inherited, Level, seconds
from .params import Params, completion_request
from .resolution import split


def route(
    wanted: Wanted, body: Params, pathname: str, default_max_tokens: int | None
) -> Route:
    """The way of a request with *body*. Raises InvalidRoute or InvalidRequest."""
    root = _Tree(wanted, body, pathname, default_max_tokens).node(wanted.level)
    deadline, key = seconds(wanted.config.get("deadline_ms")), wanted.caller.key
    return Route(
        root, deadline, _asker(wanted, root), key.limits if key else _NO_LIMITS
    )


_NO_LIMITS = Limits()


def _asker(wanted: Wanted, root: Node) -> Asker:
    """Who asks. A config that was sent has a name only where it shares answers."""
    caller = wanted.caller.key.name if wanted.caller.key else ""
    config = wanted.stored_id or ""
    if not config and any(target.cache for target in targets(root)):
        config = fingerprint([caller, wanted.config])
    refreshes = "x-portkey-cache-force-refresh" in wanted.headers
    namespace = wanted.headers.get("x-portkey-cache-namespace", "")
    return Asker(caller, config, namespace, refreshes)


# Characters of what keeps a caller on a target as they are; more are hashed before.
_LONGEST_STICKY = 1000


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

    def node(self, level: Level) -> Node:
        if level.own.get("strategy"):
            return self._group(level)
        return self._target(level)

    def _group(self, level: Level) -> Group:
        strategy = level.own["strategy"]
        mode = Mode(strategy["mode"])
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

    def _ways(self, level: Level, mode: Mode) -> Sequence[Level]:
        """The children that are ways for this request."""
        if mode == Mode.CONDITIONAL:
            return [level.below[self._chosen(level.own)]]
        return level.below[:1] if mode == Mode.SINGLE else level.below

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

    def _target(self, level: Level) -> Target:
        own, inherited = level.own, level.inherited
        place = self._place(level)
        said = self._settings(own, place)
        base_url = self._host(place, inherited) or self._address(said)
        known = place.key.id if place.key else None
        return Target(
            provider=place.provider,
            api_key=self._key(own, place),
            base_url=base_url.rstrip("/") if base_url else None,
            headers=self._headers(said, inherited),
            options={setting.name: value for setting, value in said},
            request_timeout=self._wanted.request_timeout or inherited.request_timeout,
            strict=inherited.strict,
            via=Way(own["via"]) if own.get("via") else None,
            bridge=inherited.bridge,
            model_info=own.get("model_info") or {},
            strict_params=inherited.strict_params,
            virtual_key=known,
            limits=place.key.limits if place.key else _NO_LIMITS,
            alias=place.alias,
            notices=place.notices,
            request=place.request,
            retry=inherited.retry,
            breaker=inherited.breaker,
            cache=inherited.cache,
            name=own.get("name"),
            weight=own.get("weight", 1),
            identity=level.identity(place.provider, base_url, known),
            path=level.path,
        )

    # Where a target is

    def _place(self, level: Level) -> "_Place":
        """The provider, or virtual key, of a level; or of an alias of its model."""
        key = self._virtual_key(level.own)
        provider = key.provider if key else level.own.get("provider")
        provider = provider or self._wanted.provider or ""
        changes, aliases = level.inherited.changes, level.inherited.aliases
        request = self._request(changes, key)
        model = request.model
        fixed = "model" in changes.overrides
        alias = None if fixed else self._caller.alias(model, aliases)
        if alias and not alias.is_due(_today()) and (provider or key):
            notice = f"{model} will be shut down on {alias.shutdown_date}"
            place = _Place(provider, key, request, notices=(notice,))
        elif alias:
            place = self._elsewhere(alias, provider, key, request)
        else:
            place = _Place(provider, key, request)
        return self._allowed(place, model if alias else request.model, level.path)

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

    def _address(self, said: "_Said") -> str | None:
        """The address that a setting holds; guarded as a custom host is."""
        given = next(((s.name, str(value)) for s, value in said if s.url), None)
        if given is None:
            return None
        name, address = given
        try:
            return custom_host(address, self._wanted.trusted)
        except ValueError as e:
            raise InvalidRoute(
                f"Invalid {name}: {e}.", legacy=f"Invalid {name} passed"
            ) from e

    def _in_header(self, names: Iterable[str]) -> str | None:
        found = map(self._wanted.headers.get, names)
        return next((value for value in found if value), None)

    def _headers(self, said: "_Said", inherited: Inherited) -> dict[str, str]:
        """Those of the provider, and the forwarded."""
        own = {s.sends: str(value) for s, value in said if s.sends}
        forward = self._wanted.forward
        listed = inherited.forward_headers if forward is None else forward
        return own | self._wanted.forwarded(listed) if listed else own

    def _request(self, changes: Changes, key: VirtualKey | None) -> CompletionRequest:
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


@dataclass(frozen=True, slots=True)
class _Place:
    """Whom a target asks for what. *alias* says which model stands for which."""

    provider: str
    key: VirtualKey | None
    request: CompletionRequest
    alias: str = ""
    notices: tuple[str, ...] = ()


def _defaults(key: VirtualKey) -> Mapping[str, Any]:
    """What a virtual key fills up a request with."""
    return key.params if key.model is None else {"model": key.model, **key.params}


def _at_sign(provider: str | None) -> str | None:
    """The virtual key that is written as a provider: `@id`."""
    return provider[1:] if provider and provider.startswith("@") else None


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())
