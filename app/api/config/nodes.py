"""The levels of a config, with inheritance resolved: once for each config."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import orjson

from ...core.caching import CachePolicy
from ...core.parameter_aliases import unify_budget
from ...core.retry import RETRY_STATUS_CODES, RetryPolicy
from ...core.routing import BreakerPolicy, Bridge
from ...store.secret_extraction import SECRET_SETTINGS
from ..request.params import Params
from .schema import Config


@dataclass(frozen=True)
class ParamOverrides:
    """What a body is filled up with, thinned out by, and overruled with."""

    defaults: Mapping[str, Any] = field(default_factory=dict, repr=False)
    drops: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def at(self, level: Config) -> "ParamOverrides":
        """The same, as *level* adds to it."""
        return ParamOverrides(
            {**self.defaults, **unify_budget(_get(level, "default_params"))},
            (*self.drops, *(level.get("drop_params") or ())),
            {**self.overrides, **unify_budget(_get(level, "override_params"))},
        )

    def under(self, defaults: Mapping[str, Any]) -> "ParamOverrides":
        """The same, with *defaults* where it has none."""
        return replace(self, defaults={**defaults, **self.defaults})

    def of(self, body: Params) -> Params:
        """*body*, changed."""
        full = self._filled_up(body) if self.defaults else body
        drops = frozenset(self.drops)
        kept = {k: v for k, v in full.items() if k not in drops}
        return {**kept, **self.overrides}

    def _filled_up(self, body: Params) -> Params:
        given = {key: value for key, value in body.items() if value is not None}
        prompt = {"prompt": body["prompt"]} if "prompt" in body else {}
        return {**self.defaults, **prompt, **given}

    @cached_property
    def text(self) -> bytes:
        """The same for all that change a body in the same way."""
        return orjson.dumps((self.defaults, self.drops, self.overrides))


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a target has from the levels above it, unless it says otherwise."""

    changes: ParamOverrides = ParamOverrides()
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
        return Inherited(
            changes=self.changes.at(level),
            retry=_retry(level["retry"]) if level.get("retry") else self.retry,
            breaker=_breaker(level) or self.breaker,
            cache=CachePolicy.of(level["cache"]) if level.get("cache") else self.cache,
            request_timeout=seconds(level.get("request_timeout"))
            or self.request_timeout,
            custom_host=level.get("custom_host") or self.custom_host,
            forward_headers=tuple(level.get("forward_headers") or self.forward_headers),
            strict=level.get("strict_open_ai_compliance", self.strict),
            strict_params=level.get("strict_params", self.strict_params),
            bridge=Bridge(**level["bridge"]) if level.get("bridge") else self.bridge,
            aliases={**self.aliases, **_get(level, "model_aliases")},
        )


@dataclass(frozen=True, eq=False)
class ConfigNode:
    """One level of a config: what it says itself, what it has from those above it, and
    those below it. *path* is its place.
    """

    own: Config = field(repr=False)
    inherited: Inherited = field(repr=False)
    path: str = "config"

    @staticmethod
    def of(config: Config, *, strict: bool) -> "ConfigNode":
        """The top of *config*, in a request that is *strict* unless it says more."""
        return ConfigNode(config, Inherited(strict=strict).at(config))

    @cached_property
    def below(self) -> tuple["ConfigNode", ...]:
        """The levels of its targets."""
        return tuple(
            ConfigNode(target, self.inherited.at(target), f"{self.path}.targets[{i}]")
            for i, target in enumerate(self.own.get("targets") or ())
        )

    @cached_property
    def virtual_keys(self) -> frozenset[str]:
        """The ids of all virtual keys that it, and those below it, name."""
        aliases = _get(self.own, "model_aliases").values()
        own = [
            self.own.get("virtual_key"),
            virtual_key_in(self.own.get("provider")),
            *(alias.get("virtual_key") for alias in aliases),
        ]
        named = {id for id in own if id}
        return frozenset(named.union(*(level.virtual_keys for level in self.below)))

    @cached_property
    def secrets(self) -> frozenset[str]:
        """All credentials that stand in it, and in those below it."""
        own = {str(self.own[name]) for name in SECRET_SETTINGS if self.own.get(name)}
        return frozenset(own.union(*(level.secrets for level in self.below)))

    def identity(self, *more: str | None) -> str:
        """What tells a node from others, wherever in a config it stands."""
        digest = self._begun.copy()
        digest.update(orjson.dumps(more) + b"]")
        told: str = digest.hexdigest()
        return told

    @cached_property
    def _begun(self) -> Any:
        """The digest of what it says itself, to which more is to come."""
        passing = ("weight", "retry", "cache")
        told = {key: value for key, value in self.own.items() if key not in passing}
        text = orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(b"[%b," % text, digest_size=16)


def virtual_key_in(provider: str | None) -> str | None:
    """The virtual key that is written as a provider: `@id`."""
    return provider[1:] if provider and provider.startswith("@") else None


@lru_cache
def nothing(strict: bool) -> ConfigNode:
    """What a request goes by that names no config."""
    return ConfigNode.of({}, strict=strict)


def stored(config: Mapping[str, Any], strict: bool) -> ConfigNode:
    """The levels of a config that is kept in memory anyway, until it changes."""
    return _of_same(_Same(config), strict)


class _Same:
    """One object, whatever others are equal to it: as long as this lives, no other has
    its identity.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.config is other.config

    def __hash__(self) -> int:
        return id(self.config)


@lru_cache(256)
def _of_same(same: _Same, strict: bool) -> ConfigNode:
    return ConfigNode.of(dict(same.config), strict=strict)


def _get(level: Config, key: str) -> Mapping[str, Any]:
    """The object at *key*; without one, an empty one."""
    found: Mapping[str, Any] = level.get(key) or {}
    return found


def seconds(milliseconds: float | None) -> float | None:
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
