"""The cache key of a request: equal keys stand for interchangeable answers."""

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
    scope: CacheScope,
    *,
    secrets: Collection[str] = (),
    endpoint: str = "/v1/completions",
) -> str:
    """The key of the answer that *target* would give to its request: 64 hex digits.

    Equal requests have equal keys, and nothing can be read out of one. *secrets* are
    the names of options that are credentials.
    """
    assert target.request, "a route to completions has a request in every target"
    bridge = target.bridge
    # What the answer depends on besides the request: its source, and how the gateway
    # transforms it.
    source = [
        target.provider,
        (target.base_url or "").rstrip("/"),
        target.via,
        target.strict,
        target.strict_params,
        [bridge.system, bridge.template],
        dict(target.model_info),
    ]
    return fingerprint(
        [
            endpoint,
            scope.namespace,
            _normalize_request(target.request),
            source,
            _sharing_group(target, policy, scope, secrets),
        ]
    )


def fingerprint(document: Any) -> str:
    """64 hex digits that are equal for equal JSON, whatever the order of its keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    digest = hashlib.blake2b(text.encode(), digest_size=32, person=b"lastword-cache-1")
    return digest.hexdigest()


def _sharing_group(
    target: Target, policy: CachePolicy, scope: CacheScope, secrets: Collection[str]
) -> list[Any]:
    """What requests must have in common to share an answer.

    All callers of a config share answers that the operator's credentials paid for, or
    that need none. An answer to a caller's own credentials could be the work of an
    account that the caller has prepared, so only the same credentials share it.
    """
    headers = {name.lower(): value for name, value in target.headers.items()}
    uses_own_credentials = target.virtual_key is None and (
        bool(target.api_key)
        or any(map(target.options.get, secrets))
        or any(map(is_credential_header, headers))
    )
    shares_by_config = policy.scope == CacheSharing.CONFIG and scope.config
    if shares_by_config and not uses_own_credentials:
        options = {k: v for k, v in target.options.items() if k not in secrets}
        return ["config", scope.config, options, headers]
    return ["credentials", scope.caller, target.api_key, dict(target.options), headers]


# Parameters of how an answer is sent, not of what it says.
_TRANSFER_PARAMS = ("stream", "stream_options")

# Values that mean the same as no value. `max_tokens` is not here: its default differs
# between providers.
_DEFAULTS: Mapping[str, Any] = {**DEFAULTS, "echo": False, "n": 1, "stop": []}


def _normalize_request(request: CompletionRequest) -> list[Any]:
    """Model, prompts and parameters, in one form for all equal requests."""
    params = {k: _normalize_numbers(v) for k, v in request.params.items()}
    params["stop"] = list(request.stops)
    if params.get("best_of") == request.n:
        del params["best_of"]
    for name in _TRANSFER_PARAMS:
        params.pop(name, None)
    # In JSON true is not 1, though it is in Python.
    significant = {
        name: value
        for name, value in params.items()
        if value is not None
        and (
            value != _DEFAULTS.get(name)
            or isinstance(value, bool) != isinstance(_DEFAULTS.get(name), bool)
        )
    }
    return [request.model, request.prompts, significant]


def _normalize_numbers(value: Any) -> Any:
    """*value* with one spelling for each number: 1 for 1.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _normalize_numbers(item) for name, item in value.items()}
    return list(map(_normalize_numbers, value)) if isinstance(value, list) else value
