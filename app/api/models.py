"""GET /v1/models: what the chosen provider serves."""

import orjson
from flask import Blueprint, Response, g

from ..core.permissions import Permissions
from ..core.response_headers import caller_headers
from ..core.routing import targets
from ..gateway.authorization import authorize_listing
from ..gateway.pipeline import Gateway
from ..gateway.retries import Trace
from ..providers.parsing.json_bodies import malformed_as_upstream_error, read_object
from ..settings import Settings
from ..store.store_cache import StoreCache
from .request.headers import RequestHeaders, request
from .routing import authentication, routing_headers
from .routing.default_route import with_default_route
from .routing.route_builder import route

# A route leads to completions; the list of models is asked of its first target. No key
# has to be allowed this model.
_ANY = {"model": "any", "prompt": ""}


def blueprint(gateway: Gateway, directory: StoreCache, settings: Settings) -> Blueprint:
    """The list of models, asked of the provider by *gateway*."""
    routes = Blueprint("models", __name__)

    @routes.get("/v1/models", strict_slashes=False)
    def models() -> Response:
        asked = request()
        given = RequestHeaders(asked.environ)
        caller = authentication.caller(given, directory, settings, asked.environ)
        wanted = routing_headers.wanted(given, caller)
        wanted = with_default_route(wanted, _ANY, settings)
        way = route(wanted, _ANY, asked.path, None, authorize_listing)
        target = next(targets(way.root))
        g.trace = Trace(target=target)
        outcome = gateway.models(target, way.permissions)
        assert isinstance(outcome.body, bytes)
        body = _allowed(outcome.body, way.permissions)
        shown = caller_headers(outcome.headers)
        return Response(body, 200, shown, content_type="application/json")

    return routes


def _allowed(listing: bytes, permissions: Permissions) -> bytes:
    """*listing* without the models that the caller's key may not ask for."""
    key = permissions.key
    if key is None or "models" not in key.allowed:
        return listing
    document = read_object(listing)
    with malformed_as_upstream_error(listing):
        models = document["data"]
        document["data"] = [m for m in models if key.may_use("models", str(m["id"]))]
    return orjson.dumps(document)
