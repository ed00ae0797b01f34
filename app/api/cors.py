"""CORS, for web pages that call the endpoint themselves.

Source: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from collections.abc import Collection

from flask import Flask, Response, request

_EXPOSED = (
    "x-request-id, retry-after, x-portkey-provider, x-portkey-trace-id, "
    "x-portkey-last-used-option-index, x-portkey-retry-attempt-count, "
    "x-portkey-cache-status, x-lastword-applied-defaults"
)

# Characters of the caller's own that an answer repeats.
_LONGEST = 1000


def register(app: Flask, origins: Collection[str]) -> None:
    """Let pages from *origins* in (`*`: from anywhere). Without origins, do nothing."""
    if not origins:
        return

    @app.before_request
    def preflight() -> Response | None:
        asked = "Access-Control-Request-Method" in request.headers
        return Response(status=204) if request.method == "OPTIONS" and asked else None

    @app.after_request
    def allow(response: Response) -> Response:
        response.vary.add("Origin")
        origin = request.headers.get("Origin", "")[:_LONGEST]
        if origin and ("*" in origins or origin in origins):
            _grant(response, origin)
        return response


def _grant(response: Response, origin: str) -> None:
    headers = response.headers
    headers["Access-Control-Allow-Origin"] = origin
    headers["Access-Control-Expose-Headers"] = _EXPOSED
    if request.method == "OPTIONS":
        asked = request.headers.get("Access-Control-Request-Headers", "")[:_LONGEST]
        headers["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
        headers["Access-Control-Allow-Headers"] = asked or "authorization, content-type"
        headers["Access-Control-Max-Age"] = "600"
