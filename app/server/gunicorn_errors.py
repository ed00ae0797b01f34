"""What is answered to requests that are no HTTP, before any application sees them.

gunicorn would send an HTML page. This module is imported in its master, so it loads
nothing that gevent patches later.
"""

import json
import re
import socket
import time
from typing import Any
from urllib.parse import urlsplit

from gunicorn.http.errors import InvalidHeader

from ..errors import GatewayError

# All headers of a request together, in bytes: a config, and twice as much besides.
_MOST = 2**18

# Seconds, and bytes, in which who is told so may stop sending. As many as pass nginx.
_PATIENCE = 2.0
_PASSED_ON = 12 * 2**20


def bound_heads(message: type) -> None:
    """Have requests of gunicorn's class *message* give up on a head that is too long.

    By itself it reads as many headers as it takes, each of the longest, 6.5 MB, and
    looks through all of it again with every piece that arrives. That takes seconds, in
    which a gevent worker does nothing else.
    """
    bound = property(lambda self: _MOST, lambda self, value: None)
    setattr(message, "max_buffer_headers", bound)  # noqa: B010 - mypy knows no such


class AmbiguousHead(InvalidHeader):  # type: ignore[misc]  # gunicorn has no types
    """A head that is HTTP, and that somebody else could read otherwise."""

    def __str__(self) -> str:
        return str(self.hdr)


# A name or an address, and a port: no user, no blank, no path.
_HOST = re.compile(
    r"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
)


def check_heads(request: type) -> None:
    """Have requests of gunicorn's class *request* refused whose host or framing is not
    plain: gunicorn lets through what a proxy in front of it may read in another way.

    A request of HTTP/1.1 names one host, and its target names no other. The only
    transfer coding is chunked: gunicorn takes `gzip, chunked`, and does not unzip.

    Source: https://www.rfc-editor.org/rfc/rfc9112#section-3.2 and section 6.1
    """
    kind: Any = request
    frame = kind.set_body_reader
    if getattr(frame, "checks_heads", False):
        return  # gunicorn reads its settings again when it reloads.

    def set_body_reader(self: Any) -> None:
        _check_host(self)
        _check_coding(self)
        frame(self)

    set_body_reader.checks_heads = True  # type: ignore[attr-defined]
    kind.set_body_reader = set_body_reader


def _check_host(request: Any) -> None:
    hosts = [value for name, value in request.headers if name == "HOST"]
    if not hosts:
        if request.version >= (1, 1):
            raise AmbiguousHead("a header Host is required from version 1.1 on")
    elif len(hosts) > 1 or not _HOST.fullmatch(hosts[0]):
        seen = f"{len(hosts)} of them" if len(hosts) > 1 else repr(hosts[0][:80])
        raise AmbiguousHead(
            f"Host must be one name or address, with a port or without, not {seen}"
        )
    if request.uri[0] != "/" and "://" in request.uri:
        _check_authority(request.uri, hosts)


def _check_authority(uri: str, hosts: list[str]) -> None:
    """The host of a whole address in the first line is that of the header."""
    named = urlsplit(uri).netloc
    if not _HOST.fullmatch(named) or (hosts and named.lower() != hosts[0].lower()):
        raise AmbiguousHead(
            f"the target and Host must name the same host, not {named[:80]!r} and "
            f"{hosts[0][:80] if hosts else ''!r}"
        )


def _check_coding(request: Any) -> None:
    for name, value in request.headers:
        if name == "TRANSFER-ENCODING" and value.lower() != "chunked":
            raise AmbiguousHead(
                f"Transfer-Encoding must be chunked alone, not {value[:80]!r}"
            )


def write_error(client: Any, status: int, reason: str, message: str) -> None:
    """Answer *client*, a socket, in OpenAI's shape. Takes the place of gunicorn's own.

    What cannot be sent at once is left out: the caller may not be reading.
    """
    error = GatewayError(f"{reason}: {message[:200]}", status=status, code="malformed")
    body = json.dumps(error.to_body()).encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    timeout = client.gettimeout()
    client.setblocking(False)
    try:
        client.sendall(head.encode("latin-1", "replace") + body)
        client.shutdown(socket.SHUT_WR)
        _read_the_rest(client)
    except OSError:
        pass
    finally:
        client.settimeout(timeout)


def _read_the_rest(client: Any) -> None:
    """Take what is still on its way, for a while: to close upon it would be a reset,
    which overtakes the answer."""
    ends, left = time.monotonic() + _PATIENCE, _PASSED_ON
    while left > 0 and (seconds := ends - time.monotonic()) > 0:
        client.settimeout(seconds)
        left -= len(client.recv(65536)) or left
