"""GET /v1/models: what the chosen provider serves."""

from flask import Blueprint, Response, g, request

from ..gateway.service import Gateway
from ..settings import Settings
from . import headers


def blueprint(gateway: Gateway, settings: Settings) -> Blueprint:
    """The list of models, asked of the provider by *gateway*."""
    routes = Blueprint("models", __name__)

    @routes.get("/v1/models", strict_slashes=False)
    def models() -> Response:
        g.target = headers.target(
            request, trusted=settings.trusted_custom_hosts, local=settings.engine
        )
        outcome = gateway.models(g.target)
        passed_on = headers.passed_on(outcome.headers)
        return Response(outcome.body, 200, passed_on, content_type="application/json")

    return routes
