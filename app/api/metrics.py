"""GET /metrics, for Prometheus."""

import hmac

from flask import Blueprint, Request, Response, g, request

from ..errors import NotFound, Unauthorized, WrongKey
from ..observability.dispatcher import BackgroundDispatcher
from ..observability.metrics import Metrics
from ..settings import Settings
from .request.client_address import is_direct

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def blueprint(
    metrics: Metrics, dispatcher: BackgroundDispatcher, settings: Settings
) -> Blueprint:
    """The endpoint; *dispatcher* reports the latest requests to *metrics* before."""
    routes = Blueprint("metrics", __name__)

    @routes.get("/metrics")
    def scrape() -> Response:
        _authorize(request, settings)
        dispatcher.flush()
        return Response(metrics.text(), content_type=_CONTENT_TYPE)

    return routes


def count_refusal(metrics: Metrics, status: int) -> None:
    """Count an error that a request for a completion got before it had a trace."""
    if "trace" not in g and request.blueprint == "completions":
        metrics.count_refusal(status)


def _authorize(request: Request, settings: Settings) -> None:
    """Raise an error unless *request* has the token.

    Without a token in the settings only direct requests of this machine are answered,
    and only if no other machine can connect.
    """
    token, sent = settings.metrics_token, request.headers.get("Authorization", "")
    if not token:
        if not is_direct(request.environ, settings):
            raise NotFound(
                "/metrics is there when GATEWAY_METRICS_TOKEN is set, since others "
                "than this machine reach this gateway.",
                code="invalid_url",
            )
    elif not hmac.compare_digest(sent.encode(), f"Bearer {token}".encode()):
        refusal = WrongKey if sent else Unauthorized
        raise refusal(
            "/metrics wants GATEWAY_METRICS_TOKEN, as Authorization: Bearer ...",
            code="invalid_token",
        )
