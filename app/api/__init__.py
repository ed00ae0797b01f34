"""The edge: HTTP in, HTTP out. The only place that knows Flask and marshmallow."""

import uuid

from flask import Flask, Response, g, request

from ..gateway.service import Gateway
from ..settings import Settings
from ..store.directory import Directory
from . import completions, cors, errors, headers, health, models
from .body import drain
from .slowdown import Slowdown


def application(gateway: Gateway, directory: Directory, settings: Settings) -> Flask:
    """The Flask application in front of *gateway*, for those in *directory*."""
    app = Flask("lastword", static_folder=None)
    errors.register(app, Slowdown())
    app.after_request(_sign)
    cors.register(app, settings.cors_origins)
    app.register_blueprint(completions.blueprint(gateway, directory, settings))
    app.register_blueprint(models.blueprint(gateway, directory, settings))
    app.register_blueprint(health.blueprint(gateway.answering.engine, gateway.callers))
    return app


def _sign(response: Response) -> Response:
    """Say which request this was, and which way it went.

    A proxy that still sends the body of a refused one gets to see the refusal.
    """
    if response.status_code >= 400:
        drain(request)
    response.headers.setdefault("x-request-id", f"req_{uuid.uuid4().hex}")
    known = "trace" in g and g.trace.id
    response.headers["x-portkey-trace-id"] = known or headers.trace_id(request)
    if "trace" in g:
        response.headers.update(headers.of_trace(g.trace))
    return response
