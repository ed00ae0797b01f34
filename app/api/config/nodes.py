"""The tree of a config with inheritance resolved, once for each config.

A config is parsed and validated first (parsing.py); the route builder turns the tree
into the targets of one request.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import orjson

from ...core.caching import CachePolicy
from ...core.parameter_aliases import unify_budget
from ...core.permissions import Alias, split_model
from ...core.retry import RETRY_STATUS_CODES, RetryPolicy
from ...core.routing import BreakerPolicy, Bridge
from ...store.secret_extraction import SECRET_SETTINGS
from ..request.schemas import Params
from .schema import Config


@dataclass(frozen=True)
class ParamOverrides:
    """How a config changes the parameters of a body.

    *defaults* are added where the body has no value, then *drops* are removed, then
    *overrides* replace what is there.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict, repr=False)
    drops: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def merge(self, config: Config) -> "ParamOverrides":
        """These and those of *config*, a level below, which come first."""
        return ParamOverrides(
            # A limit of tokens under any of its names, so that the level below really
            # replaces that of the level above.
            {**self.defaults, **unify_budget(config.get("default_params") or {})},
            (*self.drops, *(config.get("drop_params") or ())),
            {**self.overrides, **unify_budget(config.get("override_params") or {})},
        )

    def with_defaults(self, defaults: Mapping[str, Any]) -> "ParamOverrides":
        """The same, with *defaults* where it has none of its own."""
        return replace(self, defaults={**defaults, **self.defaults})

    def apply(self, params: Params) -> Params:
        """*params* with these changes."""
        if self.defaults:
            # A null in the body is no value, except for the prompt.
            values = {key: value for key, value in params.items() if value is not None}
            prompt = {"prompt": params["prompt"]} if "prompt" in params else {}
            params = {**self.defaults, **prompt, **values}
        drops = frozenset(self.drops)
        kept = {key: value for key, value in params.items() if key not in drops}
        return {**kept, **self.overrides}

    def with_model(self, model: str) -> "ParamOverrides":
        """The same, with *model* whatever the body says."""
        return replace(self, overrides={**self.overrides, "model": model})

    @property
    def models(self) -> tuple[Any, ...]:
        """The models that they set."""
        return self.overrides.get("model"), self.defaults.get("model")

    @cached_property
    def are_empty(self) -> bool:
        """Whether they leave every body as it is."""
        return not (self.defaults or self.drops or self.overrides)

    @cached_property
    def cache_key(self) -> bytes:
        """Equal for all that change a body in the same way."""
        return orjson.dumps((self.defaults, self.drops, self.overrides))


@dataclass(frozen=True, slots=True)
class Inherited:
    """The values that a level of a config passes on to the levels below it.

    *params* are the changes of the body, *request_timeout* is in seconds.
    """

    params: ParamOverrides = ParamOverrides()
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

    def merge(self, config: Config) -> "Inherited":
        """The values of *config*, a level below, and these where it has none."""
        return Inherited(
            params=self.params.merge(config),
            # As a whole, as in Portkey: parts of two policies make no policy.
            retry=retry_policy(config["retry"]) if config.get("retry") else self.retry,
            breaker=breaker_policy(config) or self.breaker,
            cache=(
                CachePolicy.of(config["cache"]) if config.get("cache") else self.cache
            ),
            request_timeout=seconds(config.get("request_timeout"))
            or self.request_timeout,
            custom_host=config.get("custom_host") or self.custom_host,
            forward_headers=tuple(
                config.get("forward_headers") or self.forward_headers
            ),
            strict=config.get("strict_open_ai_compliance", self.strict),
            strict_params=config.get("strict_params", self.strict_params),
            bridge=Bridge(**config["bridge"]) if config.get("bridge") else self.bridge,
            # By model: a level adds to the aliases above it, and replaces some.
            aliases={**self.aliases, **(config.get("model_aliases") or {})},
        )


