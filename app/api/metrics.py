"""GET /metrics, for Prometheus."""

import hmac
from collections.abc import Callable

from flask import Blueprint, Request, Response, g, request

from ..errors import NotFound, Unauthorized, WrongKey
from ..observability.dispatcher import BackgroundDispatcher
from ..observability.metrics import Metrics
from ..settings import Settings
from .request.client_address import is_direct

_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def blueprint(
    metrics: Metrics, later: BackgroundDispatcher, settings: Settings
) -> Blueprint:
    """What *metrics* counts, also what *later* has not told it yet.

    Who asks from elsewhere, or through a proxy, needs the token; where none is set,
    nobody but this machine may reach the gateway.
    """
    routes = Blueprint("metrics", __name__)

    @routes.get("/metrics")
    def tell() -> Response:
        _check(request, settings)
        later.flush()
        return Response(metrics.text(), content_type=_TYPE)

    return routes


def refusals(metrics: Metrics) -> Callable[[Response], Response]:
    """Counts the requests that the endpoint refuses before they go anywhere."""

    def count(response: Response) -> Response:
        refused = response.status_code >= 400 and "trace" not in g
        if refused and request.blueprint == "completions":
            metrics.count_refusal(response.status_code)
        return response

    return count


def _check(asked: Request, settings: Settings) -> None:
    token, sent = settings.metrics_token, asked.headers.get("Authorization", "")
    if not token:
        if not is_direct(asked.environ, settings):
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
