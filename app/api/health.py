"""Health checks, for load balancers and orchestrators."""

from flask import Blueprint, Response, jsonify

from ..gateway.clients.connections import ClientConnections
from ..upstream.embedded_engine import EmbeddedEngine


def blueprint(engine: EmbeddedEngine, callers: ClientConnections) -> Blueprint:
    """`/healthz` is about this process alone, `/readyz` also about its engine.

    A process that is draining before its end is not ready.
    """
    routes = Blueprint("health", __name__)

    @routes.get("/")
    def hello() -> Response:
        return Response(
            "lastword answers POST /v1/completions\n", mimetype="text/plain"
        )

    @routes.get("/healthz")
    def alive() -> Response:
        return jsonify(status="ok")

    @routes.get("/readyz")
    def ready() -> tuple[Response, int]:
        if callers.is_draining:
            return jsonify(status="draining", engine=engine.state), 503
        loading = engine.state == "on" and not engine.is_loaded()
        state = "loading" if loading else engine.state
        status = 503 if state in ("loading", "missing") else 200
        return jsonify(status="ok" if status == 200 else state, engine=state), status

    return routes
