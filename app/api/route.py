"""From what the headers want to a tree of targets, with inheritance resolved once."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from ..core import conditions
from ..core.hosts import custom_host
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
)
from ..errors import InvalidRoute
from ..providers import PROVIDERS
from ..providers.spec import Setting
from . import config, patterns
from .config_schema import Config
from .headers import Wanted
from .params import Params, completion_request


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a target has from the levels above it, unless it says otherwise."""

    override_params: Mapping[str, Any]
    default_params: Mapping[str, Any]
    drop_params: tuple[str, ...] = ()
    retry: RetryPolicy = RetryPolicy()
    breaker: BreakerPolicy | None = None
    request_timeout: float | None = None
    custom_host: str | None = None
    forward_headers: tuple[str, ...] = ()
    strict: bool = True
    strict_params: bool = False
    bridge: Bridge = Bridge()

    def at(self, level: Config) -> "Inherited":
        """The same, as *level* has it for itself and for what is below it."""
        return replace(
            self,
            override_params={**self.override_params, **_get(level, "override_params")},
            default_params={**self.default_params, **_get(level, "default_params")},
            drop_params=(*self.drop_params, *(level.get("drop_params") or ())),
            retry=_retry(level["retry"]) if level.get("retry") else self.retry,
            breaker=_breaker(level) or self.breaker,
            request_timeout=_seconds(level.get("request_timeout"))
            or self.request_timeout,
            custom_host=level.get("custom_host") or self.custom_host,
            forward_headers=tuple(level.get("forward_headers") or self.forward_headers),
            strict=level.get("strict_open_ai_compliance", self.strict),
            strict_params=level.get("strict_params", self.strict_params),
            bridge=Bridge(**level["bridge"]) if level.get("bridge") else self.bridge,
        )


def route(
    wanted: Wanted, body: Params, pathname: str, default_max_tokens: int | None
) -> Route:
    """The way of a request with *body*. Raises InvalidRoute or InvalidRequest."""
    tree = _Tree(wanted, body, pathname, default_max_tokens)
    strict = wanted.headers.get("x-portkey-strict-open-ai-compliance") != "false"
    root = tree.node(wanted.config, Inherited({}, {}, strict=strict), "config")
    return Route(root, _seconds(wanted.config.get("deadline_ms")))


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
        self._body = body
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
        provider = level.get("provider") or self._wanted.provider
        if provider is None:
            place = path.replace("config", "", 1).strip(".").replace(".", ",")
            raise config.invalid([(place, "Required: provider, or a strategy")])
        said = self._settings(level, provider)
        options = {setting.name: said[setting] for setting in said}
        base_url = self._wanted.custom_host or inherited.custom_host
        base_url = base_url or self._address(said)
        target = Target(
            provider=provider,
            api_key=self._key(level, provider),
            base_url=base_url.rstrip("/") if base_url else None,
            headers=self._headers(said, inherited),
            options=options,
            request_timeout=self._wanted.request_timeout or inherited.request_timeout,
            strict=inherited.strict,
            via=Way(level["via"]) if level.get("via") else None,
            bridge=inherited.bridge,
            model_info=level.get("model_info") or {},
            strict_params=inherited.strict_params,
            request=self._request(inherited),
            retry=inherited.retry,
            breaker=inherited.breaker,
            name=level.get("name"),
            weight=level.get("weight", 1),
            path=path,
        )
        return replace(target, identity=_identity(level, provider, base_url))

    def _key(self, level: Config, provider: str) -> str | None:
        """Its own key, else the request's, if that is not meant for somebody else."""
        meant = self._wanted.provider in (None, provider)
        return level.get("api_key") or (self._wanted.api_key if meant else None)

    def _settings(self, level: Config, provider: str) -> dict[Setting, Any]:
        """What the provider alone has to know, from the config or the request.

        A config that names its provider says all of it; the request's headers are about
        the provider that it names itself.
        """
        settings = PROVIDERS[provider].settings if provider in PROVIDERS else ()
        said = {s: level.get(s.name) or level.get(s.alias or s.name) for s in settings}
        if not level.get("provider"):
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

    def _request(self, inherited: Inherited) -> CompletionRequest:
        """What a target is asked; the same for all that share these settings."""
        settings = (
            inherited.default_params,
            inherited.drop_params,
            inherited.override_params,
        )
        key = orjson.dumps(settings)
        if key not in self._requests:
            params = _merged(self._body, *settings)
            request = completion_request(params, self._default_max_tokens)
            self._requests[key] = request
        return self._requests[key]


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
