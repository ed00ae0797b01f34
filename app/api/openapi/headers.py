"""The headers of requests and answers. A test compares them with the code."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from apispec import APISpec

from ...core.caching import CacheStatus
from ...core.limits import Unit
from ...core.routing import CompletionMode
from ...providers import PROVIDERS
from ...providers.catalog.known_names import KNOWN_NAMES
from ..response import UNBUFFERED
from . import examples
from .schemas import CONFIG, Shape, ref

_TEXT: Shape = {"type": "string"}

# The headers in which a client can send a key: OpenAPI's security schemes by id.
SECURITY_SCHEMES: Mapping[str, Shape] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of this gateway's (`lw-...`), or the provider's own. "
        "The word `Bearer` may be left out.",
    },
    "x-portkey-api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "x-portkey-api-key",
    },
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}

# On every path. The pattern is printable ASCII.
_TRACING: dict[str, Shape] = {
    "x-portkey-trace-id": {
        "description": "Comes back in the answer; made when absent.",
        "schema": {"type": "string", "pattern": "^[ -~]*$", "maxLength": 128},
    },
}

_PROVIDER = {
    "anyOf": [
        {"type": "string", "enum": list(KNOWN_NAMES)},
        {
            "type": "string",
            "pattern": "^(@|$)",
            "description": "The id of a virtual key; or nothing, as if it were absent.",
        },
    ]
}

# Not as `content`: Swagger UI would send an example with every request.
_CONFIG = {
    "anyOf": [
        {"type": "string", "description": "The id of a stored config."},
        {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": ref(CONFIG),
        },
    ]
}

# Without `example`, for the same reason: Swagger UI fills its form with examples.
_ROUTING: dict[str, Shape] = {
    "x-portkey-provider": {
        "description": "Who answers. Without it, and without a config, a request goes "
        "where its key or its model is told to go, else to the embedded engine.",
        "schema": _PROVIDER,
    },
    "x-portkey-virtual-key": {
        "description": "The id of a stored key of a provider.",
        "schema": _TEXT,
    },
    "x-portkey-custom-host": {
        "description": "Replaces the provider's base URL, `/v1` included: "
        "`http://localhost:8000/v1`.",
        "schema": _TEXT,
    },
    "x-portkey-config": {
        "description": "A plan of several targets, as a JSON object of up to 32 KiB "
        "with up to 64 targets; its keys may be in camelCase, too. Or the id of a "
        "stored config. Such as "
        f"`{json.dumps(examples.CONFIG)}`.",
        "schema": _CONFIG,
    },
    "x-portkey-request-timeout": {
        "description": "Milliseconds until the answer begins, with a stream until its "
        "first event. What is no number above 0 sets no limit.",
        "schema": _TEXT,
    },
    "x-portkey-forward-headers": {
        "description": "Names of headers that go upstream as they are, with commas.",
        "schema": _TEXT,
    },
    "x-portkey-metadata": {
        "description": "A JSON object about the request, for the conditions of a "
        "config. What is none says nothing.",
        "schema": _TEXT,
    },
    "x-portkey-strict-open-ai-compliance": {
        "description": "`false` keeps a provider's own finish reasons.",
        "schema": _TEXT,
    },
    "x-portkey-package-version": {
        "description": "Sent by Portkey's SDKs, which put the provider's key into "
        "Authorization: that comes first then.",
        "schema": _TEXT,
    },
}

_COMPLETION: dict[str, Shape] = {
    "x-portkey-cache-force-refresh": {
        "description": "If it is there, no answer from the cache is wanted.",
        "schema": _TEXT,
    },
    "x-portkey-cache-namespace": {
        "description": "A part of the cache of one's own.",
        "schema": _TEXT,
    },
    "Content-Encoding": {
        "description": "No other is taken: 415.",
        "schema": _TEXT | {"enum": ["identity", ""]},
    },
}


def _provider_headers() -> dict[str, Shape]:
    """The headers of providers' settings, each with the providers that have it."""
    # Several providers may share a header: those of AWS, for instance.
    providers: dict[str, list[str]] = {}
    for provider in PROVIDERS.values():
        for setting in provider.settings:
            for name in setting.headers:
                providers.setdefault(name, []).append(provider.name)
    return {
        header: {"description": f"For {', '.join(names)}.", "schema": _TEXT}
        for header, names in providers.items()
    }


# Authorization and the other headers of keys are not among them: OpenAPI ignores
# parameters of these names, and has security schemes instead.
REQUEST_HEADERS = _TRACING | _ROUTING | _COMPLETION | _provider_headers()

