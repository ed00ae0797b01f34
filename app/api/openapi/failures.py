"""What is answered when something fails: by status, from the tree of errors."""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Literal

from apispec import APISpec

from ... import errors
from ...errors import GatewayError
from . import headers
from .schemas import Shape, ref

Status = int | Literal["default"]

# A provider's own status is kept, so that these can have any; and nobody reads what is
# said to a caller who has left.
_UNLISTED = (errors.UpstreamStatus, errors.UpstreamInBand, errors.CallerLeft)

# Statuses that are chosen where an error is raised, and not by its class.
_CHOSEN = {
    500: "The gateway failed, and its log says why.",
    408: "Slower than the request's own limit; or its body did not arrive in time.",
    415: "A body that is compressed.",
}

# What is told of these, which are about the path: nobody was asked.
_OF_PATH: Mapping[Status, tuple[Shape, ...]] = {404: (), 405: (headers.ALLOW,)}

# Any other status.
OF_UPSTREAM: Literal["default"] = "default"
_ANY = "The provider's own status and message; or the server's, to what is no HTTP."


def _tree(root: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def _reasons() -> dict[int, list[str]]:
    """Why each status is answered, in the words of the errors that have it."""
    told: dict[int, list[str]] = {}
    for error in _tree():
        if error.__module__ == errors.__name__ and error not in _UNLISTED:
            told.setdefault(error.status, []).append(_first(str(error.__doc__)))
    return told


def _first(text: str) -> str:
    return text.partition("\n")[0].partition(". ")[0].rstrip(".") + "."


def statuses() -> list[int]:
    """All that the gateway itself answers a request for a completion with."""
    return sorted({*_reasons(), *_CHOSEN} - {404})


def describe(spec: APISpec) -> None:
    """Put all of them into *spec*."""
    reasons = _reasons()
    for status in (*statuses(), 404):
        phrase = HTTPStatus(status).phrase
        why = _CHOSEN.get(status) or " ".join(dict.fromkeys(reasons[status]))
        spec.components.response(_name(status), _response(status, f"{phrase}. {why}"))
    spec.components.response(_name(OF_UPSTREAM), _response(OF_UPSTREAM, _ANY))


def refs(*wanted: Status) -> dict[str, Shape]:
    """The answers with these statuses, by reference."""
    return {
        str(status): {"$ref": f"#/components/responses/{_name(status)}"}
        for status in wanted
    }


def _name(status: Status) -> str:
    return f"Failure-{status}"


def _response(status: Status, about: str) -> Shape:
    shape = {"anyOf": [ref("RouteError"), ref("Error")]} if status == 400 else None
    told = _OF_PATH.get(status, (headers.OF_WAY, headers.OF_FAILURE, headers.PASSED_ON))
    return {
        "description": about,
        "headers": headers.refs(headers.SIGNED, *told),
        "content": {"application/json": {"schema": shape or ref("Error")}},
    }