@dataclass(frozen=True, eq=False)
class ConfigNode:
    """One level of a config: a group of targets, or a target.

    *own* is the level as it is written, *inherited* its values with those of the levels
    above it, *path* where it is: `config.targets[1]`.
    """

    own: Config = field(repr=False)
    inherited: Inherited = field(repr=False)
    path: str = "config"

    @staticmethod
    def of(config: Config, *, strict: bool) -> "ConfigNode":
        """The root of *config*; *strict* holds unless the config says otherwise."""
        return ConfigNode(config, Inherited(strict=strict).merge(config))

    @cached_property
    def below(self) -> tuple["ConfigNode", ...]:
        """The nodes of its targets."""
        return tuple(
            ConfigNode(
                target, self.inherited.merge(target), f"{self.path}.targets[{i}]"
            )
            for i, target in enumerate(self.own.get("targets") or ())
        )

    @cached_property
    def virtual_keys(self) -> frozenset[str]:
        """The ids of all virtual keys in this node and below it."""
        aliases = (self.own.get("model_aliases") or {}).values()
        ids = [self.virtual_key, *(alias.get("virtual_key") for alias in aliases)]
        # As in `@key/model`, where nothing else names the provider.
        models = [a["model"] for a in aliases if not Alias(**a).names_provider]
        if not (self.own.get("provider") or self.virtual_key or self.below):
            models += self.inherited.params.models
        ids += [parts[0] for parts in map(split_model, models) if parts]
        own = {id for id in ids if id}
        return frozenset(own.union(*(node.virtual_keys for node in self.below)))

    @cached_property
    def secrets(self) -> frozenset[str]:
        """All credentials in this node and below it."""
        own = {str(self.own[name]) for name in SECRET_SETTINGS if self.own.get(name)}
        return frozenset(own.union(*(node.secrets for node in self.below)))

    @cached_property
    def virtual_key(self) -> str | None:
        """The id of its own virtual key, which may be written as a provider: `@id`."""
        provider = self.own.get("provider") or ""
        as_provider = provider[1:] if provider.startswith("@") else None
        return self.own.get("virtual_key") or as_provider

    @cached_property
    def deadline(self) -> float | None:
        """The seconds in which a request with this config has to have its answer."""
        return seconds(self.own.get("deadline_ms"))

    @cached_property
    def identity(self) -> Callable[..., str]:
        """A function of strings, or None: the digest of these and of the node's own
        values, whatever its path.

        Counters of the circuit breaker and sticky routing are kept under it: they stay
        with a target that is moved within its config.
        """
        # These may change without making it another target.
        incidental = ("weight", "retry", "cache")
        own = {key: value for key, value in self.own.items() if key not in incidental}
        text = orjson.dumps(own, option=orjson.OPT_SORT_KEYS)
        own_digest = hashlib.blake2b(b"[%b," % text, digest_size=16)

        # A node has few targets (its provider, virtual key and host), and each request
        # asks for the identity of one.
        @lru_cache(64)
        def identity(*more: str | None) -> str:
            digest = own_digest.copy()
            digest.update(orjson.dumps(more) + b"]")
            return digest.hexdigest()

        return identity


@lru_cache
def empty_node(strict: bool) -> ConfigNode:
    """The node of a request without a config."""
    return ConfigNode.of({}, strict=strict)


def stored_node(config: Mapping[str, Any], strict: bool) -> ConfigNode:
    """The root of a stored *config*, cached as long as that is the same object."""
    return _node_of(_ByIdentity(config), strict)


class _ByIdentity:
    """A cache key for a mapping, which is not hashable: equal for the same object.

    It holds the object, so that no other one can get its id meanwhile.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and self.config is other.config

    def __hash__(self) -> int:
        return id(self.config)


@lru_cache(256)
def _node_of(key: _ByIdentity, strict: bool) -> ConfigNode:
    return ConfigNode.of(dict(key.config), strict=strict)


def seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def retry_policy(retry: Config) -> RetryPolicy:
    """The policy of a config's `retry`."""
    codes = retry.get("on_status_codes")
    # Portkey's documentation spells it in both ways.
    names = ("use_retry_after_header", "use_retry_after_headers")
    return RetryPolicy(
        attempts=int(retry["attempts"]),
        on_status_codes=RETRY_STATUS_CODES if codes is None else tuple(codes),
        use_retry_after=any(retry.get(name) for name in names),
    )


def breaker_policy(config: Config) -> BreakerPolicy | None:
    """The policy of a level's `strategy.cb_config`, if it has one."""
    breaker = (config.get("strategy") or {}).get("cb_config")
    if not breaker:
        return None
    codes = breaker.get("failure_status_codes")
    return BreakerPolicy(
        failure_threshold=breaker.get("failure_threshold"),
        failure_threshold_percentage=breaker.get("failure_threshold_percentage"),
        minimum_requests=int(breaker.get("minimum_requests", 1)),
        cooldown=breaker.get("cooldown_interval", 30_000) / 1000,
        failure_status_codes=None if codes is None else tuple(codes),
    )
