"""What is answered to requests that are no HTTP, before any application sees them.

gunicorn would send an HTML page. This module is imported in its master, so it loads
nothing that gevent patches later.
"""

import json
import socket
import time
from typing import Any

from .errors import GatewayError

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
