"""POST /v1/completions, and the older spellings of its path."""

from flask import Blueprint, Request, Response, g

from ..gateway.clients.connections import ClientConnection, Sending
from ..gateway.outcome import StreamBody
from ..gateway.pipeline import Gateway
from ..gateway.retries import Trace
from ..gateway.tracing import Tracing
from ..settings import Settings
from ..store.store_cache import StoreCache
from .request.body import json_object
from .request.client_address import throttle_key
from .request.headers import current_request, request_headers
from .request.trace_headers import begin_span, trace_id
from .response import (
    FastResponse,
    StreamedResponse,
    identifying_headers,
    outcome_headers,
)
from .routing.authentication import authenticate
from .routing.default_route import with_default_route
from .routing.route_builder import build_route
from .routing.routing_headers import (
    RoutingHeaders,
    check_content_type,
    parse_routing_headers,
)

PATHS = (
    "/v1/completions",
    "/completions",
    "/v1/engines/<path:model>/completions",
    "/engines/<path:model>/completions",
    "/openai/deployments/<path:model>/completions",
)


def blueprint(gateway: Gateway, directory: StoreCache, settings: Settings) -> Blueprint:
    """The endpoint, answered by *gateway* for the keys in *directory*."""
    routes = Blueprint("completions", __name__)

    def complete(model: str | None = None) -> Response:
        request = current_request()
        environ, sent = request.environ, request_headers(request.environ)
        # The socket, where the server provides it, shows when the client hangs up.
        socket = environ.get("gunicorn.socket")
        with gateway.clients.watching(socket) as connection:
            # From cheap to dear: headers, the caller, and only then the body, which may
            # have megabytes. A caller who is refused has not had it read.
            check_content_type(request, sent)
            caller = authenticate(sent, directory, settings, environ)
            routing = parse_routing_headers(sent, caller)
            body = json_object(request, sent, settings.max_body_bytes)
            # The older paths name the model; one in the body comes first.
            if model:
                body = {"model": model} | body
            if not routing.names_route:
                routing = with_default_route(routing, body, settings)
            max_tokens = settings.default_max_tokens
            # Nothing has been called, waited for or counted up to here.
            route = build_route(routing, body, request.path, max_tokens)
            # Kept in g, so that the answer to an error has the headers of the trace.
            g.trace = trace = _begin_trace(request, routing, gateway.tracing, settings)
            outcome = gateway.complete(route, trace, connection)
            headers = {**outcome.headers, **outcome_headers(outcome)}
            headers |= identifying_headers(trace, sent, headers)
            if isinstance(outcome.body, bytes):
                return _whole(outcome.body, headers, connection)
            return _stream(outcome.body, headers, connection, gateway.heartbeat)

    # Flask would redirect a path with a slash at its end; clients follow no redirect of
    # a POST.
    for path in PATHS:
        routes.post(path, strict_slashes=False)(complete)
    return routes


def _begin_trace(
    request: Request,
    routing: RoutingHeaders,
    tracing: Tracing | None,
    settings: Settings,
) -> Trace:
    """The trace of a request: its id, its span, and who sent it."""
    key = routing.caller.key
    # Callers without a gateway key are distinguished by address.
    if key:
        caller = f"key:{key.name}"
    else:
        caller = f"address:{throttle_key(request.environ, settings)}"
    span = begin_span(routing.headers, request.path, tracing)
    return Trace(
        key=key.name if key else None,
        caller=caller,
        id=trace_id(routing.headers, span),
        config=routing.stored_id,
        span=span,
    )


def _whole(
    body: bytes, headers: dict[str, str], connection: ClientConnection
) -> FastResponse:
    headers["Content-Length"] = str(len(body))
    sending = Sending(iter([body]), connection)
    return FastResponse(sending, headers, "application/json")


def _stream(
    body: StreamBody,
    headers: dict[str, str],
    connection: ClientConnection,
    heartbeat: float | None,
) -> StreamedResponse:
    body.beat(heartbeat)
    connection.is_streaming = True
    return StreamedResponse(Sending(body, connection), headers)
