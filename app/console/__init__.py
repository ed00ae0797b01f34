"""The console: pages for those who run the gateway. Off without a token.

Pages are rendered here and work without JavaScript; what updates in them is plain
JavaScript below static/. Nothing of this package is loaded where the console is off.
"""

from flask import Blueprint, Response, render_template, request
from flask.typing import ResponseReturnValue

from ..errors import GatewayError
from . import configs, formatting, overview, playground, requests
from .login import Login
from .services import ConsoleServices

__all__ = ["ConsoleServices", "blueprint"]

# No page may load or send anything from or to another origin, or be framed by one.
# There are no inline scripts or styles.
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
    routes.context_processor(lambda: {"formatting": formatting})
    for pages in (overview, requests, playground, configs):
        pages.register(routes, services)

    @routes.after_request
    def add_headers(response: Response) -> Response:
        # Werkzeug has to drain the rest of a form that was too long.
        request.max_content_length = None
        for name, value in _HEADERS.items():
            response.headers[name] = value
        is_asset = request.endpoint == "console.static"
        response.headers["Cache-Control"] = "no-cache" if is_asset else "no-store"
        return response

    @routes.errorhandler(GatewayError)
    def error_page(error: GatewayError) -> ResponseReturnValue:
        # For a script, JSON like everywhere else.
        if request.is_json:
            return error.to_body(), error.status
        return render_template("console/failed.html", error=error), error.status

    return routes
