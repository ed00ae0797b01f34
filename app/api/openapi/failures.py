"""Error responses by status, generated from the tree of errors.

A new error class in app/errors.py appears here by itself: its status as a response, the
first sentence of its docstring as a part of the description.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Literal

from apispec import APISpec

from ... import errors
from ...errors import GatewayError
from . import headers
from .schemas import Shape, ref

Status = int | Literal["default"]

# A provider's error keeps its own status, which "default" stands for. A client that has
# hung up gets no response.
_UNLISTED = (errors.UpstreamStatus, errors.UpstreamInBand, errors.CallerLeft)

# Statuses that are set where an error is raised, and not by its class.
_STATUS_REASONS = {
    500: "The gateway failed, and its log says why.",
    408: "Slower than the request's own limit; or its body did not arrive in time.",
    415: "A body that is compressed.",
}

# The additional headers of errors that concern the path: no target was called.
_PATH_HEADERS: Mapping[Status, tuple[Shape, ...]] = {404: (), 405: (headers.ALLOW,)}

# OpenAPI's key for any status that is not listed.
UPSTREAM_STATUS: Literal["default"] = "default"
_UPSTREAM = (
    "The provider's own status and message; or the server's, to what is no HTTP."
)


def _error_classes(
    root: type[GatewayError] = GatewayError,
) -> Iterator[type[GatewayError]]:
    # The classes that are imported by now, hence those that can be raised.
    yield root
    for child in root.__subclasses__():
        yield from _error_classes(child)


def _class_reasons() -> dict[int, list[str]]:
    """The first sentences of the docstrings of all errors, by status."""
    reasons: dict[int, list[str]] = {}
    for error in _error_classes():
        # Subclasses in other modules are details of those.
        if error.__module__ == errors.__name__ and error not in _UNLISTED:
            # "Sentence. More." and "Sentence" both become "Sentence."
            line = str(error.__doc__).partition("\n")[0]
            sentence = line.partition(". ")[0].rstrip(".") + "."
            reasons.setdefault(error.status, []).append(sentence)
    return reasons


def statuses() -> list[int]:
    """The error statuses of the gateway's own for a completion."""
    # 404 is no answer to a path that exists.
    return sorted({*_class_reasons(), *_STATUS_REASONS} - {404})


def describe(spec: APISpec) -> None:
    """Add all failures to *spec*."""
    reasons = _class_reasons()
    for status in (*statuses(), 404):
        phrase = HTTPStatus(status).phrase
        # Several classes may say the same; `dict.fromkeys` keeps the first, in order.
        text = _STATUS_REASONS.get(status) or " ".join(dict.fromkeys(reasons[status]))
        spec.components.response(_name(status), _response(status, f"{phrase}. {text}"))
    upstream = _response(UPSTREAM_STATUS, _UPSTREAM)
    spec.components.response(_name(UPSTREAM_STATUS), upstream)


def refs(*statuses: Status) -> dict[str, Shape]:
    """References to the answers with these statuses."""
    return {
        str(status): {"$ref": f"#/components/responses/{_name(status)}"}
        for status in statuses
    }


def _name(status: Status) -> str:
    return f"Failure-{status}"


def _response(status: Status, description: str) -> Shape:
    # A faulty header or config gets both error formats, see InvalidRoute.
    schema = {"anyOf": [ref("RouteError"), ref("Error")]} if status == 400 else None
    call_headers = headers.TARGET, headers.FAILURE, headers.UPSTREAM
    more = _PATH_HEADERS.get(status, call_headers)
    return {
        "description": description,
        "headers": headers.refs(headers.IDENTIFYING, *more),
        "content": {"application/json": {"schema": schema or ref("Error")}},
    }
