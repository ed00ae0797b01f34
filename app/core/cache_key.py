"""Which answers are the same: those whose keys are."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from .caching import CachePolicy, CacheScope, CacheSharing
from .forwarding import is_credential_header
from .request import DEFAULTS, CompletionRequest
from .routing import Target


def key(
    target: Target,
    policy: CachePolicy,
    asker: CacheScope,
    *,
    secrets: Collection[str] = (),
    endpoint: str = "/v1/completions",
) -> str:
    """The name of the answer that *target* would give to its request: 64 hex digits.

    Equal requests have equal names, and nothing can be read out of one. *secrets* are
    the names of options that are credentials.
    """
    assert target.request, "a route to completions asks every target something"
    return fingerprint(
        [
            endpoint,
            asker.namespace,
            _question(target.request),
            _place(target),
            _circle(target, policy, asker, secrets),
        ]
    )


def fingerprint(document: Any) -> str:
    """64 hex digits that are equal for equal JSON, whatever the order of its keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    digest = hashlib.blake2b(text.encode(), digest_size=32, person=b"lastword-cache-1")
    return digest.hexdigest()


def _place(target: Target) -> list[Any]:
    """Where an answer comes from, and what is made of it on the way."""
    bridge = target.bridge
    return [
        target.provider,
        (target.base_url or "").rstrip("/"),
        target.via,
        target.strict,
        target.strict_params,
        [bridge.system, bridge.template],
        dict(target.model_info),
    ]


def _circle(
    target: Target, policy: CachePolicy, asker: CacheScope, secrets: Collection[str]
) -> list[Any]:
    """Those who share an answer: they have this in common.

    All callers of a config share what the operator's credentials answered, or an
    upstream that wants none. What a caller's own credentials answered could be the work
    of an account that the caller has prepared, so it is for those who have the same.
    """
    headers = {name.lower(): value for name, value in target.headers.items()}
    own = target.virtual_key is None and (
        bool(target.api_key)
        or any(map(target.options.get, secrets))
        or any(map(is_credential_header, headers))
    )
    if policy.scope == CacheSharing.CONFIG and asker.config and not own:
        options = {k: v for k, v in target.options.items() if k not in secrets}
        return ["config", asker.config, options, headers]
    return ["credentials", asker.caller, target.api_key, dict(target.options), headers]


# How an answer is sent, not what it says.
_FORM = ("stream", "stream_options")

# What is meant where nothing is said. `max_tokens` has another default everywhere.
_DEFAULTS: Mapping[str, Any] = {**DEFAULTS, "echo": False, "n": 1, "stop": []}


def _question(request: CompletionRequest) -> list[Any]:
    """What is asked, in the one way of many to say it."""
    params = {name: _plain(value) for name, value in request.params.items()}
    params["stop"] = list(request.stops)
    if params.get("best_of") == request.n:
        del params["best_of"]
    said = {k: v for k, v in params.items() if k not in _FORM and _means(k, v)}
    return [request.model, request.prompts, said]


def _means(name: str, value: Any) -> bool:
    """Whether it matters that this was said. To JSON, true is not 1."""
    default = _DEFAULTS.get(name)
    return value is not None and (
        value != default or isinstance(value, bool) != isinstance(default, bool)
    )


def _plain(value: Any) -> Any:
    """*value* with one spelling for each number: 1 for 1.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return list(map(_plain, value)) if isinstance(value, list) else value
