"""Every failure as JSON in OpenAI's shape; never an HTML page, never a stack trace."""

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
from .routing.auth_throttle import AuthThrottle
from .routing.routing_headers import of_failure

logger = logging.getLogger("lastword")


def register(app: Flask, slowdown: AuthThrottle, settings: Settings) -> None:
    """Have *app* answer in this way whatever goes wrong.

    Who sends wrong keys again and again waits, as *slowdown* says. A right key that is
    not for something, or no key at all, is no guess.
    """

    def refuse(error: WrongKey) -> Response:
        try:
            slowdown.wrong(throttle_key(request.environ, settings))
        except TooManyWrongKeys as e:
            return _answer(e)
        return _answer(error)

    app.register_error_handler(GatewayError, _answer)
    app.register_error_handler(WrongKey, refuse)
    app.register_error_handler(HTTPException, _of_werkzeug)
    app.register_error_handler(Exception, _unexpected)


def _answer(error: GatewayError) -> Response:
    release(error)
    body = orjson.dumps(error.to_body())
    kept = caller_headers(error.headers)
    if "trace" in g:
        kept |= of_failure(g.trace, error)
    return Response(body, error.status, kept, content_type="application/json")


def _of_werkzeug(error: HTTPException) -> Response:
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        response = _answer(
            errors.MethodNotAllowed(
                f"{request.method} is not allowed here; allowed: {allowed}.",
                code="method_not_supported",
            )
        )
        response.headers["Allow"] = allowed
        return response
    if isinstance(error, PathNotFound):
        seen = f"{request.method} {request.path[:200]}"
        return _answer(errors.NotFound(f"Invalid URL ({seen})", code="invalid_url"))
    message = str(error.description or error.name)
    return _answer(GatewayError(message, status=error.code or 500))


def _unexpected(error: Exception) -> Response:
    path = request.path[:200]
    logger.error("%s %s failed", request.method, path, exc_info=error)
    release(error)
    message = "The gateway failed to answer this request. Its log says why."
    return _answer(GatewayError(message))
