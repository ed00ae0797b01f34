"""Reads the body of a request: a JSON object of bounded length."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flask import Request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import RequestEntityTooLarge

from ... import safe_json
from ...errors import BodyTooLarge, InvalidRequest
from .headers import RequestHeaders

# Fields of a body. The endpoint knows 18, and each target of a config may change them.
_MOST_FIELDS = 1000

# Bytes of a body that is too large which are read all the same, and for how many
# seconds, so that a caller who is still sending gets to see the answer instead of a
# broken connection.
_DRAINED, _DRAINING = 64 * 2**20, 10.0

# Seconds for which a caller may fall silent in the middle of a body, and of one that is
# too large anyway.
_PATIENCE, _PAUSE = 60.0, 1.0


def json_object(
    request: Request, limit: int, patience: float = _PATIENCE
) -> dict[str, Any]:
    """The body of *request*. Raises InvalidRequest; BodyTooLarge over *limit* bytes."""
    with _waiting(request, patience):
        body = _read(request, limit)
    _refuse_encoded(request)
    try:
        document = safe_json.load(body)
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
    if len(document) > _MOST_FIELDS:
        raise InvalidRequest(
            f"The body of your request has {len(document)} fields, and at most "
            f"{_MOST_FIELDS} are allowed.",
            code="too_many_fields",
        )
    return document


def _refuse_encoded(request: Request) -> None:
    """A small body may unfold to a large one, so none is unfolded."""
    encoding = (
        RequestHeaders(request.environ).get("content-encoding", "").strip().lower()
    )
    if encoding not in ("", "identity"):
        raise InvalidRequest(
            f"Unsupported content encoding: {encoding[:40]!r}. Send the body of your "
            "request as it is.",
            code="unsupported_content_encoding",
            status=415,
        )


@contextmanager
def _waiting(request: Request, seconds: float) -> Iterator[None]:
    """Give the caller so many seconds for each piece, where the server lets us."""
    connection = request.environ.get("gunicorn.socket")
    if connection is None:
        yield
        return
    before = connection.gettimeout()
    connection.settimeout(seconds)
    try:
        yield
    finally:
        connection.settimeout(before)


def _read(request: Request, limit: int) -> bytes:
    try:
        body = _at_most(request, limit)
    except TimeoutError as e:
        raise InvalidRequest(
            "The body of your request did not arrive in time.", status=408
        ) from e
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
    drain(request)
    return None


def drain(request: Request) -> None:
    """Take what is still on its way, and throw it away: to close upon it would be a
    reset, which overtakes the answer.
    """
    left, until = _DRAINED, time.monotonic() + _DRAINING
    ends = OSError, ParseException, RequestEntityTooLarge
    with suppress(*ends), _waiting(request, _PAUSE):
        while left > 0 and time.monotonic() < until:
            left -= len(request.stream.read(min(left, 65536))) or left
