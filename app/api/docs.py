"""GET /openapi.json, and Swagger UI at /docs, served from its package.

The page loads nothing from other hosts and runs no inline scripts, and its content
security policy enforces both.
"""

from functools import cache
from importlib.resources import files

import orjson
from flask import Blueprint, Response, current_app

from ..errors import NotFound
from ..settings import Settings
from .request.headers import current_request

# Its links are relative, so that it works behind a proxy that adds a prefix.
_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>lastword</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="page"></div>
<noscript>Without scripts: <a href="openapi.json">openapi.json</a></noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
# validatorUrl is null since the validator is a service on another host.
_START = """\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SECURITY_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

_PACKAGE = "flask_swagger_ui"
_ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}


def blueprint(settings: Settings) -> Blueprint:
    """The OpenAPI document of the application, and the page that shows it."""
    routes = Blueprint("docs", __name__)

    @cache
    def document_json() -> bytes:
        # Imported on demand: apispec takes memory that most workers never need.
        from .openapi.document import document

        return orjson.dumps(document(current_app.url_map, settings))

    @routes.get("/openapi.json")
    def document() -> Response:
        return Response(document_json(), content_type="application/json")

    @routes.get("/docs")
    def page() -> Response:
        return Response(_PAGE, headers=_SECURITY_HEADERS, mimetype="text/html")

    @routes.get("/docs/<name>")
    def asset(name: str) -> Response:
        if name == "start.js":
            return _cacheable(_START.encode(), "text/javascript")
        if name not in _ASSETS:
            raise NotFound(f"The page has no {name[:80]!r}.", code="invalid_url")
        content = files(_PACKAGE).joinpath("dist", name).read_bytes()
        return _cacheable(content, _ASSETS[name])

    return routes


def _cacheable(content: bytes, mimetype: str) -> Response:
    """A response with an ETag, or a 304 if the browser has the same content."""
    response = Response(content, headers=_SECURITY_HEADERS, mimetype=mimetype)
    response.add_etag()
    response.make_conditional(current_request())
    return response
