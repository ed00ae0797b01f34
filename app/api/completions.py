"""POST /v1/completions, and the older spellings of the same."""

import time
import uuid
from typing import Any

from flask import Blueprint, Response, g, request

from ..core.request import CompletionRequest
from ..gateway.service import Gateway, Outcome
from ..gateway.stream import EventStream
from ..settings import Settings
from . import headers, schemas
from .body import json_object

PATHS = (
    "/v1/completions",
    "/completions",
    "/v1/engines/<path:model>/completions",
    "/engines/<path:model>/completions",
    "/openai/deployments/<path:model>/completions",
)


def blueprint(gateway: Gateway, settings: Settings) -> Blueprint:
    """The endpoint, answered by *gateway*."""
    routes = Blueprint("completions", __name__)

    def complete(model: str | None = None) -> Response:
        headers.check_content_type(request)
        g.target = headers.target(
            request, trusted=settings.trusted_custom_hosts, local=settings.engine
        )
        body = json_object(request, settings.max_body_bytes)
        params = schemas.load({"model": model} | body if model else body)
        applied = _apply_defaults(params, settings.default_max_tokens)
        response = _response(gateway.complete(_completion_request(params), g.target))
        response.headers.update(applied)
        return response

    for path in PATHS:
        routes.post(path, strict_slashes=False)(complete)
    return routes


def _apply_defaults(
    params: dict[str, Any], default_max_tokens: int | None
) -> dict[str, str]:
    """Set what the endpoint's page promises and upstreams do not keep.

    Its other defaults are upstream's as well. The answer's header that says so.
    """
    if "max_tokens" in params or default_max_tokens is None:
        return {}
    params["max_tokens"] = default_max_tokens
    return {"x-lastword-applied-defaults": f"max_tokens={default_max_tokens}"}


def _completion_request(params: dict[str, Any]) -> CompletionRequest:
    return CompletionRequest(
        model=params.pop("model"),
        prompt=params.pop("prompt"),
        params=params,
        id=f"cmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
    )


def _response(outcome: Outcome) -> Response:
    passed_on = headers.passed_on(outcome.headers)
    if not isinstance(outcome.body, EventStream):
        return Response(outcome.body, 200, passed_on, content_type="application/json")
    # Proxies hold a stream back unless they are told not to; nginx by the last one.
    streamed = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return Response(
        outcome.body, 200, passed_on | streamed, content_type="text/event-stream"
    )
