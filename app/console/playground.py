"""A place to try the endpoint. The page itself asks it, as any caller would."""

from typing import Any

from flask import Blueprint, jsonify, render_template, request
from flask.typing import ResponseReturnValue

from ..errors import InvalidRequest
from ..providers.catalog.known_names import KNOWN_NAMES
from . import snippets
from .services import ConsoleServices
from .snippets import Asked


def register(routes: Blueprint, parts: ConsoleServices) -> None:
    """The page, and how its request would be written elsewhere."""

    @routes.get("/playground")
    def playground() -> ResponseReturnValue:
        return render_template(
            "console/playground.html",
            providers=KNOWN_NAMES,
            configs=sorted(parts.directory.configs),
            engine=parts.settings.engine,
        )

    @routes.post("/playground/snippets")
    def written() -> ResponseReturnValue:
        return jsonify(snippets.all_of(_asked(request.get_json())))


def _asked(given: Any) -> Asked:
    if not isinstance(given, dict):
        raise InvalidRequest("An object is wanted: headers, body, has_key.")
    headers, body = given.get("headers"), given.get("body")
    if not isinstance(headers, dict) or not isinstance(body, dict):
        raise InvalidRequest("headers and body have to be objects.")
    told = {str(k): str(v) for k, v in headers.items()}
    kept = {k: v for k, v in told.items() if k.lower() != "authorization"}
    url = snippets.address(request.host_url)
    has_key = bool(given.get("has_key"))
    return Asked(url, snippets.without_secrets(kept), body, has_key)