PARAMETERS = tuple(_TRACING)
MODELS_PARAMETERS = (*_TRACING, *_ROUTING, *_provider_headers())
COMPLETIONS_PARAMETERS = tuple(REQUEST_HEADERS)


# Headers of answers

IDENTIFYING: dict[str, Shape] = {
    "x-portkey-trace-id": {
        "description": "The caller's own, or a new one.",
        "schema": _TEXT,
        "required": True,
    },
    "x-request-id": {
        "description": "Of the provider's answer, else of this gateway's.",
        "schema": _TEXT,
        "required": True,
    },
}
TARGET: dict[str, Shape] = {
    "x-portkey-provider": {"description": "Who was asked last.", "schema": _TEXT},
    "x-portkey-last-used-option-index": {
        "description": "Where in the config that stands.",
        "schema": _TEXT,
        "example": "config.targets[0]",
    },
    "x-portkey-retry-attempt-count": {
        "description": "How often it was asked again; -1 if that was not enough.",
        "schema": {"type": "integer", "minimum": -1},
    },
    "x-portkey-cache-status": {
        "description": "Whether the answer had been given before.",
        "schema": {"type": "string", "enum": [str(status) for status in CacheStatus]},
    },
    "x-lastword-attempts": {
        "description": "What was tried: place, status and time of each.",
        "schema": _TEXT,
        "example": "config.targets[0] 503 12ms, config.targets[1] 200 340ms",
    },
}
OUTCOME: dict[str, Shape] = {
    "x-lastword-via": {
        "description": "How the provider came to the text.",
        "schema": {"type": "string", "enum": [str(mode) for mode in CompletionMode]},
    },
    "x-lastword-applied-defaults": {
        "description": "What the gateway put in.",
        "schema": _TEXT,
        "example": "max_tokens=100",
    },
    "x-lastword-dropped-params": {
        "description": "Parameters that this provider went without.",
        "schema": _TEXT,
        "example": "seed, user",
    },
    "x-lastword-model-alias": {
        "description": "Which model answered for which.",
        "schema": _TEXT,
        "example": "gpt-3.5-turbo-instruct -> gpt-4o-mini",
    },
    "x-lastword-warning": {"description": "What else differs.", "schema": _TEXT},
    "Age": {
        "description": "Of an answer from the cache, in seconds.",
        "schema": {"type": "integer", "minimum": 0},
    },
}
STREAM: dict[str, Shape] = {
    name: {"description": "Of a stream.", "schema": _TEXT | {"const": value}}
    for name, value in UNBUFFERED.items()
}
# The provider's own, or those of the limits of a key. Any other that begins with
# `openai-`, `x-ratelimit-` or `retry-after` is passed on as well.
UPSTREAM: dict[str, Shape] = {
    f"x-ratelimit-{what}-{unit}": {
        "description": f"{about} {unit}, of the tightest limit.",
        "schema": _TEXT,
    }
    for unit in (Unit.REQUESTS, Unit.TOKENS)
    for what, about in {
        "limit": "How many",
        "remaining": "What is left of the",
        "reset": "Until when there are again as many",
    }.items()
} | {
    "retry-after": {"description": "Seconds, or a date.", "schema": _TEXT},
    "x-should-retry": {
        "description": "`false` where to ask again is of no use.",
        "schema": _TEXT,
    },
}
FAILURE: dict[str, Shape] = {
    "x-portkey-gateway-exception": {
        "description": "`true` if the failure is not the provider's own answer.",
        "schema": _TEXT,
    },
}
ALLOW: dict[str, Shape] = {
    "Allow": {"description": "The methods that are.", "schema": _TEXT, "required": True}
}
RESPONSE_HEADERS = IDENTIFYING | TARGET | OUTCOME | STREAM | UPSTREAM | FAILURE | ALLOW


def describe(spec: APISpec) -> None:
    """Add all headers and security schemes to *spec*."""
    for name, scheme in SECURITY_SCHEMES.items():
        spec.components.security_scheme(name, dict(scheme))
    for name, header in REQUEST_HEADERS.items():
        spec.components.parameter(name, "header", {"name": name, **header})
    for name, header in RESPONSE_HEADERS.items():
        spec.components.header(name, header)


def refs(*groups: Iterable[str]) -> dict[str, Any]:
    """References to the headers of an answer."""
    names = [name for group in groups for name in group]
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
