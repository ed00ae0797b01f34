"""POST /v1/completions, and the older spellings of the same."""

from typing import Any

from flask import Blueprint, Response, g, request

from ..core.routing import Route
from ..gateway.attempts import Trace
from ..gateway.callers import Connection, Sending
from ..gateway.outcome import Outcome, Stream
from ..gateway.pulse import Pulse
from ..gateway.service import Gateway
from ..settings import Settings
from ..store.directory import Directory
from . import access, headers
from .body import json_object
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
        with gateway.callers.watching(_client()) as connection:
            way = _way(model)
            outcome = gateway.complete(way, g.trace, connection)
            if isinstance(outcome.body, bytes):
                return _whole(outcome, outcome.body, connection)
            return _stream(outcome, outcome.body, connection, gateway.heartbeat)

    def _way(model: str | None) -> Route:
        headers.check_content_type(request)
        caller = access.caller(request.headers, directory, settings)
        wanted = headers.wanted(request, caller, settings.trusted_custom_hosts)
        body = json_object(request, settings.max_body_bytes)
        named = {"model": model} | body if model else body
        wanted = resolved(wanted, named, settings)
        way = route(wanted, named, request.path, settings.default_max_tokens)
        g.trace = Trace(
            key=caller.key.name if caller.key else None,
            id=headers.trace_id(request),
            config=wanted.stored_id,
        )
        return way

    for path in PATHS:
        routes.post(path, strict_slashes=False)(complete)
    return routes


def _client() -> Any:
    """The caller's socket, where the server gives it."""
    return request.environ.get("gunicorn.socket")


def _whole(outcome: Outcome, body: bytes, connection: Connection) -> Response:
    told = _told(outcome) | {"Content-Length": str(len(body))}
    sent = Sending(iter([body]), connection)
    return Response(sent, 200, told, content_type="application/json")


class _Streamed(Response):
    """A stream that can also be spoken to between two of its pieces.

    That is what WSGI's `write` is for. Of servers we know gunicorn to mean it.
    """

    def __init__(self, *given: Any, connection: Connection, **named: Any) -> None:
        super().__init__(*given, **named)
        self._connection = connection

    def __call__(self, environ: Any, start_response: Any) -> Any:
        def start(*given: Any) -> Any:
            self._connection.write = start_response(*given)
            return self._connection.write

        return super().__call__(environ, start)


def _stream(
    outcome: Outcome, body: Stream, connection: Connection, heartbeat: float | None
) -> Response:
    # Proxies hold a stream back unless they are told not to; nginx by the last one.
    streamed = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    if connection.socket is not None:
        body.beat(Pulse(connection.say, heartbeat))
    return _Streamed(
        Sending(body, connection),
        200,
        _told(outcome) | streamed,
        content_type="text/event-stream",
        connection=connection,
    )


def _told(outcome: Outcome) -> dict[str, str]:
    return headers.passed_on(outcome.headers) | headers.of_outcome(outcome)
