"""The console: pages for those who run the gateway. Off without a token.

Pages are made here, and work without anything from elsewhere; what moves in them is
plain JavaScript below static/. Nothing of this is loaded where the console is off.
"""

from collections.abc import Mapping

from flask import Blueprint, Response, render_template, request
from flask.typing import ResponseReturnValue

from ..errors import GatewayError
from . import configs, formatting, overview, playground, requests
from .login import Login
from .services import ConsoleServices

__all__ = ["ConsoleServices", "blueprint"]

# No page may load, send or be framed by anything of another place. There is nothing
# inline either.
_POLICY = "; ".join(
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
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def blueprint(parts: ConsoleServices) -> Blueprint:
    """The console of a gateway, below /console, for who has its token."""
    routes = Blueprint(
        "console",
        __name__,
        url_prefix="/console",
        template_folder="templates",
        static_folder="static",
    )
    door = Login(parts.settings, parts.gateway.metering.meter)
    door.guard(routes)
    routes.context_processor(lambda: {"words": formatting})
    for pages in (overview, requests, playground, configs):
        pages.register(routes, parts)
    routes.after_request(_protected)
    routes.register_error_handler(GatewayError, _failed)
    return routes


def _protected(response: Response) -> Response:
    # What was too long is still to be taken in and thrown away.
    request.max_content_length = None
    _say(response, _HEADERS)
    is_asset = request.endpoint == "console.static"
    response.headers["Cache-Control"] = "no-cache" if is_asset else "no-store"
    return response


def _say(response: Response, headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        response.headers[name] = value


def _failed(error: GatewayError) -> ResponseReturnValue:
    """A page that says so; for a script, the error as everywhere."""
    if request.is_json:
        return error.to_body(), error.status
    return render_template("console/failed.html", error=error), error.status
