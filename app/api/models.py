"""GET /v1/models: what the chosen provider serves."""

from flask import Blueprint, Response, g

from ..core.response_headers import passed_on
from ..core.routing import targets
from ..gateway.attempts import Trace
from ..gateway.service import Gateway
from ..settings import Settings
from ..store.directory import Directory
from . import access, headers
from .given import Given, request
from .resolution import resolved
from .route import route

# A route leads to completions; the list of models is asked of its first target.
_ANY = {"model": "any", "prompt": ""}


def blueprint(gateway: Gateway, directory: Directory, settings: Settings) -> Blueprint:
    """The list of models, asked of the provider by *gateway*."""
    routes = Blueprint("models", __name__)

    @routes.get("/v1/models", strict_slashes=False)
    def models() -> Response:
        asked = request()
        given = Given(asked.environ)
        caller = access.caller(given, directory, settings)
        wanted = headers.wanted(given, caller, settings.trusted_custom_hosts)
        wanted = resolved(wanted, _ANY, settings)
        target = next(targets(route(wanted, _ANY, asked.path, None).root))
        g.trace = Trace(target=target)
        outcome = gateway.models(target)
        told = passed_on(outcome.headers)
        return Response(outcome.body, 200, told, content_type="application/json")

    return routes
