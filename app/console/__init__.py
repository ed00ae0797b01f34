"""The console: pages for operators of the gateway. Off without a token.

Pages are rendered here and work without JavaScript; only live updates and the
playground need the plain JavaScript in static/. Where the console is off, nothing of
this package is imported.
"""

from flask import Blueprint, Response, render_template, request
from flask.typing import ResponseReturnValue

from ..errors import GatewayError
from . import configs, formatting, overview, playground, requests
from .login import Login
from .services import ConsoleServices

__all__ = ["ConsoleServices", "blueprint"]

# No page may load or send anything from or to another origin, or be framed by one.
# There are no inline scripts or styles: an injected one would not run, should a text of
# a caller, such as a model's name, ever get into a page unescaped.
_CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

_HEADERS = {
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def blueprint(services: ConsoleServices) -> Blueprint:
    """The console of a gateway, below /console, for the holder of its token."""
    routes = Blueprint(
        "console",
        __name__,
        url_prefix="/console",
        template_folder="templates",
        static_folder="static",
    )
    login = Login(services.settings, services.gateway.metering.meter)
    login.protect(routes)
    # For every template: `formatting.money(...)`.
    routes.context_processor(lambda: {"formatting": formatting})
    # Each module adds its own pages, which close over the services.
    for pages in (overview, requests, playground, configs):
        pages.register(routes, services)

    @routes.after_request
    def add_headers(response: Response) -> Response:
        # The limit that login.py has set is lifted: Werkzeug reads the rest of a form
        # that was too long, so that the client gets the response.
        request.max_content_length = None
        for name, value in _HEADERS.items():
            response.headers[name] = value
        # "no-cache" means: ask each time whether it has changed (304). Pages hold CSRF
        # tokens and names of keys, and are not stored at all.
        is_asset = request.endpoint == "console.static"
        response.headers["Cache-Control"] = "no-cache" if is_asset else "no-store"
        return response

    @routes.errorhandler(GatewayError)
    def error_page(error: GatewayError) -> ResponseReturnValue:
        # Scripts get JSON, as on all other paths of the gateway.
        if request.is_json:
            return error.to_body(), error.status
        return render_template("console/failed.html", error=error), error.status

    return routes
