"""The playground: a form whose JavaScript calls the endpoint, like any client.

Nothing here sends a completion: the page does, with the key that the operator types in,
which the console never sees.
"""

from typing import Any

from flask import Blueprint, jsonify, render_template, request
from flask.typing import ResponseReturnValue

from ..errors import InvalidRequest
from ..providers.catalog.known_names import KNOWN_NAMES
from . import snippets
from .services import ConsoleServices
from .snippets import SnippetRequest


def register(routes: Blueprint, services: ConsoleServices) -> None:
    """Add the page, and the code snippets for its request, to *routes*."""

    @routes.get("/playground")
    def playground() -> ResponseReturnValue:
        return render_template(
            "console/playground.html",
            providers=KNOWN_NAMES,
            configs=sorted(services.store.configs),
            engine=services.settings.engine,
        )

    @routes.post("/playground/snippets", endpoint="snippets")
    def snippets_of_request() -> ResponseReturnValue:
        document: Any = request.get_json()
        if not isinstance(document, dict):
            raise InvalidRequest("An object is wanted: headers, body, has_key.")
        headers, body = document.get("headers"), document.get("body")
        if not isinstance(headers, dict) or not isinstance(body, dict):
            raise InvalidRequest("headers and body have to be objects.")
        # The page does not send it; this is for a header that was typed in by hand.
        others = {
            str(name): str(value)
            for name, value in headers.items()
            if str(name).lower() != "authorization"
        }
        sent = SnippetRequest(
            snippets.origin(request.host_url),
            snippets.without_secrets(others),
            body,
            bool(document.get("has_key")),
        )
        return jsonify(snippets.all_snippets(sent))
