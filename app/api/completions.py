"""POST /v1/completions, and the older spellings of the same."""

from typing import Any

from flask import Blueprint, Request, Response, g

from ..core.response_headers import caller_headers
from ..core.routing import Route
from ..gateway.clients.connections import ClientConnection, Sending
from ..gateway.outcome import StreamBody
from ..gateway.pipeline import Gateway
from ..gateway.retries import Trace
from ..settings import Settings
from ..store.store_cache import StoreCache
from .request.body import json_object
from .request.client_address import throttle_key
from .request.headers import RequestHeaders, request
from .response import FastResponse, StreamedResponse
from .routing import authentication, routing_headers
from .routing.default_route import with_default_route
from .routing.route_builder import route

PATHS = (
    "/v1/completions",
    "/completions",
    "/v1/engines/<path:model>/completions",
    "/engines/<path:model>/completions",
    "/openai/deployments/<path:model>/completions",
)


def blueprint(gateway: Gateway, directory: StoreCache, settings: Settings) -> Blueprint:
    """The endpoint, answered by *gateway* for those whom *directory* knows."""
    routes = Blueprint("completions", __name__)

    def complete(model: str | None = None) -> Response:
        asked = request()
        given = RequestHeaders(asked.environ)
        with gateway.clients.watching(_client(asked)) as connection:
            way, trace = _way(asked, given, model)
            outcome = gateway.complete(way, trace, connection)
            told = caller_headers(outcome.headers) | routing_headers.of_outcome(outcome)
            told |= routing_headers.signature(trace, given, told)
            if isinstance(outcome.body, bytes):
                return _whole(outcome.body, told, connection)
            return _stream(outcome.body, told, connection, gateway.heartbeat)

    def _way(
        asked: Request, given: RequestHeaders, model: str | None
    ) -> tuple[Route, Trace]:
        routing_headers.check_content_type(asked)
        caller = authentication.caller(given, directory, settings, asked.environ)
        wanted = routing_headers.wanted(given, caller)
        body = json_object(asked, settings.max_body_bytes)
        named = {"model": model} | body if model else body
        wanted = with_default_route(wanted, named, settings)
        way = route(wanted, named, asked.path, settings.default_max_tokens)
        span = routing_headers.span(given, asked.path, gateway.tracing)
        g.trace = trace = Trace(
            key=caller.key.name if caller.key else None,
            caller=_caller_name(asked, caller, settings),
            id=routing_headers.trace_id(given, span),
            config=wanted.stored_id,
            span=span,
        )
        return way, trace

    for path in PATHS:
        routes.post(path, strict_slashes=False)(complete)
    return routes


def _caller_name(
    asked: Request, caller: authentication.Caller, settings: Settings
) -> str:
    """What tells a caller from others: the gateway key, else the client's address."""
    if caller.key:
        return f"key:{caller.key.name}"
    return f"address:{throttle_key(asked.environ, settings)}"


def _client(asked: Request) -> Any:
    """The caller's socket, where the server gives it."""
    return asked.environ.get("gunicorn.socket")


def _whole(
    body: bytes, told: dict[str, str], connection: ClientConnection
) -> FastResponse:
    told["Content-Length"] = str(len(body))
    return FastResponse(Sending(iter([body]), connection), told, "application/json")


def _stream(
    body: StreamBody,
    told: dict[str, str],
    connection: ClientConnection,
    heartbeat: float | None,
) -> StreamedResponse:
    body.beat(heartbeat)
    connection.is_streaming = True
    return StreamedResponse(Sending(body, connection), told)
