"""CORS, for web pages that call the endpoint directly.

Source: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from collections.abc import Collection

from flask import Flask, Response, request

_EXPOSED = (
    "x-request-id, retry-after, x-portkey-provider, x-portkey-trace-id, "
    "x-portkey-last-used-option-index, x-portkey-retry-attempt-count, "
    "x-portkey-cache-status, x-lastword-applied-defaults"
)

# Characters of a request header that are repeated in the answer.
_MAX_LENGTH = 1000


def register(app: Flask, origins: Collection[str]) -> None:
    """Allow pages of these *origins* (`*`: of all). Without origins, do nothing."""
    if not origins:
        return

    @app.before_request
    def preflight() -> Response | None:
        is_preflight = (
            request.method == "OPTIONS"
            and "Access-Control-Request-Method" in request.headers
        )
        return Response(status=204) if is_preflight else None

    @app.after_request
    def allow(response: Response) -> Response:
        response.vary.add("Origin")
        origin = request.headers.get("Origin", "")[:_MAX_LENGTH]
        if not (origin and ("*" in origins or origin in origins)):
            return response
        headers = response.headers
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = _EXPOSED
        if request.method == "OPTIONS":
            names = request.headers.get("Access-Control-Request-Headers", "")
            names = names[:_MAX_LENGTH] or "authorization, content-type"
            headers["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
            headers["Access-Control-Allow-Headers"] = names
            headers["Access-Control-Max-Age"] = "600"
        return response
