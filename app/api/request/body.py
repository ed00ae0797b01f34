"""Reads the body of a request: a JSON object of bounded size."""

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

# Fields of a body. The endpoint has 18, and each target of a config copies them.
_MAX_FIELDS = 1000

# Bytes of a refused body that are still read, and the seconds for that, so that a
# client that is still sending gets the answer instead of a connection reset.
_MAX_DRAINED_BYTES, _MAX_DRAIN_TIME = 64 * 2**20, 10.0

# Seconds of silence in the middle of a body, and of one that is being drained.
_READ_TIMEOUT, _DRAIN_READ_TIMEOUT = 60.0, 1.0


def json_object(
    request: Request,
    headers: RequestHeaders,
    limit: int,
    timeout: float = _READ_TIMEOUT,
) -> dict[str, Any]:
    """The body of *request*. Raises InvalidRequest; BodyTooLarge over *limit* bytes."""
    body = _read(request, limit, timeout)
    # A small compressed body may expand to a huge one, so none is decompressed.
    encoding = headers.get("content-encoding", "")
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity"):
        raise InvalidRequest(
            f"Unsupported content encoding: {encoding[:40]!r}. Send the body of your "
            "request as it is.",
            code="unsupported_content_encoding",
            status=415,
        )
    try:
        # Windows' tools write one, and parsers may ignore it:
        # https://www.rfc-editor.org/rfc/rfc8259#section-8.1
        document = safe_json.load(body.removeprefix(safe_json.BYTE_ORDER_MARK))
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
    if len(document) > _MAX_FIELDS:
        raise InvalidRequest(
            f"The body of your request has {len(document)} fields, and at most "
            f"{_MAX_FIELDS} are allowed.",
            code="too_many_fields",
        )
    return document


def _read(request: Request, limit: int, timeout: float) -> bytes:
    try:
        with _socket_timeout(request, timeout):
            if (request.content_length or 0) <= limit:
                body: bytes = request.stream.read(limit + 1)
                if len(body) <= limit:
                    return body
            drain(request)
    except TimeoutError as e:
        raise InvalidRequest(
            "The body of your request did not arrive in time.", status=408
        ) from e
    except (OSError, ParseException) as e:
        raise InvalidRequest(
            "The body of your request broke off, or is framed wrongly."
        ) from e
    raise BodyTooLarge(
        f"The body of your request is longer than {limit} bytes.",
        code="request_too_large",
    )


@contextmanager
def _socket_timeout(request: Request, seconds: float) -> Iterator[None]:
    """Let each read of the body take this long, where the server shares its socket."""
    socket = request.environ.get("gunicorn.socket")
    if socket is None:
        yield
        return
    before = socket.gettimeout()
    socket.settimeout(seconds)
    try:
        yield
    finally:
        socket.settimeout(before)


def drain(request: Request) -> None:
    """Read and discard the rest of the body.

    Closing a connection with unread bytes sends a TCP reset, which can reach the client
    before the answer does.
    """
    left, deadline = _MAX_DRAINED_BYTES, time.monotonic() + _MAX_DRAIN_TIME
    errors = OSError, ParseException, RequestEntityTooLarge
    with suppress(*errors), _socket_timeout(request, _DRAIN_READ_TIMEOUT):
        while left > 0 and time.monotonic() < deadline:
            left -= len(request.stream.read(min(left, 65536))) or left
