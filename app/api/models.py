"""GET /v1/models: the models of the provider that the request is routed to."""

import orjson
from flask import Blueprint, Response, g

from ..core.permissions import Permissions
from ..core.response_headers import caller_headers
from ..core.routing import targets
from ..gateway.authorization import authorize_listing
from ..gateway.pipeline import Gateway
from ..gateway.retries import Trace
from ..providers.parsing.json_answers import malformed_as_upstream_error, read_object
from ..settings import Settings
from ..store.store_cache import StoreCache
from .request.headers import current_request, request_headers
from .routing.authentication import authenticate
from .routing.default_route import with_default_route
from .routing.route_builder import build_route
from .routing.routing_headers import parse_routing_headers

# Routes are built for completions, so a request for the list has the body of one. Its
# model is not checked against the gateway key.
_ANY_COMPLETION = {"model": "any", "prompt": ""}


def blueprint(gateway: Gateway, directory: StoreCache, settings: Settings) -> Blueprint:
    """The endpoint, which asks the first target of the route for its list."""
    routes = Blueprint("models", __name__)

    @routes.get("/v1/models", strict_slashes=False)
    def models() -> Response:
        request, body = current_request(), _ANY_COMPLETION
        headers = request_headers(request.environ)
        caller = authenticate(headers, directory, settings, request.environ)
        routing = parse_routing_headers(headers, caller)
        if not routing.names_route:
            routing = with_default_route(routing, body, settings)
        route = build_route(routing, body, request.path, None, authorize_listing)
        target = next(targets(route.root))
        g.trace = Trace(target=target)
        outcome = gateway.models(target, route.permissions)
        assert isinstance(outcome.body, bytes)
        listing = _allowed_models(outcome.body, route.permissions)
        passed = caller_headers(outcome.headers)
        return Response(listing, 200, passed, content_type="application/json")

    return routes


def _allowed_models(listing: bytes, permissions: Permissions) -> bytes:
    """*listing* without the models that the gateway key does not allow."""
    key = permissions.key
    if key is None or "models" not in key.allowed:
        return listing
    document = read_object(listing)
    with malformed_as_upstream_error(listing):
        models = document["data"]
        document["data"] = [m for m in models if key.may_use("models", str(m["id"]))]
    return orjson.dumps(document)
