"""POST /v1/completions, and the older spellings of the same."""

from typing import Any

from flask import Blueprint, Request, Response, g

from ..core.response_headers import passed_on
from ..core.routing import Route
from ..gateway.attempts import Trace
from ..gateway.callers import Connection, Sending
from ..gateway.outcome import Stream
from ..gateway.pulse import Pulse
from ..gateway.service import Gateway
from ..settings import Settings
from ..store.directory import Directory
from . import access, headers
from .answer import Answer, StreamedAnswer
from .body import json_object
from .client import throttle_key
from .given import Given, request
from .resolution import resolved
from .route import route

PATHS = (
    "/v1/completions",
    "/completions",
    "/v1/engines/<path:model>/completions",
    "/engines/<path:model>/completions",
    "/openai/deployments/<path:model>/completions",
)


def blueprint(gateway: Gateway, directory: Directory, settings: Settings) -> Blueprint:
    """The endpoint, answered by *gateway* for those whom *directory* knows."""
    routes = Blueprint("completions", __name__)

    def complete(model: str | None = None) -> Response:
        asked = request()
        given = Given(asked.environ)
        with gateway.callers.watching(_client(asked)) as connection:
            way, trace = _way(asked, given, model)
            outcome = gateway.complete(way, trace, connection)
            told = passed_on(outcome.headers) | headers.of_outcome(outcome)
            told |= headers.signature(trace, given, told)
            if isinstance(outcome.body, bytes):
                return _whole(outcome.body, told, connection)
            return _stream(outcome.body, told, connection, gateway.heartbeat)

    def _way(asked: Request, given: Given, model: str | None) -> tuple[Route, Trace]:
        headers.check_content_type(asked)
        caller = access.caller(given, directory, settings, asked.environ)
        wanted = headers.wanted(given, caller)
        body = json_object(asked, settings.max_body_bytes)
        named = {"model": model} | body if model else body
        wanted = resolved(wanted, named, settings)
        way = route(wanted, named, asked.path, settings.default_max_tokens)
        span = headers.span(given, asked.path, gateway.tracing)
        g.trace = trace = Trace(
            key=caller.key.name if caller.key else None,
            caller=_caller_name(asked, caller, settings),
            id=headers.trace_id(given, span),
            config=wanted.stored_id,
            span=span,
        )
        return way, trace

    for path in PATHS:
        routes.post(path, strict_slashes=False)(complete)
    return routes


def _caller_name(asked: Request, caller: access.Caller, settings: Settings) -> str:
    """What tells a caller from others: the gateway key, else the client's address."""
    if caller.key:
        return f"key:{caller.key.name}"
    return f"address:{throttle_key(asked.environ, settings)}"


def _client(asked: Request) -> Any:
    """The caller's socket, where the server gives it."""
    return asked.environ.get("gunicorn.socket")


def _whole(body: bytes, told: dict[str, str], connection: Connection) -> Answer:
    told["Content-Length"] = str(len(body))
    return Answer(Sending(iter([body]), connection), told, "application/json")


def _stream(
    body: Stream, told: dict[str, str], connection: Connection, heartbeat: float | None
) -> StreamedAnswer:
    if connection.socket is not None:
        body.beat(Pulse(connection.say, heartbeat))
    return StreamedAnswer(Sending(body, connection), told, connection)
