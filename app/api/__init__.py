"""The edge: HTTP in, HTTP out. The only layer that imports Flask and marshmallow."""

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
from . import metrics as metrics_endpoint
from . import models
from .request.body import drain
from .request.headers import current_request, request_headers
from .request.trace_headers import check_trace_id
from .response import FastResponse, identifying_headers
from .routing.auth_throttle import AuthThrottle


def application(
    gateway: Gateway,
    directory: StoreCache,
    dispatcher: BackgroundDispatcher,
    metrics: Metrics | None,
    settings: Settings,
) -> Flask:
    """The Flask application in front of *gateway*, for the keys in *directory*.

    *dispatcher* reports requests when they have ended, *metrics* counts them.
    """
    app = Flask("lastword", static_folder=None)
    app.wsgi_app = _merge_slashes(app.wsgi_app)  # type: ignore[method-assign]
    errors.register(app, AuthThrottle(), settings)

    @app.before_request
    def begin_request() -> None:
        # Not before the first request: a thread would not survive the fork of a worker.
        if not dispatcher.is_running:
            dispatcher.start()
        check_trace_id(request_headers(current_request().environ))

    @app.after_request
    def complete(response: Response) -> Response:
        # An answer of the view for completions is complete already.
        if isinstance(response, FastResponse):
            return response
        _complete_headers(response)
        if metrics is not None and response.status_code >= 400:
            metrics_endpoint.count_refusal(metrics, response.status_code)
        return response

    cors.register(app, settings.cors_origins)
    app.register_blueprint(completions.blueprint(gateway, directory, settings))
    app.register_blueprint(models.blueprint(gateway, directory, settings))
    app.register_blueprint(
        health.blueprint(gateway.target_caller.engine, gateway.clients)
    )
    if settings.docs:
        app.register_blueprint(docs.blueprint(settings))

    if metrics is not None:
        routes = metrics_endpoint.blueprint(metrics, dispatcher, settings)
        app.register_blueprint(routes)
    return app


def _merge_slashes(
    wsgi_app: Callable[..., Iterable[bytes]],
) -> Callable[..., Iterable[bytes]]:
    """*wsgi_app*, with repeated slashes in paths replaced by one.

    They come from a base URL that ends with a slash. Flask would redirect, and many
    clients do not follow a redirect of a POST.
    """

    def merged(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if "//" in environ["PATH_INFO"]:
            environ["PATH_INFO"] = re.sub("/+", "/", environ["PATH_INFO"])
        return wsgi_app(environ, start_response)

    return merged


def _complete_headers(response: Response) -> None:
    """Add the identifying headers, to every answer that the view has not completed."""
    request = current_request()
    if response.status_code >= 400:
        # A proxy that is still sending the body would not read the answer.
        drain(request)
    trace: Trace = g.get("trace") or Trace()
    headers = dict(response.headers)
    sent = request_headers(request.environ)
    response.headers.update(identifying_headers(trace, sent, headers))
