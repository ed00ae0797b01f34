"""Reads the body of a request: a JSON object of bounded length."""

from typing import Any

from flask import Request
from gunicorn.http.errors import ParseException

from .. import documents
from ..errors import BodyTooLarge, InvalidRequest

# Bytes of a body that is too large which are read all the same, so that a caller who is
# still sending gets to see the answer instead of a broken connection.
_DRAINED = 64 * 2**20


def json_object(request: Request, limit: int) -> dict[str, Any]:
    """The body of *request*. Raises InvalidRequest; BodyTooLarge over *limit* bytes."""
    body = _read(request, limit)
    try:
        document = documents.load(body)
    except ValueError as e:
        raise InvalidRequest(
            "We could not parse the JSON body of your request. (HINT: This likely "
            "means you aren't using your HTTP library correctly. The endpoint expects "
            f"a JSON payload, but what was sent was not valid JSON: {e}.)"
        ) from e
    if not isinstance(document, dict):
        raise InvalidRequest(
            "The body of your request must be a JSON object, such as "
            '{"model": "...", "prompt": "..."}.'
        )
    return document


def _read(request: Request, limit: int) -> bytes:
    try:
        body = _at_most(request, limit)
    except (OSError, ParseException) as e:
        raise InvalidRequest(
            "The body of your request broke off, or is framed wrongly."
        ) from e
    if body is not None:
        return body
    raise BodyTooLarge(
        f"The body of your request is longer than {limit} bytes.",
        code="request_too_large",
    )


def _at_most(request: Request, limit: int) -> bytes | None:
    """The body; None if it is longer than *limit* bytes."""
    if (request.content_length or 0) <= limit:
        body: bytes = request.stream.read(limit + 1)
        if len(body) <= limit:
            return body
    _drain(request)
    return None


def _drain(request: Request) -> None:
    left = _DRAINED
    while left > 0 and (block := request.stream.read(min(left, 65536))):
        left -= len(block)
