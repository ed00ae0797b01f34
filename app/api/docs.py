"""GET /openapi.json, and a page to read it on: Swagger UI, from its package.

The page loads nothing from elsewhere, and runs no script but ours and that package's.
"""

from functools import cache
from importlib.resources import files

import orjson
from flask import Blueprint, Response, current_app

from ..errors import NotFound
from ..settings import Settings
from .request.headers import request

# Relative, so that it also works where a proxy puts the gateway under a prefix.
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
# Its validator is on another host.
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
_GUARDED = {
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
    """The document of the application that this is registered with, and its page."""
    routes = Blueprint("docs", __name__)

    @cache
    def written() -> bytes:
        # It costs memory at rest, which most workers never need.
        from .openapi.document import document

        return orjson.dumps(document(current_app.url_map, settings))

    @routes.get("/openapi.json")
    def document() -> Response:
        return Response(written(), content_type="application/json")

    @routes.get("/docs")
    def page() -> Response:
        return Response(_PAGE, headers=_GUARDED, mimetype="text/html")

    @routes.get("/docs/<name>")
    def asset(name: str) -> Response:
        if name == "start.js":
            return _kept(_START.encode(), "text/javascript")
        if name not in _ASSETS:
            raise NotFound(f"The page has no {name[:80]!r}.", code="invalid_url")
        content = files(_PACKAGE).joinpath("dist", name).read_bytes()
        return _kept(content, _ASSETS[name])

    return routes


def _kept(content: bytes, kind: str) -> Response:
    """What a browser need not load again until it changes."""
    response = Response(content, headers=_GUARDED, mimetype=kind)
    response.add_etag()
    response.make_conditional(request())
    return response
