"""Error handlers: failures become JSON in OpenAI's format, without tracebacks."""

import logging

import orjson
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.exceptions import NotFound as PathNotFound

from .. import errors
from ..core.response_headers import caller_headers
from ..errors import GatewayError, TooManyWrongKeys, WrongKey, release
from ..settings import Settings
from .request.client_address import throttle_key
from .response import failure_headers
from .routing.auth_throttle import AuthThrottle

logger = logging.getLogger("lastword")


def register(app: Flask, throttle: AuthThrottle, settings: Settings) -> None:
    """Register the error handlers of *app*.

    *throttle* counts wrong keys only: a correct key without permission is no guess, and
    neither is a missing one.
    """

    def wrong_key(error: WrongKey) -> Response:
        try:
            throttle.record_failure(throttle_key(request.environ, settings))
        except TooManyWrongKeys as e:
            return _error_response(e)
        return _error_response(error)

    app.register_error_handler(GatewayError, _error_response)
    app.register_error_handler(WrongKey, wrong_key)
    app.register_error_handler(HTTPException, _http_exception)
    app.register_error_handler(Exception, _unexpected_exception)


def _error_response(error: GatewayError) -> Response:
    # Its traceback holds the request's frames, and with them prompts and keys.
    release(error)
    body = orjson.dumps(error.to_body())
    headers = caller_headers(error.headers)
    if "trace" in g:
        headers |= failure_headers(g.trace, error)
    return Response(body, error.status, headers, content_type="application/json")


def _http_exception(error: HTTPException) -> Response:
    """The response to an exception of Werkzeug's, such as one of its router."""
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        response = _error_response(
            errors.MethodNotAllowed(
                f"{request.method} is not allowed here; allowed: {allowed}.",
                code="method_not_supported",
            )
        )
        response.headers["Allow"] = allowed
        return response
    # OpenAI's own wording for an unknown path.
    if isinstance(error, PathNotFound):
        url = f"{request.method} {request.path[:200]}"
        not_found = errors.NotFound(f"Invalid URL ({url})", code="invalid_url")
        return _error_response(not_found)
    message = str(error.description or error.name)
    return _error_response(GatewayError(message, status=error.code or 500))


def _unexpected_exception(error: Exception) -> Response:
    path = request.path[:200]
    logger.error("%s %s failed", request.method, path, exc_info=error)
    release(error)
    message = "The gateway failed to answer this request. Its log says why."
    return _error_response(GatewayError(message))
