"""The edge: HTTP in, HTTP out. The only place that knows Flask and marshmallow."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Response, g

from ..gateway.pipeline import Gateway
from ..gateway.retries import Trace
from ..observability.dispatcher import BackgroundDispatcher
from ..observability.metrics import Metrics
from ..settings import Settings
from ..store.store_cache import StoreCache
from . import completions, cors, docs, errors, health
from . import metrics as counted
from . import models
from .request.body import drain
from .request.headers import RequestHeaders, request
from .response import FastResponse
from .routing import routing_headers
from .routing.auth_throttle import AuthThrottle


def application(
    gateway: Gateway,
    directory: StoreCache,
    later: BackgroundDispatcher,
    metrics: Metrics | None,
    settings: Settings,
) -> Flask:
    """The Flask application in front of *gateway*, for those in *directory*.

    *later* looks at requests when they are over, *metrics* counts them.
    """
    app = Flask("lastword", static_folder=None)
    app.wsgi_app = _merged(app.wsgi_app)  # type: ignore[method-assign]
    errors.register(app, AuthThrottle(), settings)
    app.before_request(_check)
    app.after_request(_sign)
    cors.register(app, settings.cors_origins)
    app.register_blueprint(completions.blueprint(gateway, directory, settings))
    app.register_blueprint(models.blueprint(gateway, directory, settings))
    app.register_blueprint(
        health.blueprint(gateway.target_caller.engine, gateway.clients)
    )
    if settings.docs:
        app.register_blueprint(docs.blueprint(settings))
    app.after_request(_awake(later))
    if metrics is not None:
        app.register_blueprint(counted.blueprint(metrics, later, settings))
        app.after_request(counted.refusals(metrics))
    return app


def _merged(serve: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Has paths mean the same with doubled slashes, which a base URL that ends in one
    makes. Flask would redirect, and many clients do not follow with a POST.
    """

    def served(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if "//" in environ["PATH_INFO"]:
            environ["PATH_INFO"] = re.sub("/+", "/", environ["PATH_INFO"])
        return serve(environ, start_response)

    return served


def _awake(later: BackgroundDispatcher) -> Callable[[Response], Response]:
    """Has *later* begin with the first request: a thread outlives no fork."""

    def awake(response: Response) -> Response:
        later.start()
        return response

    return awake


def _check() -> None:
    """Refuse what would be carried along with a request, wherever it goes."""
    routing_headers.check_trace_id(RequestHeaders(request().environ))


def _sign(response: Response) -> Response:
    """Say which request this was, and which way it went, unless that is said.

    A proxy that still sends the body of a refused one gets to see the refusal.
    """
    if isinstance(response, FastResponse):
        return response
    asked = request()
    if response.status_code >= 400:
        drain(asked)
    trace: Trace = g.get("trace") or Trace()
    given, told = RequestHeaders(asked.environ), dict(response.headers)
    response.headers.update(routing_headers.signature(trace, given, told))
    return response
